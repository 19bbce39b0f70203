"""Captions written by models: orders, proposals, and what becomes of them."""

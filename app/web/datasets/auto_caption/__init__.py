"""Captions written by models: the page of a dataset, and REST."""

"""Styles like this: lists of adapters by the nearness of their looks."""

"""Styles like this: the registry sorted by the nearness of measured looks."""

"""Folders of other programs, in which adapters are kept: the page, and REST."""

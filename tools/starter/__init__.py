"""Builds the embedded base from openly licensed artwork: `python -m tools.starter`."""

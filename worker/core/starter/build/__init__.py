"""Builds the embedded base from openly licensed artwork: `python -m worker.core.starter.build`."""

"""Adapter file formats: read, write, convert, check; tensors and headers only."""

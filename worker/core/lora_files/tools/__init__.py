"""Merge, resize, fuse and extract adapters; tensors and files only."""

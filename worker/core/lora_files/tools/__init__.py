"""Merge, resize, scale, fuse and extract adapters; tensors and files only."""

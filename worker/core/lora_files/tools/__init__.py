"""Adapters merged, resized, fused into a base, and extracted from one; tensors and files only."""

"""The adapter in the base: which layers, which matrices, and how they start."""

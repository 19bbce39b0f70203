"""The adapter in the base model: its layers, its matrices, and their initial values."""

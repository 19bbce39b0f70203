"""Base models: known by their shapes, loaded from a folder or a single file."""

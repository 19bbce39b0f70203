"""Base models: recognized by their tensor shapes, loaded from a folder or a single file."""

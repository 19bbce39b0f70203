"""Captions of images by models: one interface for servers, local models and the built-in eyes."""

"""The inference core: a resident pipeline with the adapters in its weights."""

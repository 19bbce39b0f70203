"""The inference core: a resident pipeline with adapters merged into its weights."""

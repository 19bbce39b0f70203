"""The samples of a training: generate, check and keep them."""

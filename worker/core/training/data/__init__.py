"""The training data: images and captions, cached as latents, in batches."""

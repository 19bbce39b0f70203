"""What a training sees: images and captions, cached as latents, in batches."""

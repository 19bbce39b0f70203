"""The training core: images in, a LoRA out; without web, database or broker."""

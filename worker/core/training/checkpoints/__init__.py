"""The checkpoints of a training: write, identify and continue from them."""

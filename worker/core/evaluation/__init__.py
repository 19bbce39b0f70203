"""Measures checkpoints and weights of an adapter by their images, and says which one is the best.

`docs/training.md` says what each measure can tell. Importing this package loads no
torch.
"""

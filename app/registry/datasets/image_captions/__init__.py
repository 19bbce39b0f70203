"""Several captions of an image, the history of each, and their tokens."""

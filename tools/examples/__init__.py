"""Draws the images of the example styles from the same artwork as the embedded base."""

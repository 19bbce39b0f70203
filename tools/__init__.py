"""Maintainers build the embedded base, its example styles and the eyes with these packages."""

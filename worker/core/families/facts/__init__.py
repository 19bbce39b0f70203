"""Facts of base models by family, which need no torch and no network."""

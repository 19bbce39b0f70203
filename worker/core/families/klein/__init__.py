"""FLUX.2 klein: a transformer of 4 billion parameters with an autoencoder of its own."""

"""The behavior of a worker while storage, database or disk cannot be used."""

"""What a worker does while storage, database or disk cannot be used."""

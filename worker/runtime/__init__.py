"""What runs in worker processes: claim a row, do the work, write what came of it."""

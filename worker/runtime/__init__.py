"""Worker processes: claim a job row, process it, store the result."""

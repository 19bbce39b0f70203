"""One attempt at a run: its inputs, what it reports and stores, and its result."""

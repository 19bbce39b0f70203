"""Io jobs in processes that can be ended: each kind has a time limit, whatever its code does."""

"""Stored files (blobs): which rows refer to each, which are damaged, and which nobody needs.

The marker in the store names the registry that owns it, so that no other one deletes its files.
"""

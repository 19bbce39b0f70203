"""The Hugging Face Hub: look up a repository, download files, publish; no web, no database.

Runs as a separate process (`python -m worker.core.hub`), the only process of a worker that uses the
network.
"""

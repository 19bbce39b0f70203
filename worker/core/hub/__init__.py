"""The Hugging Face Hub: look a repository up, fetch what is needed, publish; no web, no database.

Runs as a separate process (`python -m worker.core.hub`), the only one of a worker that uses the
network.
"""

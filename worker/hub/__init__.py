"""The Hugging Face Hub: look a repository up, fetch what is needed, publish; no web, no database.

Runs as a process of its own (`python -m worker.hub`), the only one of a worker that may go out.
"""

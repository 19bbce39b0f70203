"""Adapter file formats: reading, writing, converting and checking; no web, no database."""

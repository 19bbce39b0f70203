"""Families of base models: everything that differs between their networks."""

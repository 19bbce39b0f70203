"""Starts broker, migrations, web and workers on one machine, and ends them together."""

"""Starts the broker, migrations, web server and workers on one machine, and stops them together."""

"""Models that caption images on this machine: their page, and REST."""

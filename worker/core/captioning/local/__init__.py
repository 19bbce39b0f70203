"""Models that caption images on this machine, from folders as the Hub has them."""

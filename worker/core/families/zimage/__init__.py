"""Z-Image and Z-Image-Turbo: a transformer that turns noise into images along straight lines."""

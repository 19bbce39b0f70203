"""Models that caption images on this machine: added from the Hub or a folder, checked, removed."""

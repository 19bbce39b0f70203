"""Models that people add from a folder of this machine or from the Hub, whatever their kind."""

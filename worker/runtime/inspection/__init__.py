"""Inspects models in a process that can be ended: their folders may never answer."""

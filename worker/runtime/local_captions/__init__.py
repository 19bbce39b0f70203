"""Captions by models of this machine, each in a process of its own, never beside a training."""

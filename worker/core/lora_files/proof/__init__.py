"""Checks that a LoRA file has the same effect in every program: one rule per loader.

Each rule is our own statement of what a program does with the tensor names, alphas and header of
a file. The rules share no code with the exporter, so that they can catch a wrong name.
"""

"""The proof that a file means the same in every program: one rule a loader, and what they give.

The rules are our own statements of what each program does with the names, alphas and header of a
file. They share no code with the writer of the downloads, so that a wrong name can be caught.
"""

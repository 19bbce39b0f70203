"""Limits of adapter weights, without torch, for forms and workers."""

from __future__ import annotations

import math

MAX_WEIGHT = 10.0
USUAL_WEIGHT = 1.0  # of a version whose usual weight nobody edited
MAX_RENDER_ADAPTERS = 8
MAX_STRIP = 25  # images of one seed with weights of their own: a square of 5 × 5
MAX_STRIP_ADAPTERS = MAX_STRIP + MAX_RENDER_ADAPTERS - 1
"""In all images of a strip together: each with another one, beside the most that one image has."""
MAX_MERGE_ADAPTERS = 16


def weight_problem(weight: float, name: str = "") -> str:
    """A sentence on why the weight of an adapter is not accepted; empty if it is."""
    what = f"The weight of “{name}”" if name else "The weight"
    if not math.isfinite(weight):
        return f"{what} is not a number."
    if abs(weight) > MAX_WEIGHT:
        return f"{what} is {weight:g}; weights from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g} are accepted."
    return ""

"""Limits of adapter weights; imports no torch, so that forms and workers share them."""

from __future__ import annotations

import math

MAX_WEIGHT = 10.0
MAX_RENDER_ADAPTERS = 8
MAX_MERGE_ADAPTERS = 16


def weight_problem(weight: float, name: str = "") -> str:
    """Why the weight of an adapter is not accepted, as a sentence; empty if it is."""
    what = f"The weight of “{name}”" if name else "The weight"
    if not math.isfinite(weight):
        return f"{what} is not a number."
    if abs(weight) > MAX_WEIGHT:
        return f"{what} is {weight:g}; weights from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g} are accepted."
    return ""

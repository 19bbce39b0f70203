"""Strips: one seed at several weights of the adapters, to see at once what a weight does."""

from __future__ import annotations

from collections.abc import Sequence

from app.registry.wording import plural
from worker.core.lora_files.weights import weight_problem

MAX_STRIP = 25  # images: a square of 5 × 5
LOWEST, HIGHEST, STEP = -0.5, 1.5, 0.25


def usual_weights(current: float) -> list[float]:
    """The nine weights of a strip, the one next to the current weight first.

    They are generated in this order where they do not fit into one batch.
    """
    count = round((HIGHEST - LOWEST) / STEP) + 1
    weights = [round(LOWEST + STEP * place, 2) for place in range(count)]
    return sorted(weights, key=lambda weight: abs(weight - current))


def strip_problem(weights: Sequence[Sequence[float]], adapters: int) -> str:
    """Why these weights are no strip for this number of adapters; empty if they are."""
    if not adapters:
        return "A strip of weights needs an adapter."
    if not 1 <= len(weights) <= MAX_STRIP:
        return f"A strip has 1 to {MAX_STRIP} images; this one has {len(weights)}."
    if any(len(row) != adapters for row in weights):
        return f"Each image of a strip needs {plural(adapters, 'weight')}, one for each adapter."
    return next(filter(None, (weight_problem(weight) for row in weights for weight in row)), "")

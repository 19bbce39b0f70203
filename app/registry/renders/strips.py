"""Strips: one seed at several weights of the adapters, to see at once what a weight does.

One adapter varies in a line of weights, two vary in a square. None in the place of a weight leaves
an adapter out of an image, so that each image can have another checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

from app.registry.wording import plural
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS, weight_problem

Row = Sequence[float | None]
"""The weights of all adapters for one image."""

MAX_STRIP = 25  # images: a square of 5 × 5
LOWEST, HIGHEST, STEP = -0.5, 1.5, 0.25
SIDE = 5  # of a square, in images
MAX_STRIP_ADAPTERS = MAX_STRIP + MAX_RENDER_ADAPTERS - 1
"""In all images of a strip together: each with another one, beside the most that one image has."""


def usual_weights(current: float) -> list[float]:
    """The nine weights of a strip, the one next to the current weight first.

    They are generated in this order where they do not fit into one batch.
    """
    count = round((HIGHEST - LOWEST) / STEP) + 1
    weights = [round(LOWEST + STEP * place, 2) for place in range(count)]
    return sorted(weights, key=lambda weight: abs(weight - current))


def square_weights(down: float, across: float) -> list[tuple[float, float]]:
    """The 25 pairs of weights of a square, the one next to the current pair first.

    Each weight goes from 0 to 1, or is moved so far that the current one lies within.
    """
    pairs = product(_side_weights(down), _side_weights(across))
    return sorted(pairs, key=lambda pair: math.dist(pair, (down, across)))


def _side_weights(current: float) -> list[float]:
    span = STEP * (SIDE - 1)
    beyond = max(0.0, current - span)
    first = math.ceil(beyond / STEP) if beyond else min(0, math.floor(current / STEP))
    return [STEP * (first + place) for place in range(SIDE)]


def vary(current: Sequence[float], changes: Sequence[Mapping[int, float]]) -> list[list[float]]:
    """The current weights once for each change: the weights of some adapters by their place."""
    return [
        [change.get(place, weight) for place, weight in enumerate(current)] for change in changes
    ]


def spread(count: int, limit: int, *, among: int) -> list[int]:
    """At most `limit` of `count` places: evenly chosen, with both ends, and with place `among`."""
    if count <= limit:
        return list(range(count))
    places = {round(number * (count - 1) / (limit - 1)) for number in range(limit)}
    if among not in places:
        places.remove(min(places, key=lambda place: abs(place - among)))
    return sorted(places | {among})


def fill_rows(
    rows: Sequence[Row], weights: Sequence[float], *, asked: int
) -> list[list[float | None]]:
    """The rows with the weights of adapters that the prompt names, where they have only `asked`.

    `weights` are those of all adapters; the ones of the prompt come last.
    """
    return [[*row, *weights[asked:]] if len(row) == asked else list(row) for row in rows]


def strip_problem(weights: Sequence[Row], adapters: int) -> str:
    """Why these weights are no strip for this number of adapters; empty if they are."""
    if not adapters:
        return "A strip of weights needs an adapter."
    if not 1 <= len(weights) <= MAX_STRIP:
        return f"A strip has 1 to {MAX_STRIP} images; this one has {len(weights)}."
    if any(len(row) != adapters for row in weights):
        return f"Each image of a strip needs {plural(adapters, 'weight')}, one for each adapter."
    used = [[weight for weight in row if weight is not None] for row in weights]
    if any(len(row) > MAX_RENDER_ADAPTERS for row in used):
        return (
            f"At most {MAX_RENDER_ADAPTERS} adapters can be combined in an image of a strip; null "
            "leaves one out."
        )
    return next(filter(None, (weight_problem(weight) for row in used for weight in row)), "")

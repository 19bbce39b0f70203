"""The sum of the weights is held, for a browser without scripts; with scripts, blend.js does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.web.form_reader import parse_number
from app.web.playground.adapter_rows import AdapterRow

PLACES = 1_000
"""Weights are whole thousandths here, so that their sum is exact."""


def hold_sum(rows: Sequence[AdapterRow]) -> tuple[AdapterRow, ...]:
    """The rows with the weights that nobody changed scaled, so that the sum of those that are on
    stays what the page had shown.

    Where every weight was changed, or one is not a number, they stay as they were typed.
    """
    on = [place for place, row in enumerate(rows) if row.is_on]
    shown = {place: parse_number(rows[place].held) for place in on}
    typed = {place: rows[place].number for place in on}
    if None in shown.values() or None in typed.values():
        return tuple(rows)
    before = {place: number or 0.0 for place, number in shown.items()}
    now = {place: number or 0.0 for place, number in typed.items()}
    others = [place for place in on if now[place] == before[place]]
    changed = list(rows)
    if others and len(others) < len(on):
        rest = sum(before.values()) - sum(now[place] for place in on if place not in others)
        weights = _round(divide([before[place] for place in others], rest))
        for place, weight in zip(others, weights, strict=True):
            changed[place] = replace(changed[place], weight=f"{weight:g}")
    return tuple(replace(row, held="") for row in changed)


def divide(shares: Sequence[float], rest: float) -> list[float]:
    """The weights of the others for this rest of the sum; their shares say how it is divided."""
    total = sum(shares)
    if min(shares) < 0 < max(shares):
        return [share + (rest - total) / len(shares) for share in shares]
    if total == 0:
        return [max(0.0, rest) / len(shares)] * len(shares)
    return [share * max(0.0, rest / total) for share in shares]


def _round(weights: Sequence[float]) -> list[float]:
    """In whole thousandths; what rounding leaves goes to the largest."""
    whole = [round(weight * PLACES) for weight in weights]
    largest = max(range(len(weights)), key=lambda place: abs(weights[place]))
    whole[largest] += round(sum(weights) * PLACES) - sum(whole)
    return [number / PLACES for number in whole]

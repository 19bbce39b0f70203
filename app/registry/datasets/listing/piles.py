"""Finds images that look alike, by their perceptual hashes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

BITS = 64  # of a hash
CENTERS = 50


def near_pairs(hashes: Mapping[int, int], distance: int) -> dict[int, set[int]]:
    """For each id the other ids whose hashes differ in at most this many bits; none without any.

    Of hashes cut into `distance + 1` bands, those that are so near have one band in common, so only
    these are compared: some 100,000 comparisons for 5,000 images, instead of 12 million.
    """
    same: dict[int, list[int]] = defaultdict(list)  # ids by hash
    for key, value in hashes.items():
        same[value].append(key)
    near: dict[int, set[int]] = {value: {value} for value in same}
    for alike in _by_band(list(same), distance + 1):
        for place, first in enumerate(alike):
            for second in alike[place + 1 :]:
                if (first ^ second).bit_count() <= distance:
                    near[first].add(second)
                    near[second].add(first)
    found = {}
    for key, value in hashes.items():
        others = {other for near_value in near[value] for other in same[near_value]} - {key}
        if others:
            found[key] = others
    return found


def _by_band(values: Sequence[int], bands: int) -> Iterator[list[int]]:
    """The hashes that have one band in common, band by band."""
    edges = [BITS * band // bands for band in range(bands + 1)]
    for low, high in pairwise(edges):
        mask = (1 << (high - low)) - 1
        alike: dict[int, list[int]] = defaultdict(list)
        for value in values:
            alike[value >> low & mask].append(value)
        yield from (found for found in alike.values() if len(found) > 1)


def largest_group(hashes: Mapping[int, int], distance: int) -> list[int]:
    """The ids whose hashes differ from that of one image in at most this many bits, the most found.

    At most `CENTERS` images are tried as the middle, spread over all.
    """
    values = list(hashes.items())
    best: list[int] = []
    for _, center in values[:: max(1, len(values) // CENTERS)]:
        group = [key for key, value in values if (center ^ value).bit_count() <= distance]
        best = max(best, group, key=len)
    return best


def piles(
    hashes: Mapping[int, int], distance: int, *, best_first: Sequence[int]
) -> list[list[int]]:
    """Images that look alike, each pile with the best one first; no image is in two piles.

    `best_first`: the ids in the order in which they are kept. Every other image of a pile is near
    the first one itself, so a row of small changes is not one pile.
    """
    near = near_pairs(hashes, distance)
    taken: set[int] = set()
    found = []
    for best in best_first:
        others = near.get(best, set()) - taken
        if best in taken or not others:
            continue
        pile = [best, *sorted(others)]
        taken.update(pile)
        found.append(pile)
    return found

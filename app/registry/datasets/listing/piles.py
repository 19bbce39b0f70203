"""Finds images that look alike, by their perceptual hashes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from app.registry.datasets.measures import MIRRORED_DISTANCE, NEAR_DISTANCE
from app.registry.images.pixels import mirrored_hash

BITS = 64  # of a hash
CENTERS = 50


def near_pairs(hashes: Mapping[int, int], distance: int) -> dict[int, set[int]]:
    """For each id the other ids whose hashes differ in at most this many bits; none without any.

    Of hashes cut into `distance + 1` bands, those that are so near have one band in common, so only
    these are compared: some 100,000 comparisons for 5,000 images, instead of 12 million.
    """
    values = set(hashes.values())
    near = {value: {value} for value in values}
    for _, by_band in _by_band(values, distance + 1):
        for alike in by_band.values():
            for place, first in enumerate(alike):
                for second in alike[place + 1 :]:
                    if (first ^ second).bit_count() <= distance:
                        near[first].add(second)
                        near[second].add(first)
    return _by_id(hashes, near)


def mirrored_pairs(hashes: Mapping[int, int], distance: int) -> dict[int, set[int]]:
    """For each id the ids of mirrored copies: their hashes differ so little from its mirrored one.

    Compared are those that have one band in common, as in `near_pairs`; none without any.
    """
    values = set(hashes.values())
    near: dict[int, set[int]] = {value: set() for value in values}
    for turned, by_band in _by_band(values, distance + 1):
        for band, firsts in by_band.items():
            if band ^ turned < band:
                continue  # compared from the other side
            for first in firsts:
                mirrored = mirrored_hash(first)
                for second in by_band.get(band ^ turned, ()):
                    if (mirrored ^ second).bit_count() <= distance:
                        near[first].add(second)
                        near[second].add(first)
    return _by_id(hashes, near)


def _by_id(hashes: Mapping[int, int], near: Mapping[int, set[int]]) -> dict[int, set[int]]:
    """The ids of the hashes that are near that of each id, without itself."""
    same: dict[int, list[int]] = defaultdict(list)  # ids by hash
    for key, value in hashes.items():
        same[value].append(key)
    found = {}
    for key, value in hashes.items():
        others = {other for near_value in near[value] for other in same[near_value]} - {key}
        if others:
            found[key] = others
    return found


def _by_band(values: Iterable[int], bands: int) -> Iterator[tuple[int, dict[int, list[int]]]]:
    """For each band what mirroring changes in it, and the hashes by their bits there."""
    edges = [BITS * band // bands for band in range(bands + 1)]
    for low, high in pairwise(edges):
        mask = (1 << (high - low)) - 1
        alike: dict[int, list[int]] = defaultdict(list)
        for value in values:
            alike[value >> low & mask].append(value)
        yield mirrored_hash(0) >> low & mask, alike


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


def piles(hashes: Mapping[int, int], *, best_first: Sequence[int]) -> list[list[int]]:
    """Images that look alike, mirrored or not, the best of each pile first; none is in two piles.

    `best_first`: the ids in the order in which they are kept. Every other image of a pile is near
    the first one itself, so a row of small changes is not one pile.
    """
    near = near_pairs(hashes, NEAR_DISTANCE)
    mirrored = mirrored_pairs(hashes, MIRRORED_DISTANCE)
    taken: set[int] = set()
    found = []
    for best in best_first:
        others = (near.get(best, set()) | mirrored.get(best, set())) - taken
        if best in taken or not others:
            continue
        pile = [best, *sorted(others)]
        taken.update(pile)
        found.append(pile)
    return found

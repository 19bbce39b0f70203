"""The parts of a base model in which an adapter can have a weight of its own; without torch."""

from __future__ import annotations

import re
from enum import StrEnum

from worker.core.families.adapter_files import block_place, is_last


class Part(StrEnum):
    """A part of a base model: the text encoders, and the UNet's way down, middle and way up.

    In a transformer these are the first, second and last third of its blocks. `OTHER`: what belongs
    to no block, such as a time embedding, a first and last layer, or Z-Image's refiners.
    """

    TEXT = "text"
    OTHER = "other"
    INPUT = "input"
    MIDDLE = "middle"
    OUTPUT = "output"


UNET = "unet."
BLOCKS = {
    "down_blocks.": Part.INPUT,
    "mid_block.": Part.MIDDLE,
    "up_blocks.": Part.OUTPUT,
}
"""The parts by how the paths of diffusers' UNets begin."""
IN_A_BLOCK = re.compile(r"(\w+)\.(?:(\d{1,4})\.)?(resnets|attentions)\.(\d{1,4})\.(.*)", re.ASCII)
NUMBER = re.compile(r"\d{1,9}", re.ASCII)
MANY = 10**9

Place = tuple[int, str]


def part_of(key: str) -> Part:
    """The part that a layer belongs to, by its key `<component>.<path>`."""
    if not key.startswith(UNET):
        return Part.TEXT
    path = key.removeprefix(UNET)
    if place := block_place(path):
        number, count = place
        return list(BLOCKS.values())[min(3 * number // count, 2)]
    return next((part for start, part in BLOCKS.items() if path.startswith(start)), Part.OTHER)


def layer_order(key: str) -> list[Place]:
    """Sorts layers as an image passes through them: text encoders, then the UNet from its input.

    In a block, ResNet and attention of one number come before those of the next, then samplers.
    """
    part, path = part_of(key), key.removeprefix(UNET)
    stage = len(Part) if is_last(path) else list(Part).index(part)
    if found := IN_A_BLOCK.fullmatch(path):
        block, place, kind, number, layer = found.groups()
        first = {"resnets": "0", "attentions": "1"}[kind]
        words = [block, place or "0", number, first, *layer.split(".")]
    elif place_in_row := block_place(path):
        words = [str(place_in_row[0]), *path.split(".")[2:]]
    else:
        words = path.split(".")
    return [(stage, ""), *(_place(word) for word in words)]


def _place(word: str) -> Place:
    """Numbers by their value, before words."""
    return (int(word), "") if NUMBER.fullmatch(word) else (MANY, word)

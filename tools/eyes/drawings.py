"""The drawings that the eyes learn from, and those that they are tested on, by name.

Unicode's short names join the artwork sets: a subject is one name, drawn by up to six hands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tools.starter.artwork import NAMES_PACKAGE, icon_name, read_package, render_drawing, svg_of

RENDER_SIZE = 160
GROUPS = frozenset({0, 3, 4, 5, 6, 7, 8})
"""Groups of `emojibase-data`: all but people (1), parts of people (2) and flags (9)."""

SKIPPED_NAME = re.compile(r"skin tone|flag|keycap|family|letter|button$|^input|[^\x00-\x7f]")
"""Drawings of letters and digits, and names that no keyboard types."""

PEOPLE = frozenset({"baby", "boy", "child", "girl", "human", "man", "people", "person", "woman"})
"""Keywords of a few faces; the eyes learn no people, so they must not claim to know them."""

MIN_HANDS = 2


class Hand(StrEnum):
    """A set of artwork to learn from."""

    NOTO = "noto"
    NOTO_V1 = "noto-v1"
    TWEMOJI = "twemoji"
    EMOJIONE = "emojione"
    FXEMOJI = "fxemoji"
    FLUENT = "fluent-emoji-flat"


class UnseenHand(StrEnum):
    """A set of artwork that is kept out of training and tuning, for the tests alone."""

    OPENMOJI = "openmoji"
    HIGH_CONTRAST = "fluent-emoji-high-contrast"
    STREAMLINE = "streamline-emojis"
    LUCIDE = "lucide"
    TABLER = "tabler"


@dataclass(frozen=True)
class Drawing:
    """One hand's drawing of a name."""

    name: int
    """Index into the names."""
    hand: str
    svg: str


@dataclass(frozen=True)
class Artwork:
    """Names in Unicode's order with other words for them, and all drawings."""

    names: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    """Per name, other names that are in use: "apple" for "red apple"."""
    keywords: tuple[tuple[str, ...], ...]
    """Per name, words that Unicode gives it and perhaps others."""
    drawings: tuple[Drawing, ...]
    unseen: tuple[Drawing, ...]


def load_eyes_artwork(folder: Path) -> Artwork:
    """The artwork in `folder`, which holds the tarballs as `npm pack` names them."""
    entries = read_package(folder, NAMES_PACKAGE, "en/data.json")
    codes = read_package(folder, NAMES_PACKAGE, "en/shortcodes/github.json")
    icons = {hand: _icons(folder, hand) for hand in Hand}
    others = {hand: _icons(folder, hand) for hand in UnseenHand}
    names: list[str] = []
    aliases: list[tuple[str, ...]] = []
    keywords: list[tuple[str, ...]] = []
    drawings: list[Drawing] = []
    unseen: list[Drawing] = []
    for entry in sorted(entries, key=lambda entry: entry.get("order", 0)):
        label = entry["label"].lower()
        if entry.get("group") not in GROUPS or SKIPPED_NAME.search(label):
            continue
        slug = icon_name(label)
        drawn = [(hand, svg) for hand in Hand if (svg := svg_of(icons[hand], slug))]
        if len(drawn) < MIN_HANDS:
            continue
        index = len(names)
        also = _listed(codes.get(entry["hexcode"], ()))
        names.append(" ".join(slug.split("-")))
        aliases.append(tuple(alias.replace("_", " ") for alias in also))
        keywords.append(tuple(tag for tag in entry.get("tags", ()) if tag not in PEOPLE))
        drawings += [Drawing(index, hand.value, svg) for hand, svg in drawn]
        slugs = [slug, *(icon_name(alias) for alias in also)]
        unseen += [
            Drawing(index, hand.value, svg)
            for hand in others
            if (svg := _first_svg(others[hand], slugs))
        ]
    return Artwork(tuple(names), tuple(aliases), tuple(keywords), tuple(drawings), tuple(unseen))


def _icons(folder: Path, hand: StrEnum) -> Mapping[str, Any]:
    icons: Mapping[str, Any] = read_package(folder, f"@iconify-json/{hand.value}", "icons.json")
    return icons


def _first_svg(icons: Mapping[str, Any], slugs: Iterable[str]) -> str | None:
    """The drawing under the first of these slugs; some sets number their drawings from 1."""
    found = (svg_of(icons, name) for slug in slugs for name in (slug, f"{slug}-1"))
    return next((svg for svg in found if svg), None)


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def render_all(drawings: Sequence[Drawing], cache: Path | None = None) -> Tensor:
    """All drawings as (n, 4, 160, 160) uint8, color multiplied by opacity.

    With `cache`, an array file that is written once and mapped into memory afterwards.
    """
    if cache is not None and cache.exists():
        pixels = np.load(cache, mmap_mode="c")
        if len(pixels) == len(drawings):
            return torch.from_numpy(pixels)
    pixels = np.stack([_render(drawing.svg) for drawing in drawings])
    if cache is not None:
        partial = cache.with_suffix(".tmp.npy")
        np.save(partial, pixels)
        partial.replace(cache)
    return torch.from_numpy(pixels)


def _render(svg: str) -> np.ndarray[Any, Any]:
    pixels = np.asarray(render_drawing(svg, RENDER_SIZE), dtype=np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    return pixels.round().astype(np.uint8).transpose(2, 0, 1)

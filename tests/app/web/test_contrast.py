"""Every pair of colors that meet on a page can be read, in light and in dark (WCAG 2.2 AA)."""

from __future__ import annotations

import re

import pytest

from app.registry.paths import STATIC

TOKEN = re.compile(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)")
TOKENS = {
    match[1]: (match[2], match[3])
    for match in TOKEN.finditer((STATIC / "css" / "tokens.css").read_text())
}
TEXT = 4.5
SIGN = 3.0  # lines of fields, icons, large text
SURFACES = ("page", "panel", "raised", "sunken")
PAIRS = [
    *((ink, surface, TEXT) for ink in ("ink", "ink-2") for surface in SURFACES),
    *((name, f"{name}-soft", TEXT) for name in ("accent", "good", "warn", "bad")),
    *(("ink", f"{name}-soft", TEXT) for name in ("accent", "good", "warn", "bad")),
    *(("accent", surface, TEXT) for surface in ("page", "panel")),
    *(("bad", surface, TEXT) for surface in ("page", "panel")),
    ("on-accent", "accent", TEXT),
    ("on-accent", "accent-strong", TEXT),
    *(("line-strong", surface, SIGN) for surface in ("page", "panel")),
]


def luminance(color: str) -> float:
    """Relative luminance as WCAG defines it."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("front", "back", "least"), PAIRS)
def test_colors_that_meet_can_be_told_apart(
    front: str, back: str, least: float, theme: int
) -> None:
    assert contrast(TOKENS[front][theme], TOKENS[back][theme]) >= least

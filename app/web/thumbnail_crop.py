"""Which part of a thumbnail shows in a square: the one around the focus point of the image.

Inline styles are not allowed, so pages name one of a few places that the style sheet knows.
"""

from __future__ import annotations

STEP = 5  # percent
CENTER = 50


def crop_place(focus: tuple[float, float] | None, width: int, height: int) -> int:
    """The place along an image's longer side of its square crop, 0 to 100 in steps of 5.

    Of a panorama, 0 shows the left end, 100 the right one. As in training, the focus point is in
    the middle of the square unless an edge of the image is nearer.
    """
    short, long = sorted((width, height))
    if focus is None or short == long:
        return CENTER
    part = short / long
    start = min(max((focus[0] if width > height else focus[1]) - part / 2, 0), 1 - part)
    return round(100 * start / (1 - part) / STEP) * STEP

"""The largest image that a base model is asked for, and sizes far from its own."""

from __future__ import annotations

from app.registry.tables.added_models import BaseModel

MAX_AREA_RATIO = 16  # times the area that the base was trained at
USUAL_SIDE = 512  # pixels, for a base whose own size is unknown
FAR_BELOW, FAR_ABOVE = 1 / 4, 2.5  # times the area that the base was trained at
FAR_SIDE = 2  # times its side


def size_problem(base: BaseModel, width: int, height: int) -> str | None:
    """The reason why an image of this size, in pixels, is too large for the base; else None.

    A much larger image than those of the training repeats its subject, and attention takes time
    and memory with the square of the area: minutes for one call of the UNet.
    """
    side = base.resolution or USUAL_SIDE
    if width * height <= MAX_AREA_RATIO * side**2:
        return None
    longest = round(MAX_AREA_RATIO**0.5) * side
    return (
        f"{width} × {height} is too large for “{base.name}”, which was trained at {side} pixels. "
        f"Choose at most {longest} × {longest}, or the same area."
    )


def size_note(base: BaseModel, width: int, height: int) -> str:
    """A warning for a size, in pixels, that is far from the base's own; empty for one near it.

    768 × 768 is near 512 × 512, and so is a strip of twice its side: people use both.
    """
    side = base.resolution or USUAL_SIDE
    is_far = not FAR_BELOW < width * height / side**2 <= FAR_ABOVE
    if not is_far and max(width, height) <= FAR_SIDE * side:
        return ""
    return (
        f"{width} × {height} is far from the {side} × {side} that “{base.name}” was trained at: "
        "expect noise or a subject several times, not more detail. Stay near that size."
    )

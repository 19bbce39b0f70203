"""The largest image that a base model is asked for."""

from __future__ import annotations

from app.registry.base_models.models import BaseModel

MAX_AREA_RATIO = 16  # times the area that the base was trained at
USUAL_SIDE = 512  # pixels, for a base whose own size is unknown


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

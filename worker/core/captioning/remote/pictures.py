"""Images as they are sent to a server."""

from __future__ import annotations

import base64
from io import BytesIO

from PIL import Image

from worker.core.eyes.images import as_rgb

MAX_SIDE = 1024
"""Pixels; vision models scale to about this or less, and larger images only cost time."""

QUALITY = 92


def jpeg_base64(image: Image.Image) -> str:
    """A JPEG of the image with sides of at most `MAX_SIDE`, transparent parts on white."""
    rgb = as_rgb(image)
    rgb.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    rgb.save(buffer, "JPEG", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")

"""Small images of a render while it is generated."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

MAX_SIDE = 160  # pixels
QUALITY = 60
PREVIEW_SECONDS = 0.25  # at least between two previews
MAX_SHARE = 0.1  # of the time of a render


class Previews:
    """Makes previews of the first image of a render, as often as they cost little."""

    def __init__(self, make_image: Callable[[Tensor], Image.Image]) -> None:
        """`make_image` turns clean latents (channels, height, width) into an image."""
        self._make_image = make_image
        self._due = time.monotonic() + PREVIEW_SECONDS
        self._newest: bytes | None = None

    def note(self, first: int, latents: Tensor) -> None:
        """Make a preview if one is due.

        `latents` (n, channels, height, width): those of the images `first`, `first` + 1 …
        """
        started = time.monotonic()
        if first or started < self._due:
            return
        image = self._make_image(latents[0])
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        encoded = io.BytesIO()
        image.save(encoded, "WEBP", quality=QUALITY)
        self._newest = encoded.getvalue()
        ended = time.monotonic()
        self._due = ended + max(PREVIEW_SECONDS, (ended - started) / MAX_SHARE)

    def take(self) -> bytes | None:
        """The newest preview as WebP, once; None if there is no newer one."""
        newest, self._newest = self._newest, None
        return newest

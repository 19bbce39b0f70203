"""What chats with all servers share: an image as it is sent, and the caption in an answer."""

from __future__ import annotations

import base64
from io import BytesIO

from PIL import Image

from worker.core.captioning.answers import caption_of_answer
from worker.core.captioning.interface import CaptionAnswer, ImageNotCaptioned
from worker.core.captioning.refusals import is_refusal, refused
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


def read_caption(model: str, said: object, nothing: str, *, is_cut_off: bool) -> CaptionAnswer:
    """The caption in what a model said. Raises ImageNotCaptioned, with `nothing` if it has none."""
    text = caption_of_answer(said, is_cut_off=is_cut_off) if isinstance(said, str) else ""
    if not text:
        raise ImageNotCaptioned(nothing)
    if is_refusal(text):
        raise refused(model, text)
    return CaptionAnswer(text)

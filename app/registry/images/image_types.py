"""The type of an image file by its first bytes, regardless of its name."""

from __future__ import annotations

from pathlib import Path

HEAD_BYTES = 16
SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
)
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


def image_type(head: bytes) -> str | None:
    """The media type of an image by its first bytes; None for anything else."""
    for signature, media_type in SIGNATURES:
        if head.startswith(signature):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def image_suffix(path: Path) -> str:
    """The file name suffix for the type of an image; `.png` for anything else."""
    with path.open("rb") as file:
        media_type = image_type(file.read(HEAD_BYTES))
    return SUFFIXES.get(media_type or "", ".png")  # reading it will report the problem

"""Pictures are known by their first bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.registry.images.image_types import image_suffix, image_type


@pytest.mark.parametrize(
    ("head", "media_type", "suffix"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png", ".png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg", ".jpg"),
        (b"RIFF\x10\0\0\0WEBPVP8L", "image/webp", ".webp"),
        (b"RIFF\x10\0\0\0WAVEfmt ", None, ".png"),
        (b"", None, ".png"),
    ],
)
def test_a_type_is_told_by_the_first_bytes(
    tmp_path: Path, head: bytes, media_type: str | None, suffix: str
) -> None:
    (tmp_path / "blob").write_bytes(head)
    assert image_type(head) == media_type
    assert image_suffix(tmp_path / "blob") == suffix

"""Small pictures for tests that need one, any one."""

from __future__ import annotations

import io

from PIL import Image


def make_png(number: int = 0, size: tuple[int, int] = (80, 64)) -> bytes:
    """A PNG whose color follows from `number`; other numbers, other pictures."""
    width, height = size
    picture = Image.new("RGB", size, ((number * 37) % 256, (number * 91) % 256, 120))
    picture.putpixel((number % width, number // width % height), (255, 255, 255))
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()

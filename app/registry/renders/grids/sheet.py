"""A sheet of a grid as one image, with its title and the labels of its axes; drawn with Pillow."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import threading
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from app.registry.renders.grids.views import CellView, GridView
from app.registry.storage.store import BlobDamaged, BlobNotFound, BlobStore

MAX_PIXELS = 24_000_000
MAX_SIDE = 12_000
LARGEST, SMALLEST = 512, 16  # longer side of a cell in pixels
GAP, MARGIN = 6, 24
TITLE_SIZE, LABEL_SIZE = 24, 15
LINES = 4  # of a label
LABEL_LINE, TITLE_LINE = LABEL_SIZE + 4, TITLE_SIZE + 10
WIDEST = 180  # space for the labels of rows
PAPER, INK, QUIET, LINE = "#ffffff", "#1c1917", "#57534e", "#a8a29e"
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "arial.ttf")
PILLOWS_FONT = "Aileron"
PLAIN = str.maketrans({"×": "x", "−": "-", "–": "-", "—": "-", "ß": "ss", "ø": "o", "ł": "l"})
_one_at_a_time = threading.Semaphore(1)  # a sheet takes some 100 MB while it is drawn


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels: of a cell, and of the spaces for labels."""

    cell: tuple[int, int]
    left: int
    top: int
    size: tuple[int, int]


def draw_sheet(view: GridView, sheet: int, store: BlobStore) -> bytes:
    """The PNG of one sheet; cells without an image are outlined.

    Cells are as large as the images and at most 512 pixels, and smaller where the sheet would have
    more than 24 million pixels or a side of more than 12,000.
    """
    with _one_at_a_time:
        sheets = view.grid.sizes[2]
        labels = [list(axis.labels) for axis in view.axes] + [[], [], []]
        subtitle = labels[2][sheet] if sheets > 1 else ""
        layout = _layout(view, labels[0], labels[1], has_subtitle=bool(subtitle))
        image = Image.new("RGB", layout.size, PAPER)
        pen = ImageDraw.Draw(image)
        width = layout.size[0] - 2 * MARGIN
        _text(pen, (MARGIN, MARGIN), _fit([view.grid.title], width, TITLE_SIZE), TITLE_SIZE, INK)
        if subtitle:
            lines = _wrap(subtitle, width, LABEL_SIZE, 1)
            _text(pen, (MARGIN, MARGIN + TITLE_LINE), lines, LABEL_SIZE, QUIET)
        for column, label in enumerate(labels[0]):
            lines = _wrap(label, layout.cell[0], LABEL_SIZE, LINES)
            at = (_x(layout, column), layout.top - LABEL_LINE * len(lines) - 4)
            _text(pen, at, lines, LABEL_SIZE, INK)
        for row, label in enumerate(labels[1]):
            room = max(1, min(LINES, layout.cell[1] // LABEL_LINE))
            lines = _wrap(label, layout.left - MARGIN - 2 * GAP, LABEL_SIZE, room)
            _text(pen, (MARGIN, _y(layout, row) + 4), lines, LABEL_SIZE, INK)
        for cell in view.on_sheet(sheet):
            _draw_cell(image, pen, layout, cell, store)
        target = io.BytesIO()
        image.save(target, "PNG", compress_level=4)
        return target.getvalue()


def _layout(
    view: GridView, columns: Sequence[str], rows: Sequence[str], *, has_subtitle: bool
) -> _Layout:
    """The sizes for these labels; they get no more space than they take."""
    first = next((cell.render for cell in view.cells if cell.render is not None), None)
    width, height = (first.width, first.height) if first else (LARGEST, LARGEST)
    beside = max((math.ceil(_font(LABEL_SIZE).getlength(label)) for label in rows), default=0)
    left = MARGIN + (min(WIDEST, beside + 2 * GAP) if rows else 0)
    head = MARGIN + TITLE_LINE + (LABEL_LINE if has_subtitle else 0) + GAP
    side = min(LARGEST, max(width, height))
    while True:
        scale = side / max(width, height)
        cell = max(1, round(width * scale)), max(1, round(height * scale))
        lines = max((len(_wrap(label, cell[0], LABEL_SIZE, LINES)) for label in columns), default=0)
        top = head + LABEL_LINE * lines + 4
        size = (
            max(360, left + len(columns) * (cell[0] + GAP) + MARGIN),
            top + max(1, len(rows)) * (cell[1] + GAP) + MARGIN,
        )
        fits = max(size) <= MAX_SIDE and size[0] * size[1] <= MAX_PIXELS
        if fits or side <= SMALLEST:
            return _Layout(cell, left, top, size)
        side = max(SMALLEST, side * 9 // 10)


def _x(layout: _Layout, column: int) -> int:
    return layout.left + column * (layout.cell[0] + GAP)


def _y(layout: _Layout, row: int) -> int:
    return layout.top + row * (layout.cell[1] + GAP)


def _draw_cell(
    image: Image.Image,
    pen: ImageDraw.ImageDraw,
    layout: _Layout,
    cell: CellView,
    store: BlobStore,
) -> None:
    at = _x(layout, cell.column), _y(layout, cell.row)
    if cell.image is not None:
        try:
            with store.open(cell.image.sha256) as file, Image.open(file) as drawn:
                small = drawn.convert("RGB").resize(layout.cell, Image.Resampling.LANCZOS)
            image.paste(small, at)
            return
        except (BlobNotFound, BlobDamaged, OSError):
            pass  # outlined, as one that was not generated
    corner = at[0] + layout.cell[0] - 1, at[1] + layout.cell[1] - 1
    pen.rectangle((*at, *corner), outline=LINE)
    words = "no file" if cell.image is not None else cell.state.label
    lines = _wrap(words, layout.cell[0] - 8, LABEL_SIZE, 1)
    _text(pen, (at[0] + 4, at[1] + 4), lines, LABEL_SIZE, QUIET)


@functools.lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of this system; without one, that of Pillow, which has hardly more than ASCII."""
    for name in FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _drawable(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, for Pillow's own font without accents and signs that it lacks."""
    if isinstance(font, ImageFont.FreeTypeFont) and font.getname()[0] != PILLOWS_FONT:
        return text
    plain = unicodedata.normalize("NFKD", text.translate(PLAIN))
    return "".join(sign for sign in plain if unicodedata.category(sign) != "Mn")


def _text(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], lines: Sequence[str], size: int, color: str
) -> None:
    for number, line in enumerate(lines):
        place, font = (at[0], at[1] + number * (size + 4)), _font(size)
        pen.text(place, _drawable(line, font), fill=color, font=font)


def _wrap(text: str, width: int, size: int, most: int) -> list[str]:
    """The text in lines of this width in pixels; the last one ends in “…” if more is left."""
    font, lines, left = _font(size), list[str](), text.split()
    while left and len(lines) < most:
        line = left.pop(0)
        while left and font.getlength(f"{line} {left[0]}") <= width:
            line += f" {left.pop(0)}"
        lines.append(line)
    if left:
        lines[-1] += " …"
    return _fit(lines, width, size)


def _fit(lines: Sequence[str], width: int, size: int) -> list[str]:
    """The lines, cut where they are wider than this."""
    font, found = _font(size), []
    for line in lines:
        text = line[:400]
        while len(text) > 1 and font.getlength(text) > width:
            text = f"{text.rstrip('…')[: max(1, len(text) - 3)]}…" if len(text) > 4 else text[:-1]
        found.append(text)
    return found

"""A labeled contact sheet: one row per variant, one column per prompt."""

from collections.abc import Sequence
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

CELL = 160
GAP = 8
PAD = 24
ROW_LABEL = 104
PAPER = (250, 249, 247)
INK = (41, 37, 36)
QUIET = (120, 113, 108)


def contact_sheet(
    rows: Sequence[str],
    columns: Sequence[str],
    images: Sequence[Sequence[Image.Image]],
    *,
    title: str = "",
) -> Image.Image:
    """An RGB image with `images[row][column]` under the labels of `columns`.

    Small images are enlarged without smoothing, to show the exact pixels of the model.
    """
    if len(images) != len(rows) or any(len(row) != len(columns) for row in images):
        raise ValueError(f"Expected {len(rows)} rows of {len(columns)} images.")
    font, bold = ImageFont.load_default(14), ImageFont.load_default(20)
    labels = [wrap(column, width=20, max_lines=3, placeholder="…") for column in columns]
    head = PAD + (40 if title else 0)
    top = head + 18 * max((len(label) for label in labels), default=0) + 10
    width = PAD + ROW_LABEL + len(columns) * (CELL + GAP) - GAP + PAD
    sheet = Image.new("RGB", (width, top + len(rows) * (CELL + GAP) - GAP + PAD), PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((PAD, PAD - 4), title, fill=INK, font=bold)
    for column, label in enumerate(labels):
        left = PAD + ROW_LABEL + column * (CELL + GAP)
        pen.multiline_text((left, head), "\n".join(label), fill=QUIET, font=font, spacing=3)
    for row, name in enumerate(rows):
        upper = top + row * (CELL + GAP)
        pen.text((PAD, upper + CELL // 2), name, fill=INK, font=font, anchor="lm")
        for column, image in enumerate(images[row]):
            sheet.paste(_cell(image), (PAD + ROW_LABEL + column * (CELL + GAP), upper))
    return sheet


def _cell(image: Image.Image) -> Image.Image:
    """The image as a square cell, enlarged pixel by pixel or reduced smoothly."""
    small = max(image.size) < CELL
    resampling = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return image.convert("RGB").resize((CELL, CELL), resampling)

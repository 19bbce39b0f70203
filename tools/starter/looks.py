"""Drawn looks of the artwork: line drawings, two tones, black or light outlines, silhouettes.

They teach the base sharp edges, and bring drawn styles such as chalk or linocut within reach of a
small adapter. All functions take an RGBA drawing of `RENDER_SIZE` pixels and give RGB.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tools.starter.artwork import BACKGROUNDS, GROUNDS, LUMA, lay_over
from tools.starter.captions import Look

Values = NDArray[np.float32]

INK = (20, 20, 24)
PAPER = (250, 250, 248)
DARK_BELOW = 140
"""Mean of the ground's color under which lines are light."""

EDGE_RADIUS = 1.4
"""Of the blur before edges are measured, in pixels of the drawing: lines 2 px wide at half size."""

FAINT = 0.4
"""Opacity of the colors inside light outlines."""

LIGHT_SHARE = 0.7
"""Of white in the color of light outlines; the rest is the color beside them."""

EDGE_START, EDGE_RANGE = 0.045, 0.05
"""Change of color from pixel to pixel where a line begins, and until it is full."""


def draw_in_look(drawing: Image.Image, look: Look, ground: str) -> Image.Image:
    """The drawing in a look on a named color, RGB, of the drawing's size."""
    color = np.array(GROUNDS[ground], np.float32)
    is_dark = color.mean() < DARK_BELOW
    flat = np.asarray(_over_white(drawing), np.float32)
    inside = np.asarray(drawing.getchannel("A"), np.float32)[..., None] / np.float32(255)
    ink = np.array(PAPER if is_dark else INK, np.float32)
    match look:
        case Look.PLAIN:
            values = np.asarray(lay_over(drawing, GROUNDS[ground], drawing.width), np.float32)
        case Look.LINES:
            values = _mix(color, ink, _edges(drawing))
        case Look.TWO_TONE:
            values = _two_tones(flat, inside, _edges(drawing), is_dark=bool(is_dark))
        case Look.OUTLINED:
            few = Image.fromarray(flat.astype(np.uint8)).filter(ImageFilter.MedianFilter(5))
            colors = np.asarray(few.quantize(6).convert("RGB"), np.float32)
            values = _mix(_mix(color, colors, inside), np.array(INK, np.float32), _edges(drawing))
        case Look.SILHOUETTE:
            values = _mix(color, ink, inside)
        case Look.LIGHT_OUTLINES:
            faint = _mix(color, flat, FAINT * inside)
            light = LIGHT_SHARE * np.array(PAPER, np.float32) + (1 - LIGHT_SHARE) * flat
            values = _mix(faint, light, _thicker(_edges(drawing)))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _over_white(drawing: Image.Image) -> Image.Image:
    return lay_over(drawing, BACKGROUNDS["white"], drawing.width)


def _mix(under: Values, over: Values, amount: Values) -> Values:
    return np.asarray(under * (1 - amount) + over * amount, np.float32)


def _edges(drawing: Image.Image) -> Values:
    """The strength of lines in [0, 1], (height, width, 1): where color or opacity changes."""
    blur = ImageFilter.GaussianBlur(EDGE_RADIUS)
    color = np.asarray(_over_white(drawing).filter(blur), np.float32)
    alpha = np.asarray(drawing.getchannel("A").filter(blur), np.float32)[..., None]
    rows, columns = np.gradient(np.concatenate([color, alpha], axis=-1) / 255, axis=(0, 1))
    change = np.hypot(rows, columns).max(axis=-1, keepdims=True)
    return np.asarray(np.clip((change - EDGE_START) / EDGE_RANGE, 0, 1), np.float32)


def _thicker(edges: Values) -> Values:
    """The lines two pixels wider: three pixels at half size."""
    lines = Image.fromarray((edges[..., 0] * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
    return np.asarray(lines, np.float32)[..., None] / np.float32(255)


def _two_tones(flat: Values, inside: Values, edges: Values, *, is_dark: bool) -> Values:
    """Ink where the drawing is darker than its median, and along its edges."""
    light = flat @ LUMA
    opaque = light[inside[..., 0] > 0.5]
    limit = float(np.clip(np.median(opaque), 70, 185)) if opaque.size else 128.0
    dark = np.clip((limit - light) / 16 + 0.5, 0, 1)[..., None] * inside
    dark = np.maximum(dark, edges)
    values = 255 * (1 - dark) + 20 * dark
    if is_dark:  # white lines around it, on a black ground
        values = np.where(inside > 0.5, values, 255 * edges + 20 * (1 - edges))
    return np.broadcast_to(values, flat.shape)

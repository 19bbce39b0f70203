"""Drawn looks: one drawing as many hands would draw it, computed from its pixels alone.

Every look takes a batch of drawings, (n, 4, size, size) in [0, 1] with color multiplied by opacity,
and gives images, (n, 3, size, size) in [0, 1]. Parameters are drawn for each image by torch's
global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Look = Callable[[Tensor], Tensor]

LUMA = torch.tensor([0.299, 0.587, 0.114])
PAPER = 0.93
"""Ink is darker than paper; a random pair of colors is at least this far apart, see `_pair`."""


def transform(drawings: Tensor, size: int) -> Tensor:
    """The drawings at a random place, scale, proportion, tilt and with wavy outlines.

    (n, 4, any, any) to (n, 4, `size`, `size`); a drawing stays inside but for its corners.
    """
    count = len(drawings)
    scale = _uniform(count, 0.62, 0.98)
    proportion = torch.exp(_uniform(count, -0.18, 0.18))
    angle = torch.randn(count) * 0.13
    cos, sin = angle.cos(), angle.sin()
    wide, high = proportion / scale, 1 / (proportion * scale)
    shear = torch.randn(count) * 0.07
    room = (1 - scale).clamp(min=0)
    shift = (torch.rand(2, count) * 2 - 1) * room / scale
    matrix = torch.stack(
        [
            torch.stack([wide * cos, -high * sin + shear, shift[0]], dim=1),
            torch.stack([wide * sin, high * cos, shift[1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix, [count, 4, size, size], align_corners=False)
    waves = torch.randn(count, 2, 5, 5) * _uniform(count, 0, 0.05).view(-1, 1, 1, 1)
    grid = grid + F.interpolate(waves, size=(size, size), mode="bicubic").permute(0, 2, 3, 1)
    return F.grid_sample(drawings, grid, align_corners=False).clamp(0, 1)


def mirrored(drawings: Tensor, allowed: Tensor) -> Tensor:
    """About a third of the allowed drawings turned from left to right."""
    flip = (torch.rand(len(drawings)) < 0.35) & allowed
    return torch.where(flip.view(-1, 1, 1, 1), drawings.flip(-1), drawings)


def draw_looks(drawings: Tensor, looks: Sequence[str]) -> Tensor:
    """One of the named looks for each drawing, at random, then the flaws of a real image."""
    chosen = torch.randint(len(looks), (len(drawings),))
    images = torch.empty(len(drawings), 3, *drawings.shape[2:])
    for index in sorted(set(chosen.tolist())):
        where = chosen == index
        images[where] = LOOKS[looks[index]](drawings[where])
    return _flawed(images)


def on_white(drawings: Tensor) -> Tensor:
    """The drawings as they are, on white."""
    return drawings[:, :3] + 1 - drawings[:, 3:]


def _uniform(count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count)


def _each(count: int, low: float, high: float) -> Tensor:
    return _uniform(count, low, high).view(-1, 1, 1, 1)


def _grounds(like: Tensor) -> Tensor:
    """Backgrounds: white, light, dark or any color; some graded, some grainy."""
    count, size = len(like), like.shape[-1]
    color = torch.rand(count, 3, 1, 1)
    kind = torch.rand(count, 1, 1, 1)
    light = 1 - 0.15 * color
    dark = 0.2 * color
    color = torch.where(kind < 0.35, torch.ones_like(color), color)
    color = torch.where((kind >= 0.35) & (kind < 0.5), light, color)
    color = torch.where((kind >= 0.5) & (kind < 0.68), dark, color)
    ramp = torch.linspace(-0.5, 0.5, size).view(1, 1, size, 1)
    graded = (torch.rand(count, 1, 1, 1) < 0.2) * torch.randn(count, 3, 1, 1) * 0.4
    grain = (torch.rand(count, 1, 1, 1) < 0.15) * _grain(count, size) * 0.25
    return (color + ramp * graded + grain).clamp(0, 1)


def _grain(count: int, size: int) -> Tensor:
    """Soft noise of unit deviation, (count, 1, size, size)."""
    coarse = max(4, size // 3)
    return F.interpolate(torch.randn(count, 1, coarse, coarse), size=(size, size), mode="bilinear")


def _pair(count: int, *, dark_ground: float = 0.35) -> tuple[Tensor, Tensor]:
    """An ink and a ground of clearly different lightness, (count, 3, 1, 1) each."""
    dark = torch.rand(count, 3, 1, 1) * _each(count, 0, 0.5)
    light = 1 - torch.rand(count, 3, 1, 1) * _each(count, 0, 0.35)
    plain = torch.rand(count, 1, 1, 1) < 0.35
    dark = torch.where(plain, 0.06 * torch.ones_like(dark), dark)
    light = torch.where(plain, 1 - 0.03 * torch.ones_like(light), light)
    swap = torch.rand(count, 1, 1, 1) < dark_ground
    return torch.where(swap, light, dark), torch.where(swap, dark, light)


def _mix(share: Tensor, ink: Tensor, ground: Tensor) -> Tensor:
    return ink * share + ground * (1 - share)


def _over(drawings: Tensor, ground: Tensor) -> Tensor:
    return drawings[:, :3] + ground * (1 - drawings[:, 3:])


def _luma(images: Tensor) -> Tensor:
    return (images * LUMA.view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _widened(share: Tensor, width: int) -> Tensor:
    return F.max_pool2d(share, width, 1, width // 2)


def _edges(drawings: Tensor) -> Tensor:
    """Strength of outlines in [0, 1], (n, 1, size, size): of the shape and of the colors in it."""
    gray = _over(drawings, torch.full((1, 1, 1, 1), 0.5))
    seen = torch.cat([gray, drawings[:, 3:]], dim=1)
    step = F.max_pool2d(seen, 3, 1, 1) + F.max_pool2d(-seen, 3, 1, 1)
    return step.amax(dim=1, keepdim=True)


def _lines(drawings: Tensor) -> Tensor:
    """Outlines as ink coverage in [0, 1], thin or bold, with much or little detail inside."""
    count = len(drawings)
    edges = _edges(drawings)
    ink = ((edges - _each(count, 0.06, 0.45)) * _each(count, 4, 14)).clamp(0, 1)
    bold = torch.rand(count, 1, 1, 1)
    return torch.where(
        bold < 0.4, ink, torch.where(bold < 0.85, _widened(ink, 3), _widened(ink, 5))
    )


def _shade(drawings: Tensor) -> Tensor:
    """Lightness inside the shape stretched to [0, 1], (n, 1, size, size); 1 outside."""
    inside = drawings[:, 3:]
    luma = _luma(drawings[:, :3]) / inside.clamp(min=1e-3)
    low = torch.where(inside > 0.5, luma, 1.0).amin(dim=(2, 3), keepdim=True)
    high = torch.where(inside > 0.5, luma, 0.0).amax(dim=(2, 3), keepdim=True)
    stretched = ((luma - low) / (high - low).clamp(min=0.1)).clamp(0, 1)
    return stretched * inside + 1 - inside


def _stripes(like: Tensor, low: float, high: float) -> Tensor:
    """Waves in [0, 1] at a random angle, `low` to `high` pixels long (of 128)."""
    count, size = len(like), like.shape[-1]
    line = torch.arange(size) * (128 / size)
    angle = _each(count, 0, 3.1416)
    across = line.view(1, 1, 1, -1) * angle.cos() + line.view(1, 1, -1, 1) * angle.sin()
    return 0.5 + 0.5 * torch.sin(across * 6.2832 / _each(count, low, high))


def plain(drawings: Tensor) -> Tensor:
    return _over(drawings, _grounds(drawings))


def posterized(drawings: Tensor) -> Tensor:
    levels = _each(len(drawings), 1, 4).round()
    return (_over(drawings, _grounds(drawings)) * levels).round() / levels


def outlined(drawings: Tensor) -> Tensor:
    """A sticker: a border of one color around the shape."""
    count = len(drawings)
    wide = torch.where(
        torch.rand(count, 1, 1, 1) < 0.5, _widened(drawings[:, 3:], 5), _widened(drawings[:, 3:], 9)
    )
    border = _mix(wide, (torch.rand(count, 3, 1, 1) < 0.5).float(), _grounds(drawings))
    return _over(drawings, border)


def inked(drawings: Tensor) -> Tensor:
    """A comic: colors, often pale or few, with lines."""
    count = len(drawings)
    colors = _mix(_each(count, 0.3, 1), plain(drawings), torch.ones(1))
    return _mix(_lines(drawings), torch.rand(count, 3, 1, 1) * 0.25, colors)


def line_drawing(drawings: Tensor) -> Tensor:
    ink, ground = _pair(len(drawings))
    return _mix(_lines(drawings), ink, ground)


def inverted(drawings: Tensor) -> Tensor:
    return 1 - plain(drawings)


def tinted(drawings: Tensor) -> Tensor:
    """Two colors for dark and light, everything between mixed of them."""
    ink, ground = _pair(len(drawings))
    return _mix(_luma(plain(drawings)), ink, ground)


def gray(drawings: Tensor) -> Tensor:
    return _luma(plain(drawings)).expand(-1, 3, -1, -1)


def recolored(drawings: Tensor) -> Tensor:
    """Other colors of the same lightness order."""
    mixing = torch.rand(len(drawings), 3, 3) ** 2
    mixing = mixing / mixing.sum(dim=2, keepdim=True)
    return torch.einsum("nij,njhw->nihw", mixing, plain(drawings))


def halftone(drawings: Tensor) -> Tensor:
    ink, ground = _pair(len(drawings), dark_ground=0.2)
    screen = (_stripes(drawings, 3.5, 7) + _stripes(drawings, 3.5, 7)) / 2
    darkness = 1 - _shade(drawings) * _each(len(drawings), 0.6, 1)
    return _mix(((darkness - screen) * 6 + 0.5).clamp(0, 1), ink, ground)


def black_and_white(drawings: Tensor) -> Tensor:
    ink, ground = _pair(len(drawings))
    dark = ((_each(len(drawings), 0.3, 0.75) - _shade(drawings)) * 12).clamp(0, 1)
    rim = _lines(drawings) * (torch.rand(len(drawings), 1, 1, 1) < 0.5)
    return _mix(torch.maximum(dark, rim), ink, ground)


def cut_out(drawings: Tensor) -> Tensor:
    """A stencil: the shape in one color, its inner lines cut out."""
    ink, ground = _pair(len(drawings))
    shape = drawings[:, 3:]
    inner = _lines(drawings) * -F.max_pool2d(-shape, 5, 1, 2)
    return _mix((shape - inner).clamp(0, 1), ink, ground)


def chalk(drawings: Tensor) -> Tensor:
    """Grainy light lines on a dark board, often over a thin hatched or rubbed filling."""
    count, size = len(drawings), drawings.shape[-1]
    board = torch.rand(count, 3, 1, 1) * 0.25 + 0.04 * _grain(count, size) + 0.04
    grain = (torch.rand(count, 1, size, size) < _each(count, 0.55, 1)).float()
    stroke = _mix(_each(count, 0, 0.7), drawings[:, :3] + 0.25, torch.full((1, 1, 1, 1), 0.95))
    filled = drawings[:, 3:] * _each(count, -0.3, 0.6).clamp(min=0)
    filled = filled * (_stripes(drawings, 3, 7) > 0.45)
    cover = torch.maximum(_lines(drawings), filled) * grain
    return _mix(cover, stroke.clamp(0, 1), board).clamp(0, 1)


def linocut(drawings: Tensor) -> Tensor:
    """Shapes printed in one ink, with gouged stripes in the half-tones and rough edges."""
    count, size = len(drawings), drawings.shape[-1]
    ink, ground = _pair(count, dark_ground=0.3)
    rough = _shade(drawings) + 0.08 * _grain(count, size)
    gouged = _stripes(drawings, 4, 9) * _each(count, 0.2, 0.7)
    printed = ((_each(count, 0.55, 0.95) - rough - gouged + 0.2) * 8).clamp(0, 1) * drawings[:, 3:]
    rim = _lines(drawings)
    cut = torch.rand(count, 1, 1, 1) < 0.5
    printed = torch.where(cut, printed * (1 - rim), torch.maximum(printed, rim))
    spread = torch.rand(count, 1, size, size) > 0.04
    return _mix(printed * spread, ink, ground)


def coarse(drawings: Tensor) -> Tensor:
    """Few pixels, as large squares or blurred."""
    images = plain(drawings)
    size = images.shape[-1]
    small = int(torch.randint(size // 5, size // 2, ()))
    mode = "nearest" if torch.rand(()) < 0.4 else "bilinear"
    reduced = F.interpolate(images, size=(small, small), mode="area")
    return F.interpolate(reduced, size=(size, size), mode=mode)


def painted(drawings: Tensor) -> Tensor:
    """Colors that run and fade on grainy paper."""
    count, size = len(drawings), drawings.shape[-1]
    soft = F.avg_pool2d(_over(drawings, torch.ones(1)), 5, 1, 2, count_include_pad=False)
    brushed = soft + _grain(count, size) * _each(count, 0, 0.12)
    return _mix(_each(count, 0.35, 1), brushed.clamp(0, 1), torch.full((1, 1, 1, 1), PAPER))


def neon(drawings: Tensor) -> Tensor:
    """Glowing lines in the dark. Held out of training."""
    lines = _lines(drawings)
    glow = F.avg_pool2d(lines, 9, 1, 4, count_include_pad=False) * 1.5
    color = torch.rand(len(drawings), 3, 1, 1)
    color = color / color.amax(dim=1, keepdim=True)
    return (0.05 + color * glow + lines * 0.8).clamp(0, 1)


def stippled(drawings: Tensor) -> Tensor:
    """Ink dots, denser where it is dark. Held out of training."""
    count, size = len(drawings), drawings.shape[-1]
    dots = F.interpolate(torch.rand(count, 1, size // 2, size // 2), size=(size, size))
    darkness = 1 - _shade(drawings)
    ink, ground = _pair(count, dark_ground=0.2)
    return _mix((dots < darkness * 0.8 + 0.1 * drawings[:, 3:]).float(), ink, ground)


def hatched(drawings: Tensor) -> Tensor:
    """A pencil drawing: lines, and two layers of hatching by darkness. Held out of training."""
    count = len(drawings)
    darkness = 1 - _shade(drawings)
    first = (_stripes(drawings, 3, 5) > 0.5) * (darkness > 0.35)
    second = (_stripes(drawings, 3, 5) > 0.5) * (darkness > 0.65)
    cover = torch.maximum(_lines(drawings), 0.6 * torch.maximum(first.float(), second.float()))
    return _mix(cover, _each(count, 0, 0.35), torch.full((1, 1, 1, 1), PAPER))


def _flawed(images: Tensor) -> Tensor:
    """Some images a little lighter or darker, noisy or soft, as renders and photos are."""
    count, size = len(images), images.shape[-1]
    gain, lift = _each(count, 0.8, 1.15), _each(count, -0.08, 0.08)
    noise = (torch.rand(count, 1, 1, 1) < 0.3) * _each(count, 0, 0.08)
    soft = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    images = torch.where(torch.rand(count, 1, 1, 1) < 0.2, soft, images)
    return (images * gain + lift + noise * torch.randn(count, 3, size, size)).clamp(0, 1)


LOOKS: Mapping[str, Look] = {
    look.__name__: look
    for look in (
        plain, posterized, outlined, inked, line_drawing, inverted, tinted, gray, recolored,
        halftone, black_and_white, cut_out, chalk, linocut, coarse, painted,
        neon, stippled, hatched,
    )
}  # fmt: skip

HELD_OUT: tuple[str, ...] = ("neon", "stippled", "hatched")
"""Looks that calibrate the confidence and train nothing."""

TRAINED: tuple[str, ...] = (
    *(name for name in LOOKS if name not in HELD_OUT),
    "plain", "line_drawing", "line_drawing", "line_drawing", "black_and_white", "cut_out", "inked",
)  # fmt: skip
"""The looks of training; those that stand here again are drawn more often."""

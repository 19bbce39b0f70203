"""Two renders side by side: what differs in their settings."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from app.registry.base_models import service as base_models
from app.registry.comparison.side_by_side import (
    NONE,
    Columns,
    Facts,
    SideBySide,
    column_facts,
    differing,
    figure,
    side_by_side,
)
from app.registry.errors import NotFound
from app.registry.renders.listing import first_images
from app.registry.runs.settings import Difference
from app.registry.tables.renders import Render, RenderImage
from app.registry.wording import count_text
from worker.core.words import SamplerName


def _text(value: str | None) -> str:
    return value or NONE


COLUMNS: Columns = {
    "prompt": ("Prompt", _text),
    "negative_prompt": ("Negative prompt", _text),
    "seed": ("Seed", str),
    "steps": ("Steps", count_text),
    "sampler": ("Sampler", lambda value: SamplerName(value).label),
    "guidance": ("Guidance scale", figure),
    "source_sha256": ("Starts from", lambda value: f"image {value[:8]}" if value else "noise"),
    "strength": ("Strength", lambda value: NONE if value is None else figure(value)),
    "clip_skip": ("CLIP skip", count_text),
}


@dataclass(frozen=True, kw_only=True)
class TwoRenders(SideBySide[Render]):
    """Two renders with their first images."""

    a_image: RenderImage | None
    b_image: RenderImage | None


def compare_renders(session: Session, a: int, b: int) -> TwoRenders:
    """Compare two renders. Raises NotFound, which names the one that does not exist."""
    first, second = find_render(session, a), find_render(session, b)
    images = first_images(session, [first, second])
    values = side_by_side(_facts(session, first), _facts(session, second))
    settings = differing(values)
    labels = _labels(first, second, settings)
    return TwoRenders(
        a=first,
        b=second,
        a_label=labels[0],
        b_label=labels[1],
        a_image=images.get(first.key),
        b_image=images.get(second.key),
        settings=settings,
        equal_count=len(values) - len(settings),
    )


def find_render(session: Session, render_id: int) -> Render:
    """Look up a render. Raises NotFound, which names it."""
    render = session.get(Render, render_id)
    if render is None:
        raise NotFound(
            f"Image {render_id} does not exist; it may have been deleted for good. Choose another "
            "one."
        )
    return render


def stack_words(render: Render) -> str:
    """The adapters of the first image and their weights, as a short title."""
    used = [f"{used.name} {used.weight:.2f}" for used in render.stack_of(0)]
    return ", ".join(used) or "No adapters"


def weight_words(render: Render, index: int) -> str:
    """The weights of an image of a strip as text, with the adapters where others are out."""
    row = (render.weights or [[]])[index]
    if None not in row:
        return ", ".join(f"{weight:g}" for weight in row)
    used = render.stack_of(index)
    return ", ".join(f"{one.name} v{one.version} {one.weight:g}" for one in used) or NONE


def _facts(session: Session, render: Render) -> Facts:
    base = base_models.base_of(session, render.base_model_id)
    size = f"{render.width} × {render.height}"
    facts = {
        **column_facts(render, COLUMNS),
        "size": ("Size", size, size),
        "base_model": ("Base model", base.key, base.name),
        **column_facts(render, {"precision": ("Precision", _text)}),
    }
    for used in render.stack_of(0):
        label = f"{used.name} v{used.version}"
        unet, text = used.weights
        words = f"{unet:g}" if unet == text else f"{unet:g}, text encoder {text:g}"
        facts[f"adapter-{used.version_id}"] = (label, [unet, text], words)
    return facts


def _labels(a: Render, b: Render, settings: list[Difference]) -> tuple[str, str]:
    """Short words for both that differ: their adapters, else a setting, else their ids."""
    titles = stack_words(a), stack_words(b)
    if titles[0] != titles[1]:
        return titles
    for short in settings:
        if short.name not in ("prompt", "negative_prompt"):
            return f"{short.label} {short.a_words}", f"{short.label} {short.b_words}"
    return f"Image {a.key}", f"Image {b.key}"

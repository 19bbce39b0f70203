"""Two renders side by side: what differs in their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from app.registry.base_models import service as base_models
from app.registry.errors import NotFound
from app.registry.renders.listing import first_images
from app.registry.runs.settings import Difference
from app.registry.tables.renders import Render, RenderImage
from app.registry.wording import count_text
from worker.core.words import SamplerName

NONE = "none"
Facts = dict[str, tuple[str, Any, str]]
"""Label, value and words by name."""


@dataclass(frozen=True)
class RenderComparison:
    """Two renders with their first images and the settings that differ.

    `a_label` and `b_label` tell the images apart; `equal_count`: settings that are equal.
    """

    a: Render
    b: Render
    a_image: RenderImage | None
    b_image: RenderImage | None
    a_label: str
    b_label: str
    settings: list[Difference]
    equal_count: int


def compare_renders(session: Session, a: int, b: int) -> RenderComparison:
    """Compare two renders. Raises NotFound, which names the one that does not exist."""
    first, second = find_render(session, a), find_render(session, b)
    images = first_images(session, [first, second])
    facts, others = _facts(session, first), _facts(session, second)
    names = list(dict.fromkeys([*facts, *others]))
    missing = ("", None, NONE)
    pairs = [(name, facts.get(name, missing), others.get(name, missing)) for name in names]
    settings = [
        Difference(name, one[0] or two[0], one[1], two[1], one[2], two[2])
        for name, one, two in pairs
        if one[1] != two[1]
    ]
    labels = _labels(first, second, settings)
    return RenderComparison(
        a=first,
        b=second,
        a_image=images.get(first.key),
        b_image=images.get(second.key),
        a_label=labels[0],
        b_label=labels[1],
        settings=settings,
        equal_count=len(names) - len(settings),
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
    """What tells an image of a strip apart: its weights, with the adapters where others are out."""
    row = (render.weights or [[]])[index]
    if None not in row:
        return ", ".join(f"{weight:g}" for weight in row)
    used = render.stack_of(index)
    return ", ".join(f"{one.name} v{one.version} {one.weight:g}" for one in used) or NONE


def _facts(session: Session, render: Render) -> Facts:
    base = base_models.get_base_model(session, render.base_model_id)
    size = f"{render.width} × {render.height}"
    facts: Facts = {
        "prompt": ("Prompt", render.prompt, render.prompt or NONE),
        "negative_prompt": (
            "Negative prompt",
            render.negative_prompt,
            render.negative_prompt or NONE,
        ),
        "seed": ("Seed", render.seed, str(render.seed)),
        "steps": ("Steps", render.steps, count_text(render.steps)),
        "sampler": ("Sampler", render.sampler, SamplerName(render.sampler).label),
        "guidance": ("Guidance scale", render.guidance, f"{render.guidance:g}"),
        "source": (
            "Starts from",
            render.source_sha256,
            f"image {render.source_sha256[:8]}" if render.source_sha256 else "noise",
        ),
        "strength": (
            "Strength",
            render.strength,
            NONE if render.strength is None else f"{render.strength:g}",
        ),
        "clip_skip": ("CLIP skip", render.clip_skip, count_text(render.clip_skip)),
        "size": ("Size", size, size),
        "base_model": ("Base model", base.key, base.name),
        "precision": ("Precision", render.precision, render.precision or NONE),
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

"""The training sample that the playground shows until there is an image of its form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from app.registry.base_models import service as base_models
from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.db import Session
from app.registry.renders.plan import guidance_for
from app.registry.renders.training_samples import TrainingSample, find_training_sample
from app.registry.tables.base_models import BaseModel
from app.web.playground.adapter_rows import AdapterRow
from app.web.playground.forms import TEXTS, PlayForm
from app.web.playground.stack import find_version


@dataclass(frozen=True)
class SampleView:
    """A training sample, its size in pixels, and its step and seed in words."""

    sha256: str
    prompt: str
    width: int
    height: int
    caption: str


def sample_to_try(session: Session, form: PlayForm) -> tuple[PlayForm, SampleView] | None:
    """The sample of the one adapter of a form, and the form with the settings that it has.

    The form takes them over if its prompt is that of the sample or empty; what else it has of its
    own stays. None if its seed, its weight or anything else shows that another image is meant.
    """
    if len(form.stack) != 1 or form.source or form.base or form.count != "1":
        return None
    (row,) = form.stack
    found = find_version(session, row)
    if isinstance(found, str) or not row.is_on or found[1].base_model_id is None:
        return None
    version, base = found[1], base_models.get_base_model(session, found[1].base_model_id)
    sample = find_training_sample(session, version, form.prompt)
    if sample is None or not _may_be_meant(form, row, sample):
        return None
    weight = sample.prompt.weight
    has_own = row.weight is None and version.usual_weight not in (1, weight)
    caption = f"Training sample, step {sample.row.step:,}, seed {sample.row.seed}"
    caption += f", weight {weight:g}" if has_own else ""
    if not form.prompt or sample.is_of(form.prompt):
        row = row if has_own else replace(row, weight=f"{weight:g}")
        form = _filled(replace(form, stack=(row,)), base, sample)
    else:
        caption += f": “{sample.prompt.text}”"
    width, height = (pixels or base.resolution or USUAL_SIDE for pixels in sample.size)
    return form, SampleView(sample.row.sha256, sample.prompt.text, width, height, caption)


def _may_be_meant(form: PlayForm, row: AdapterRow, sample: TrainingSample) -> bool:
    seeds = ("", str(sample.row.seed)) if sample.is_of(form.prompt) else ("",)
    is_plain = not (row.text_weight or row.has_blocks)
    is_at_weight = row.weight is None or row.number == sample.prompt.weight
    return form.seed in seeds and is_plain and is_at_weight


def _filled(form: PlayForm, base: BaseModel, sample: TrainingSample) -> PlayForm:
    """The form with the settings of a sample where it has the usual ones."""
    sides = zip(("width", "height"), sample.size, strict=True)
    values: dict[str, object] = {name: side for name, side in sides if side != base.resolution}
    values |= {"negative": sample.negative, "seed": sample.row.seed, "steps": sample.steps}
    if sample.guidance is not None and sample.guidance != guidance_for(base):
        values["guidance"] = f"{sample.guidance:g}"
    texts: dict[str, Any] = {
        name: str(value)
        for name, value in values.items()
        if value is not None and getattr(form, name) == TEXTS[name]
    }
    return replace(form, prompt=sample.prompt.text, **texts)

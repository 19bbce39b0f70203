"""The training sample that the playground shows until there is an image of its form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from app.registry.adapters import service as adapters
from app.registry.base_models import service as base_models
from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.db import Session
from app.registry.renders.plan import guidance_for
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.runs import Sample
from app.web.playground.adapter_rows import AdapterRow
from app.web.playground.forms import TEXTS, PlayForm
from app.web.playground.stack import find_version
from worker.core.training.prompts import PromptError, SamplePrompt, parse_prompt


@dataclass(frozen=True)
class TrainingSample:
    """A sample with its prompt, whose options are apart, and the settings of its training.

    `config` may lack settings, of adapters that were trained elsewhere.
    """

    row: Sample
    prompt: SamplePrompt
    config: dict[str, Any]

    def is_of(self, prompt: str) -> bool:
        """True for this prompt, with or without the options of the line."""
        return prompt in (self.row.prompt, self.prompt.text)

    @property
    def negative(self) -> str:
        """Its negative prompt."""
        own = self.prompt.negative
        return str(self.config.get("sample_negative_prompt", "")).strip() if own is None else own

    @property
    def steps(self) -> int | None:
        """The denoising steps; None if they are not known."""
        return self.prompt.steps or self.config.get("sample_steps")

    @property
    def guidance(self) -> float | None:
        """The CFG scale; None if it is not known."""
        own = self.prompt.guidance
        return self.config.get("sample_guidance") if own is None else own

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Width and height in pixels; None: the native side of the base model."""
        side = self.config.get("resolution")
        return self.prompt.width or side, self.prompt.height or side


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
    sample = _find_sample(session, version, form.prompt)
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


def _find_sample(session: Session, version: AdapterVersion, prompt: str) -> TrainingSample | None:
    """The sample of a version for a prompt, else its first one; None if it has no samples."""
    found = [
        TrainingSample(row, _parse(row.prompt), version.config)
        for row in adapters.version_samples(session, version)
    ]
    return next((one for one in found if one.is_of(prompt)), next(iter(found), None))


def _parse(line: str) -> SamplePrompt:
    try:
        return parse_prompt(line)
    except PromptError:
        return SamplePrompt(line)


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

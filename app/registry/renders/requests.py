"""Requests for images, as programs send them and forms fill them."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StrictBool

from app.registry.base_models.service import BaseReference
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.renders.lora_tags import MAX_TAGGED_PROMPT
from app.registry.renders.sources import SourceImage
from worker.core.documented import DocumentedModel
from worker.core.inference.config import MAX_PROMPT_CHARACTERS, AdapterWeight
from worker.core.lora_files.weights import MAX_STRIP, MAX_STRIP_ADAPTERS
from worker.core.words import SamplerName

Weights = Annotated[list[AdapterWeight | None], Field(max_length=MAX_STRIP_ADAPTERS)]


class RenderRequest(DocumentedModel):
    """A request for images; the bounds of its settings are checked when it is planned.

    A form makes it with `model_construct` of texts as they were typed, so that all of them are
    checked at once. Adapters that the prompt names can be missing at the end of `weights`: they
    have their own weight in each image.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: str = Field(max_length=MAX_TAGGED_PROMPT)
    """What to show; `<lora:name:0.8>` in it adds the adapter of that name, `(word:1.3)` gives words
    a weight."""
    negative_prompt: str = Field("", max_length=MAX_PROMPT_CHARACTERS)
    """What not to show."""
    base_model: BaseReference | None = Field(None, description="Absent: that of the first adapter.")
    seed: int | None = Field(None, description="Absent: a random seed.")
    sampler: SamplerName = SamplerName.DDIM
    """How each step removes noise; the label works as well."""
    steps: int = Field(20, description="Denoising steps; at most 50 with `lcm`.")
    guidance: float | None = Field(None, description="Absent: the default of the base model.")
    clip_skip: int | None = Field(None, description="Absent: as the adapters were trained.")
    width: int | None = None
    """Pixels; absent: the side of the base model, in the aspect of `source`."""
    height: int | None = None
    """Pixels; absent: the side of the base model, in the aspect of `source`."""
    count: int = Field(1, description="Number of images; each has the next seed.")
    adapters: list[WeightedAdapter] = Field(default_factory=list, max_length=MAX_STRIP_ADAPTERS)
    """Adapters with their weights; their effects add up."""
    source: SourceImage | None = None
    """The image to start from; absent: noise alone."""
    strength: float | None = None
    """How much of that image changes, from 0 to 1: `steps` × `strength` steps are run. Absent:
    0.6."""
    twin: StrictBool = Field(False, description="Also render the same seed without adapters.")
    weights: list[Weights] | None = Field(None, max_length=MAX_STRIP)
    """A strip: for each image the weights of all adapters, in their order; all have the same seed.
    null leaves an adapter out of an image: so each image can have another checkpoint of a run."""

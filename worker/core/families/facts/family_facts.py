"""What is known of every base model of a family, and which settings it has; without torch.

Pages, forms and the API show what a family has and refuse the rest with its sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from worker.core.families.facts.latents import NO_MAP, LinearMap
from worker.core.families.facts.memory import BF16_BYTES, MemoryFacts
from worker.core.families.variants import Variant
from worker.core.words import RenderPrecision, SamplerName

if TYPE_CHECKING:
    from pydantic import BaseModel  # loads slowly, and files of adapters need none

MAX_TEXT_TOKENS = 512  # of a prompt with the words of the chat template around it
CHARACTERS_A_TOKEN = 4  # of English


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Why a family does not have a setting, or has fewer values of it.

    `reason` is a sentence for people. Beside its default the setting may have one of `values`.
    Forms leave it out, unless `is_shown`.
    """

    reason: str
    values: tuple[str, ...] = ()
    is_shown: bool = False


@dataclass(frozen=True, kw_only=True)
class FamilyOptions:
    """The settings of a family.

    `training` limits the settings of a training (names of `TrainConfig`), `drawing` those of an
    image (`RenderConfig`); all others are as they are there. `side_step`: sides of images are
    multiples of it, in pixels. `samplers`: the first is the usual one. `has_single_file`: false
    where a base model is never one file. `has_prompt_weights`: false where `(word:1.2)` goes to the
    model as it is. `targets`: a pattern of the paths of the layers of the denoiser that get an
    adapter, by the name of `Targets`. `named_blocks`: the blocks that have a name. `gpu_precision`:
    the usual one of images on a GPU. `caption_tokens`: how many of CLIP's tokens, as which captions
    are counted, it reads.
    """

    training: Mapping[str, Limit] = field(default_factory=dict)
    drawing: Mapping[str, Limit] = field(default_factory=dict)
    targets: Mapping[str, str]
    side_step: int = 8
    samplers: tuple[SamplerName, ...] = tuple(SamplerName)
    has_single_file: bool = True
    has_prompt_weights: bool = True
    named_blocks: Mapping[str, str] = field(default_factory=dict)
    caption_tokens: int = 75
    gpu_precision: RenderPrecision = RenderPrecision.FP16

    @property
    def hidden(self) -> set[str]:
        """The settings of a training that mean nothing for the family."""
        return {name for name, limit in self.training.items() if not limit.is_shown}


@dataclass(frozen=True, kw_only=True)
class UsualDrawing:
    """How images are usually drawn with a base model, and the usual weight of an adapter on it.

    `guidance` is 1 where there is none; `weights` say the weight in words where it is not 1.
    `untrained`: why no adapter can be trained on it, and what works instead.
    """

    steps: int
    guidance: float
    weight: float = 1.0
    weights: str = ""
    untrained: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps for a typical dataset, with a batch size, rank and learning rate that match; `targets`:
    see FamilyOptions."""

    steps: int
    batch_size: int
    rank: int
    learning_rate: float
    targets: str = "attention"


@dataclass(frozen=True, kw_only=True)
class FamilyFacts:
    """Properties of every base model of a family.

    `native_side` is in pixels; `text_width` is that of the states which the denoiser reads;
    `denoiser_parameters` are those of the published one, which a LoRA from elsewhere was made for;
    `latent_scale` is the autoencoder's scaling factor. `kohya_version` is kohya's
    `ss_base_model_version`, `architecture` the id of Stability-AI/ModelSpec (`architecture_v` where
    v-prediction has another), `sidecar_version` what A1111's cards call it, `hub_tag` the Hub; one
    that does not exist is empty. `linear_map`: the colors of latents, for previews. `memory` is
    that of a family that few machines have enough for. `least_tokens`: of a caption whose states a
    training keeps on disk, with its chat template or padding; 0 where they stay in memory.
    `drawing` and `recipes`: how images are drawn, and the presets of a training by name, where that
    does not follow from the size.
    """

    label: str
    short_label: str
    native_side: int
    text_width: int
    denoiser_parameters: int
    latent_scale: float
    architecture: str
    architecture_v: str
    kohya_version: str = ""
    sidecar_version: str = ""
    hub_tag: str
    linear_map: LinearMap = NO_MAP
    options: FamilyOptions
    memory: MemoryFacts | None = None
    least_tokens: int = 0
    drawing: Mapping[Variant, UsualDrawing] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)

    def stored_text_bytes(self, captions: Iterable[str]) -> int:
        """What their text states take on disk, in bf16; four characters count as a token."""
        tokens = sum(
            min(MAX_TEXT_TOKENS, self.least_tokens + ceil(len(caption) / CHARACTERS_A_TOKEN))
            for caption in set(captions)
        )
        return tokens * self.text_width * BF16_BYTES

    def side_problem(self, sides: Iterable[int]) -> str:
        """A sentence on sides in pixels that its images cannot have; "" if there are none."""
        step = self.options.side_step
        for side in sides:
            if side % step:
                lower = max(step, side // step * step)
                return (
                    f"Sides of {self.short_label} images are multiples of {step} pixels: use "
                    f"{lower} or {lower + step} instead of {side}."
                )
        return ""


def reasons_against(limits: Mapping[str, Limit], settings: BaseModel) -> dict[str, str]:
    """The sentence for each of these settings that a family with these limits does not have."""
    fields = type(settings).model_fields
    return {
        name: limit.reason
        for name, limit in limits.items()
        if (value := getattr(settings, name)) != fields[name].default
        and str(value) not in limit.values
    }

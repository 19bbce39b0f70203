"""Measures the style at checkpoints, so that a training can end by itself.

Never by the loss, which is lowest before the style is there. `docs/training.md` has the measures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from worker.core.evaluation.choice import recalls
from worker.core.evaluation.errors import EvaluationError, NotMeasured
from worker.core.evaluation.intervals import is_above
from worker.core.evaluation.measures import FEWEST_HELD_OUT, MemoryScale
from worker.core.evaluation.style import StyleScale
from worker.core.evaluation.subjects import STEPS, propose_subjects, spread
from worker.core.eyes import open_eyes
from worker.core.inference.sampling import decode_latent, to_image
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.latent_cache import EncodedBucket
from worker.core.training.precision import autocast
from worker.core.training.prepare import EncodedDataset, PreparedTraining
from worker.core.training.presets import PromptForm, prompts_of
from worker.core.training.samples.sampler import SampleRequest, SampleSettings

SUBJECTS = 8
MOST_CAPTIONS = 8  # of trained images, and of held-out ones
MOST_IMAGES = 48  # of the dataset


@dataclass(frozen=True, slots=True)
class Measure:
    """A checkpoint: its style by prompt, and `Memory.ratio`, None if that is not measured."""

    step: int
    style: tuple[float, ...]
    ratio: float | None = None


def best_of(measures: Sequence[Measure]) -> Measure:
    """The one that none after it is clearly closer to the style than; one that copies is none."""
    best, *others = [one for one in measures if not recalls(one.ratio)] or measures
    for one in others:
        if is_above(np.array(one.style), np.array(best.style)):
            best = one
    return best


def reason_to_stop(measures: Sequence[Measure], patience: int) -> str | None:
    """Why a training ends after these checkpoints, in order; None: it goes on."""
    if len(measures) <= patience:
        return None
    last, best = measures[-1], best_of(measures)
    if recalls(last.ratio) and not recalls(best.ratio):
        return (
            f"Stopped at step {last.step:,}: it draws its training images again when asked with "
            f"their captions. Step {best.step:,} does not."
        )
    if sum(one.step > best.step for one in measures) < patience:
        return None
    return (
        f"Stopped at step {last.step:,}: the style has not come clearly closer since step "
        f"{best.step:,}."
    )


def subject_prompts(images: Sequence[TrainingImage], form: PromptForm) -> list[str]:
    """Prompts of subjects that no caption of the style names; none if too few are left."""
    captions = [text for one in images if not one.is_regularization for text in one.texts]
    try:
        return prompts_of(propose_subjects(captions, SUBJECTS), form)
    except EvaluationError:
        return []


@dataclass(slots=True)
class StyleWatch:
    """Measures checkpoints with the same prompts and seeds, at the resolution of the training."""

    prompts: list[str]
    dataset: EncodedDataset
    parts: PreparedTraining
    guidance: float
    measures: list[Measure] = field(default_factory=list)
    _scale: StyleScale | None = None

    @property
    def best(self) -> int | None:
        """The step that is closest to the style so far; None before the first measure."""
        return best_of(self.measures).step if self.measures else None

    def has(self, step: int) -> bool:
        """True if this step is the last one that was measured."""
        return bool(self.measures) and self.measures[-1].step == step

    def measure(self, step: int, check_stop: Callable[[], None]) -> None:
        """Measure the adapter of this step; `check_stop` is called while drawing and may raise.

        Raises NotMeasured and EyesError.
        """
        if not self.prompts:
            raise NotMeasured("The captions leave too few subjects to measure the style with.")
        eyes = open_eyes(device=self.parts.sampler.device)  # not kept between checkpoints
        data = self.dataset
        trained = _style_latents(data.images, data.buckets)
        held_out = _style_latents(data.held_out, data.held_out_buckets)
        if self._scale is None:
            with self.parts.lora.disabled():
                base = eyes.channel_statistics(self._draw(self.prompts, check_stop))
            dataset = self._decode(spread([*trained, *held_out], MOST_IMAGES))
            self._scale = StyleScale(base, eyes.channel_statistics(dataset))
        trained, held_out = (
            spread([one for one in row if one[0]], MOST_CAPTIONS) for row in (trained, held_out)
        )
        has_control = bool(trained) and len(held_out) >= FEWEST_HELD_OUT
        captions = [caption for caption, _ in (*trained, *held_out)] if has_control else []
        with self.parts.learner.averaged():
            images = self._draw(self.prompts, check_stop)
            drawn = self._draw(captions, check_stop)
        ratio = None
        if has_control:
            memory = MemoryScale(eyes, self._decode(trained), self._decode(held_out))
            ratio = memory.of(drawn[: len(trained)], drawn[len(trained) :]).ratio
        style = self._scale.score(eyes.channel_statistics(images)).parts
        self.measures.append(Measure(step, tuple(style.tolist()), ratio))

    def state(self) -> dict[str, Any]:
        """Everything that the next decision depends on."""
        return {"prompts": self.prompts, "measures": [astuple(one) for one in self.measures]}

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Go back to a state; None, or one of other prompts: nothing was measured."""
        rows = state["measures"] if state and state["prompts"] == self.prompts else []
        self.measures = [Measure(*row) for row in rows]

    def _draw(self, prompts: Sequence[str], check_stop: Callable[[], None]) -> list[Image.Image]:
        sampler = self.parts.sampler
        side = sampler.resolution
        settings = SampleSettings(side, side, STEPS, self.guidance, weight=1.0)
        requests = [
            SampleRequest(seed, text, "", seed, settings) for seed, text in enumerate(prompts)
        ]
        with autocast(self.parts.precision, device=sampler.device):
            return [image for _, image in sampler.draw(requests, check_stop)]

    @torch.no_grad()
    def _decode(self, rows: Sequence[tuple[str, torch.Tensor]]) -> list[Image.Image]:
        """The images as the base can draw them."""
        vae, device = self.parts.sampler.vae, self.parts.sampler.device
        return [to_image(decode_latent(vae, latent.to(device))) for _, latent in rows]


def _style_latents(
    images: Sequence[TrainingImage], buckets: Sequence[EncodedBucket]
) -> list[tuple[str, torch.Tensor]]:
    """Caption and latents (c, h, w) of each image that is not for regularization."""
    return [
        (images[index].caption, mean[0])
        for bucket in buckets
        for index, mean in zip(bucket.images, bucket.mean, strict=True)
        if not images[index].is_regularization
    ]

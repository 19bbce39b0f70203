"""`python -m worker.runtime.trainer` that makes up what it learns: steps and images cost nothing.

For tests of the row, its lease, its files and what a worker does with them. Orders, pipes, loop,
checkpoints and files are the real ones, and so are the messages: test_quick_trainer.py compares
them with those of a real training. Made up are the change of a step, its loss, the losses on fixed
and validation images, the samples, and the proof of a download. A run that continues ends with the
numbers of one without a break, as with the real one.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from PIL import Image

from worker.core.lora_files.canonical import LoraAdapter
from worker.core.training.data.batches import Batch
from worker.core.training.data.validation import PredictionError, ValidationSet
from worker.core.training.learner import Learner, StepResult
from worker.core.training.optim import lr_factor
from worker.core.training.samples.sampler import SampleImage, Sampler, sample_requests
from worker.runtime.trainer import main
from worker.runtime.write_downloads import Prover

step_seconds = 0.01  # of sleep; another number may be the argument of the command
SIDE = 32  # pixels of a sample


def learn(
    self: Learner,
    batches: Sequence[Batch],
    *,
    step: int,
    lr_scale: float = 1.0,
    lengths: Sequence[tuple[int, int]] = (),
) -> StepResult:
    """Move every matrix a little, by the step."""
    time.sleep(step_seconds)
    rate = self._config.learning_rate * lr_scale * lr_factor(step, self._config, lengths)
    with torch.no_grad():
        for parameter in self._lora.parameters():
            parameter.add_(rate / (step + 1))
    return StepResult(1 / (step + 2), 1.0, rate)


def prediction_errors(self: Learner, validation: ValidationSet) -> list[PredictionError]:
    """Errors that fall as the matrices grow, one for each quarter of the noise levels."""
    size = sum(float(parameter.abs().mean()) for parameter in self._lora.parameters())
    return [PredictionError(number, 250 * number, 1 / (1 + size), 2.0) for number in range(4)]


def generate(self: Sampler, check_stop: Callable[[], None]) -> Iterator[SampleImage]:
    """Images of one color, which depends on the UNet with its matrices."""
    trained = [one for one in self.denoiser.parameters() if one.requires_grad]
    seen = b"".join(one.detach().numpy().tobytes() for one in trained)
    for one in sample_requests(self.config, self.resolution):
        check_stop()
        color = tuple((zlib.crc32(seen) + one.seed + one.prompt_index).to_bytes(5, "big")[-3:])
        line = self.config.sample_prompts[one.prompt_index]
        yield SampleImage(one.prompt_index, line, one.seed, Image.new("RGB", (SIDE, SIDE), color))


def prove(self: Prover, path: Any, adapter: LoraAdapter, proof: Any) -> Any:
    """The proof as the rules alone give it: nothing is loaded by diffusers."""
    return proof


if __name__ == "__main__":
    if sys.argv[1:]:
        step_seconds = float(sys.argv[1])
    Learner.learn = learn  # type: ignore[method-assign]
    Learner.prediction_errors = prediction_errors  # type: ignore[method-assign]
    Sampler.generate = generate  # type: ignore[method-assign]
    Prover.prove = prove  # type: ignore[method-assign]
    main()

"""Train an adapter on captioned images: the entry to the training core."""

import time
from collections.abc import Sequence
from pathlib import Path

from worker.core.bases.load import LoadedBase
from worker.core.training.changes import Change
from worker.core.training.commands import StopRequested
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage, check_images
from worker.core.training.events import Arithmetic, Callbacks
from worker.core.training.failures import translate_failures
from worker.core.training.loop import TrainingLoop
from worker.core.training.memory import peak_memory_bytes
from worker.core.training.outcome import NOT_RUINED, OUTCOMES, Outcome, TrainedAdapter
from worker.core.training.prepare import base_parameters
from worker.core.training.presets import PromptForm


def train(
    config: TrainConfig,
    images: Sequence[TrainingImage],
    callbacks: Callbacks,
    *,
    base: LoadedBase,
    out: Path,
    cache: Path | None,
    device: str = "cpu",
    arithmetic: Arithmetic | None = None,
    continues: bool = False,
    waits_for_space: bool = False,
    prompt_form: PromptForm = ("", ""),
    changes: Sequence[Change] = (),
    pause_at: int | None = None,
) -> TrainedAdapter:
    """Train an adapter for `base` on captioned images and write it to `out`.

    Continues from the newest checkpoint in `out`, if there is one; on a CPU the adapter is then
    bit-equal to that of an uninterrupted run. `arithmetic` is what an earlier attempt without a
    checkpoint reported; else it is chosen here, with torch's current threads. With `continues`, the
    checkpoint may be of another training of the same kind of adapter, which continues with this
    config and these images up to this number of steps. On a full disk it `waits_for_space` or
    raises. `prompt_form`: for the subjects that tell it to stop by itself. `changes`: those that
    led to this config while it trained, each repeated at its step. At the step `pause_at` it saves
    a checkpoint and is interrupted. Consumes the base. Raises TrainingError.
    """
    started = time.monotonic()
    check_images(images)
    with translate_failures(config):
        out.mkdir(parents=True, exist_ok=True)
        training = TrainingLoop(
            config,
            images,
            callbacks,
            out=out,
            device=device,
            waits_for_space=waits_for_space,
            changes=changes,
            pause_at=pause_at,
        )
        try:
            training.prepare(base, cache, arithmetic, continues=continues, prompt_form=prompt_form)
            training.run()
            outcome = Outcome.FINISHED
        except StopRequested as request:
            outcome = OUTCOMES[request.control]
        outcome, path = training.end(outcome)
    return TrainedAdapter(
        path=path,
        steps=training.step,
        outcome=outcome,
        trainable_parameters=training.trainable_parameters,
        base_parameters=base_parameters(base),
        peak_memory_bytes=peak_memory_bytes(device),
        seconds=time.monotonic() - started,
        verdict=training.judge() if path else NOT_RUINED,
    )

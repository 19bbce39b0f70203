"""The training, from pictures to an adapter, to be read from top to bottom."""

import copy
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from worker.core.bases.load import LoadedBase
from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import Adapter
from worker.core.training.checkpoint import CheckpointFolder, Restored
from worker.core.training.commands import Inbox, Told
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.data.images import TrainingImage, check_images, dataset_fingerprint
from worker.core.training.errors import (
    CheckpointError,
    DeadAdapterError,
    DivergedError,
    OutOfMemoryError,
)
from worker.core.training.events import (
    Arithmetic,
    BaseFacts,
    Callbacks,
    CheckpointSaved,
    Control,
    HeldOut,
    Notice,
    Phase,
    PhaseStarted,
    RolledBack,
    StepDone,
)
from worker.core.training.failures import failures_named
from worker.core.training.learner import NonFiniteError
from worker.core.training.memory import peak_memory_bytes, release_memory
from worker.core.training.precision import autocast
from worker.core.training.prepare import base_parameters, check_supported, encode_pictures, prepare
from worker.core.training.sample_store import SampleRows

ADAPTER = "adapter.safetensors"
STEPS_BETWEEN_RELEASES = 50
STEPS_IN_SPEED = 20
CAPTION_SHOWN = 40  # characters
SLOWER = 0.5  # of the learning rate, after a loss that was no number
NO_SAMPLES = (
    "There was not enough memory to draw a sample, so the training goes on without samples. Ask "
    "for smaller ones (--w and --h in a prompt) to see some."
)
WITHOUT_INFLUENCE = frozenset({"checkpoint_every", "keep_checkpoints"})


class Outcome(StrEnum):
    """How a training ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    CANCELED = "canceled"
    INTERRUPTED = "interrupted"


OUTCOMES = {
    Control.CANCEL: Outcome.CANCELED,
    Control.STOP_AND_KEEP: Outcome.STOPPED,
    Control.SAVE_AND_EXIT: Outcome.INTERRUPTED,
}


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """What a training came to.

    `path` is the adapter in the registry's own form, or None when none was kept: after a cancel,
    a stop before the first step, or an interruption (which can be resumed from its checkpoint).
    """

    path: Path | None
    steps: int
    outcome: Outcome
    trainable_parameters: int
    base_parameters: int
    peak_memory_bytes: int
    seconds: float


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
) -> TrainedAdapter:
    """Train an adapter for `base` on captioned pictures and write it to `out`.

    Goes on from the newest checkpoint in `out`, if there is one; on a CPU the adapter is then
    bit-equal to that of a run without a break. `arithmetic` is what an earlier attempt without a
    checkpoint told; else it is chosen here, with the threads torch has. A training that
    `continues` may find the checkpoint of another one of the same adapter, and goes on from it
    with its own config and pictures, to its own number of steps. The base is used up. Raises
    TrainingError.
    """
    started = time.monotonic()
    check_images(images)
    with failures_named(config):
        out.mkdir(parents=True, exist_ok=True)
        training = Training(config, images, callbacks, out=out, device=device)
        try:
            training.prepare(base, cache, arithmetic, continues=continues)
            training.run()
            outcome = Outcome.FINISHED
        except Told as told:
            outcome = OUTCOMES[told.control]
        path = training.end(outcome)
    return TrainedAdapter(
        path=path,
        steps=training.step,
        outcome=outcome if path or outcome is not Outcome.STOPPED else Outcome.CANCELED,
        trainable_parameters=training.trainable_parameters,
        base_parameters=base_parameters(base),
        peak_memory_bytes=peak_memory_bytes(device),
        seconds=time.monotonic() - started,
    )


class Training:
    """One run: prepared once, then step after step until it is done or told to end."""

    def __init__(
        self,
        config: TrainConfig,
        images: Sequence[TrainingImage],
        callbacks: Callbacks,
        *,
        out: Path,
        device: str,
    ) -> None:
        self.step = 0
        self.trainable_parameters = 0
        self._config = config
        self._images = images
        self._tell = callbacks.on_event
        self._inbox = Inbox(callbacks)
        self._out = out
        self._device = device
        self._saved_step: int | None = None
        self._durations: deque[float] = deque(maxlen=STEPS_IN_SPEED)
        self._slower = 1.0
        self._can_draw = True
        self._rows = SampleRows(out / "samples", count=len(config.sample_prompts))

    def prepare(
        self,
        base: LoadedBase,
        cache: Path | None,
        arithmetic: Arithmetic | None,
        *,
        continues: bool,
    ) -> None:
        """Encode, put the adapter in, and go back to the newest checkpoint."""
        config = self._config
        self._tell(PhaseStarted(Phase.PREPARING))
        check_supported(config, base, device=self._device)
        identity = _identity(config, self._images, base)
        self._checkpoints = CheckpointFolder(
            self._out / "checkpoints",
            identity=identity,
            keep=config.keep_checkpoints,
            adopts=continues,
        )
        self._checkpoints.delete_unfinished()
        restored = self._checkpoints.restore(on_damaged=lambda text: self._tell(Notice(text)))
        if restored:
            arithmetic = Arithmetic(**restored.state["arithmetic"])
        if arithmetic:
            torch.set_num_threads(arithmetic.threads)
        self._tell(PhaseStarted(Phase.ENCODING))
        encoded = encode_pictures(
            base,
            self._images,
            config,
            cache=cache,
            keep_going=self._inbox.look,
            device=self._device,
        )
        self._trained_on = encoded.images
        precision = config.precision
        if arithmetic and precision is Precision.AUTO:
            precision = Precision(arithmetic.precision)
        parts = prepare(
            base, encoded, config, device=self._device, precision=precision, cache=cache
        )
        self._lora, self._learner, self._batches = parts.lora, parts.learner, parts.batches
        self._questions = parts.questions
        self._sampler, self._precision = parts.sampler, parts.precision
        self._arithmetic = Arithmetic(parts.precision.value, torch.get_num_threads())
        self.trainable_parameters = parts.lora.size
        self._metadata = _metadata(config, base)
        if restored:
            self._go_back(restored, same_pictures=_same_pictures(restored.identity, identity))
            if restored.identity.get("learning_rate") != config.learning_rate:
                self._slower = 1.0  # another rate was chosen since the old one was halved
        self._good = Restored(self.step, copy.deepcopy(self._state()))
        release_memory()
        self._tell(self._arithmetic)
        self._tell(BaseFacts(self.trainable_parameters, base_parameters(base)))

    def run(self) -> None:
        """Learn until the last step; raises Told when told to end before."""
        config = self._config
        self._tell(PhaseStarted(Phase.TRAINING))
        self._draw_due_rows()
        while self.step < config.steps:
            self._inbox.look()
            self._answer_requests()
            if not self._take_step():
                continue
            if self._is_due(config.checkpoint_every):
                self._ask_held_out()
                self._save_checkpoint()
            self._draw_due_rows()
            if self.step % STEPS_BETWEEN_RELEASES == 0:
                release_memory()
        if not self._is_due(config.checkpoint_every):
            self._ask_held_out()
        self._save_checkpoint()

    def end(self, outcome: Outcome) -> Path | None:
        """Write what is to be kept: the adapter, a checkpoint to go on from, or nothing."""
        if self.step == 0 or outcome is Outcome.CANCELED:
            return None
        if outcome is Outcome.INTERRUPTED:
            self._save_checkpoint()
            return None
        self._tell(PhaseStarted(Phase.SAVING))
        path = self._out / ADAPTER
        adapter = self._adapter()
        self._check_alive(adapter)
        canonical.save(adapter, path)
        return path

    def _take_step(self) -> bool:
        """Learn from the next batches; False when it went back instead."""
        started = time.perf_counter()
        batches = [self._batches.next() for _ in range(self._config.gradient_accumulation)]
        try:
            learned = self._learner.learn(batches, step=self.step, slower=self._slower)
        except NonFiniteError as error:
            self._roll_back(error)
            return False
        self.step += 1
        self._durations.append(time.perf_counter() - started)
        speed = len(self._durations) / sum(self._durations)
        self._tell(
            StepDone(self.step, self._config.steps, learned.loss, learned.learning_rate, speed)
        )
        if self.step == 1 and self._questions:
            with self._lora.switched_off():
                self._tell_held_out(0)
        return True

    def _roll_back(self, error: NonFiniteError) -> None:
        """Go back to the last good state and try once more, slower; the second time it is over."""
        names = sorted(_named(self._trained_on[index]) for index in error.images)
        where = f"in step {self.step + 1} (pictures: {', '.join(names)})"
        if self._slower < 1:
            self._save_checkpoint()
            kept = f" The adapter of step {self.step} is kept." if self.step else ""
            raise DivergedError(
                f"The training diverged {where}: loss or gradient was not a finite number, at the "
                f"lowered learning rate too.{kept} Look at these pictures, or try a lower "
                "learning rate."
            ) from error
        self._go_back(self._good)
        self._slower = SLOWER
        self._rows.forget_after(self.step)
        self._tell(RolledBack(self.step))
        self._tell(
            Notice(
                f"The loss was not a finite number {where}. The training went back to step "
                f"{self.step} and goes on with {SLOWER:.0%} of the learning rate.",
                is_warning=True,
            )
        )

    def _go_back(self, restored: Restored, *, same_pictures: bool = True) -> None:
        """Be what the training was when this was saved; on other pictures, begin with those."""
        try:
            self._learner.load(restored.state["learner"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                "The checkpoint is of another adapter or optimizer: only a training with the same "
                "kind, rank, layers and optimizer can go on from it."
            ) from error
        if same_pictures:
            self._batches.load(restored.state["batches"])
        self._slower = restored.state["slower"]
        self.step = self._saved_step = restored.step

    def _ask_held_out(self) -> None:
        """Tell how well held-out pictures are predicted by now."""
        if self._questions:
            with self._learner.averaged():
                self._tell_held_out(self.step)

    def _tell_held_out(self, step: int) -> None:
        assert self._questions is not None
        found = self._learner.held_out_loss(self._questions)
        self._tell(HeldOut(step, found.mean, found.low, found.high))

    def _check_alive(self, adapter: Adapter) -> None:
        """An adapter that changes nothing is an error, one that shows in no sample a warning."""
        if not any(bool(module.delta().any()) for module in adapter.modules):
            raise DeadAdapterError(
                f"The adapter is dead: after {self.step} steps it changes nothing at all. "
                "Take a higher learning rate or more steps."
            )
        if self._rows.are_equal(0, self.step):
            text = (
                f"The adapter seems dead: every sample of step {self.step} is the same picture as "
                "the base's. Take a higher learning rate or more steps."
            )
            self._tell(Notice(text, is_warning=True))

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _answer_requests(self) -> None:
        if self._inbox.take_save_request() and self.step:
            self._save_checkpoint()
        if self._inbox.take_sample_request() and self.step:
            self._draw_row(self.step)

    def _save_checkpoint(self) -> None:
        """Save the state of this step, once."""
        if self.step == self._saved_step or self.step == 0:
            return
        state = self._state()
        saved = self._checkpoints.save(self.step, state, self._adapter())
        self._saved_step = self.step
        self._good = Restored(self.step, copy.deepcopy(state))
        self._tell(CheckpointSaved(saved.step, saved.path, saved.size_bytes))

    def _state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "arithmetic": asdict(self._arithmetic),
            "learner": self._learner.state(),
            "batches": self._batches.state(),
            "slower": self._slower,
        }

    def _draw_due_rows(self) -> None:
        """Draw the rows of samples that should be there by now; a resumed run catches up.

        The base's own row waits for the first step, so that a person sees the run begin.
        """
        if self.step and not self._rows.is_complete(0):
            with self._lora.switched_off():
                self._draw_row(0)
        due = self.step == self._config.steps or self._is_due(self._config.sample_every)
        if self.step and due and not self._rows.is_complete(self.step):
            self._draw_row(self.step)

    def _draw_row(self, step: int) -> None:
        if not self._config.sample_prompts or not self._can_draw:
            return
        self._tell(PhaseStarted(Phase.SAMPLING))
        try:
            with failures_named(self._config):
                self._draw(step)
        except OutOfMemoryError:  # a picture needs more than a step, and counts for less
            self._can_draw = False
            self._tell(Notice(NO_SAMPLES, is_warning=True))
        self._tell(PhaseStarted(Phase.TRAINING))

    def _draw(self, step: int) -> None:
        with ExitStack() as stack:
            stack.enter_context(autocast(self._precision, device=self._device))
            if step:
                stack.enter_context(self._learner.averaged())
            for sample in self._sampler.draw(self._inbox.look):
                self._tell(self._rows.save(step, sample))

    def _adapter(self) -> Adapter:
        metadata = self._metadata | {"steps": str(self.step)}
        return self._lora.extract(self._learner.weights(), metadata)


def _named(image: TrainingImage) -> str:
    """A picture as a person knows it: by its file, and in the registry by its caption."""
    return (
        f"{image.path.name} “{image.caption[:CAPTION_SHOWN]}”" if image.caption else image.path.name
    )


def _identity(
    config: TrainConfig, images: Sequence[TrainingImage], base: LoadedBase
) -> dict[str, Any]:
    """What a checkpoint belongs to: all that has an influence on the numbers."""
    fields = config.model_dump(mode="json", exclude=set(WITHOUT_INFLUENCE))
    settings = {name: value for name, value in fields.items() if not name.startswith("sample_")}
    pictures = dataset_fingerprint(images)
    return settings | {"pictures": pictures, "base_model": base.info.fingerprint}


def _same_pictures(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether batches mean the same in both trainings."""
    names = ("pictures", "batch_size", "validation_share", "seed", "aspect_buckets", "resolution")
    return all(one.get(name) == other.get(name) for name in names)


def _metadata(config: TrainConfig, base: LoadedBase) -> dict[str, str]:
    """What the adapter's file says of its making; the config is enough to make it again."""
    return {
        "train_config": config.model_dump_json(),
        "base_fingerprint": base.info.fingerprint,
        "base_family": base.info.family.value,
    }

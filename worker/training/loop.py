"""The training, from pictures to an adapter, to be read from top to bottom."""

import errno
import io
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from worker.adapters import canonical
from worker.adapters.canonical import Adapter
from worker.bases.load import LoadedBase
from worker.training.checkpoint import CheckpointFolder
from worker.training.config import Precision, TrainConfig
from worker.training.data import TrainingImage, check_images, dataset_fingerprint
from worker.training.errors import DivergedError, OutOfMemoryError, StorageError
from worker.training.events import (
    Arithmetic,
    BaseFacts,
    Callbacks,
    CheckpointSaved,
    Control,
    Notice,
    Phase,
    PhaseStarted,
    SampleSaved,
    StepDone,
)
from worker.training.files import write_atomically
from worker.training.inbox import Inbox, Told
from worker.training.learner import NonFiniteError
from worker.training.memory import peak_memory_bytes, release_memory
from worker.training.precision import autocast
from worker.training.prepare import base_parameters, encode_pictures, prepare

ADAPTER = "adapter.safetensors"
STEPS_BETWEEN_RELEASES = 50
STEPS_IN_SPEED = 20
WITHOUT_INFLUENCE = frozenset({"checkpoint_every", "keep_checkpoints"})
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})


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
) -> TrainedAdapter:
    """Train an adapter for `base` on captioned pictures and write it to `out`.

    Goes on from the newest checkpoint in `out`, if there is one; on a CPU the adapter is then
    bit-equal to that of a run without a break. `arithmetic` is what an earlier attempt without a
    checkpoint told; else it is chosen here, with the threads torch has. The base is used up.
    Raises TrainingError.
    """
    started = time.monotonic()
    check_images(images)
    with _failures_named(config):
        out.mkdir(parents=True, exist_ok=True)
        training = Training(config, images, callbacks, out=out, device=device)
        try:
            training.prepare(base, cache, arithmetic)
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

    def prepare(self, base: LoadedBase, cache: Path | None, arithmetic: Arithmetic | None) -> None:
        """Encode, put the adapter in, and go back to the newest checkpoint."""
        config = self._config
        self._tell(PhaseStarted(Phase.PREPARING))
        identity = _identity(config, self._images, base)
        self._checkpoints = CheckpointFolder(
            self._out / "checkpoints", identity=identity, keep=config.keep_checkpoints
        )
        self._checkpoints.delete_unfinished()
        restored = self._checkpoints.restore(on_damaged=lambda text: self._tell(Notice(text)))
        if restored:
            arithmetic = Arithmetic(**restored.state["arithmetic"])
        if arithmetic:
            torch.set_num_threads(arithmetic.threads)
        self._tell(PhaseStarted(Phase.ENCODING))
        buckets = encode_pictures(
            base, self._images, config, cache=cache, keep_going=self._inbox.look
        )
        captions = [image.caption for image in self._images]
        precision = Precision(arithmetic.precision) if arithmetic else config.precision
        parts = prepare(base, buckets, captions, config, device=self._device, precision=precision)
        self._lora, self._learner, self._batches = parts.lora, parts.learner, parts.batches
        self._sampler, self._precision = parts.sampler, parts.precision
        self._arithmetic = Arithmetic(parts.precision.value, torch.get_num_threads())
        self.trainable_parameters = parts.lora.size
        self._metadata = _metadata(config, base)
        if restored:
            self._learner.load(restored.state["learner"])
            self._batches.load(restored.state["batches"])
            self.step = self._saved_step = restored.step
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
            self._take_step()
            if config.checkpoint_every and self.step % config.checkpoint_every == 0:
                self._save_checkpoint()
            self._draw_due_rows()
            if self.step % STEPS_BETWEEN_RELEASES == 0:
                release_memory()
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
        canonical.save(self._adapter(), path)
        return path

    def _take_step(self) -> None:
        started = time.perf_counter()
        batch = self._batches.next()
        try:
            learned = self._learner.learn(batch, step=self.step)
        except NonFiniteError as error:
            self._save_checkpoint()
            raise DivergedError(self._diverged_sentence(batch.images)) from error
        self.step += 1
        self._durations.append(time.perf_counter() - started)
        speed = len(self._durations) / sum(self._durations)
        self._tell(
            StepDone(self.step, self._config.steps, learned.loss, learned.learning_rate, speed)
        )

    def _answer_requests(self) -> None:
        if self._inbox.take_save_request() and self.step:
            self._save_checkpoint()
        if self._inbox.take_sample_request() and self.step:
            self._draw_row(self.step)

    def _save_checkpoint(self) -> None:
        """Save the state of this step, once."""
        if self.step == self._saved_step or self.step == 0:
            return
        state = {
            "arithmetic": asdict(self._arithmetic),
            "learner": self._learner.state(),
            "batches": self._batches.state(),
        }
        saved = self._checkpoints.save(self.step, state, self._adapter())
        self._saved_step = self.step
        self._tell(CheckpointSaved(saved.step, saved.path, saved.size_bytes))

    def _draw_due_rows(self) -> None:
        """Draw the rows of samples that should be there by now; a resumed run catches up.

        The base's own row waits for the first step, so that a person sees the run begin.
        """
        every, total = self._config.sample_every, self._config.steps
        if self.step and not self._row_is_complete(0):
            with self._lora.switched_off():
                self._draw_row(0)
        due = self.step == total or (every > 0 and self.step % every == 0)
        if self.step and due and not self._row_is_complete(self.step):
            self._draw_row(self.step)

    def _draw_row(self, step: int) -> None:
        if not self._config.sample_prompts:
            return
        self._tell(PhaseStarted(Phase.SAMPLING))
        with ExitStack() as stack:
            stack.enter_context(autocast(self._precision, device=self._device))
            if step:
                stack.enter_context(self._learner.averaged())
            for sample in self._sampler.draw(self._inbox.look):
                path = self._sample_path(step, sample.prompt_index)
                _save_picture(sample.picture, path)
                index, prompt, seed = sample.prompt_index, sample.prompt, sample.seed
                self._tell(SampleSaved(step, index, prompt, seed, path))
        self._tell(PhaseStarted(Phase.TRAINING))

    def _row_is_complete(self, step: int) -> bool:
        prompts = range(len(self._config.sample_prompts))
        return all(self._sample_path(step, index).is_file() for index in prompts)

    def _sample_path(self, step: int, prompt_index: int) -> Path:
        return self._out / "samples" / f"step-{step:06d}" / f"prompt-{prompt_index}.png"

    def _adapter(self) -> Adapter:
        metadata = self._metadata | {"steps": str(self.step)}
        return self._lora.extract(self._learner.weights(), metadata)

    def _diverged_sentence(self, images: Sequence[int]) -> str:
        names = ", ".join(sorted({self._images[index].path.name for index in images}))
        return (
            f"The training diverged in step {self.step + 1}: loss or gradient was not a finite "
            f"number (pictures: {names}). The adapter of step {self.step} is kept. "
            "Try a lower learning rate."
        )


def _identity(
    config: TrainConfig, images: Sequence[TrainingImage], base: LoadedBase
) -> dict[str, Any]:
    """What a checkpoint belongs to: all that has an influence on the numbers."""
    fields = config.model_dump(mode="json", exclude=set(WITHOUT_INFLUENCE))
    settings = {name: value for name, value in fields.items() if not name.startswith("sample_")}
    pictures = dataset_fingerprint(images)
    return settings | {"pictures": pictures, "base_model": base.info.fingerprint}


def _metadata(config: TrainConfig, base: LoadedBase) -> dict[str, str]:
    """What the adapter's file says of its making; the config is enough to make it again."""
    return {
        "train_config": config.model_dump_json(),
        "base_fingerprint": base.info.fingerprint,
        "base_family": base.info.family.value,
    }


def _save_picture(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    picture.save(content, format="PNG")
    write_atomically(path, content.getvalue(), durable=False)


@contextmanager
def _failures_named(config: TrainConfig) -> Iterator[None]:
    """Turn the machine's own words for full memory and full disks into sentences."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemoryError(_memory_advice(config)) from error
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        message = "The disk is full. Free some space and start the training again."
        raise StorageError(message) from error


def _is_out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in words
        or "not enough memory" in words
    )


def _memory_advice(config: TrainConfig) -> str:
    advice = []
    if not config.gradient_checkpointing:
        advice.append('switch on "Save memory"')
    if config.batch_size > 1:
        advice.append(f"take a batch size below {config.batch_size}")
    advice.append("take a lower resolution")
    return f"There is not enough memory for this training: {' or '.join(advice)}."

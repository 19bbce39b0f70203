"""The training loop, from images to an adapter; reads from top to bottom."""

import copy
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from worker.core.bases.load import LoadedBase
from worker.core.evaluation.errors import NotMeasured
from worker.core.eyes import EyesError
from worker.core.families.family import BaseFamily
from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.training.changes import Change, ChangingConfig
from worker.core.training.checkpoints import (
    SAME_BATCHES,
    SAME_MEASURE,
    CheckpointFolder,
    RestoredState,
    have_equal,
    training_identity,
)
from worker.core.training.commands import PendingRequests, StopRequested
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.data.images import TrainingImage
from worker.core.training.data.text import describe_cut_captions
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
    Notice,
    Phase,
    PhaseStarted,
    RolledBack,
    SettingsChanged,
    StepDone,
    ValidationDone,
)
from worker.core.training.failures import RoomToWrite, translate_failures
from worker.core.training.health import TrainingHealth
from worker.core.training.learner import NonFiniteError
from worker.core.training.memory import release_memory
from worker.core.training.outcome import OUTCOMES, Outcome, Verdict
from worker.core.training.precision import autocast
from worker.core.training.prepare import base_parameters, check_supported, encode_dataset, prepare
from worker.core.training.presets import PromptForm, default_guidance
from worker.core.training.ruined import judge
from worker.core.training.samples.sampler import sample_requests
from worker.core.training.samples.store import SampleStore, check_samples
from worker.core.training.style_watch import StyleWatch, reason_to_stop, subject_prompts

ADAPTER = "adapter.safetensors"
STEPS_BETWEEN_RELEASES = 50
STEPS_IN_SPEED = 20
NAN_RETRY_LR_FACTOR = 0.5  # after a NaN or infinite loss
SAMPLES_OUT_OF_MEMORY = (
    "Out of memory while generating a sample, so the training continues without samples. Use "
    "smaller ones (--w and --h in a prompt)."
)
GOES_ON = "The training cannot stop by itself and goes on to its last step."


class TrainingLoop:
    """One run: prepared once, then step after step until it is done or a stop is requested."""

    def __init__(
        self,
        config: TrainConfig,
        images: Sequence[TrainingImage],
        callbacks: Callbacks,
        *,
        out: Path,
        device: str,
        waits_for_space: bool = False,
        changes: Sequence[Change] = (),
        pause_at: int | None = None,
    ) -> None:
        self.step = 0
        self._pause_at = pause_at
        self.trainable_parameters = 0
        self._plan = ChangingConfig(config, changes)
        self._config = self._plan.first  # of the next step, or of the one that was just taken
        self._images = images
        self._emit = callbacks.on_event
        self._requests = PendingRequests(callbacks)
        self._poll = self._requests.poll
        self._room = RoomToWrite(self._emit, lambda: self._poll(), waits=waits_for_space)
        self._out = out
        self._device = device
        self._saved: CheckpointSaved | None = None
        self._saved_step: int | None = None
        self._durations: deque[float] = deque(maxlen=STEPS_IN_SPEED)
        self._lr_scale = 1.0
        self._held_out: Mapping[int, float] = {}  # the last validation loss of each image
        self._validated_step: int | None = None
        self._can_sample = True
        self._watch: StyleWatch | None = None
        self._samples = SampleStore(out / "samples", count=len(config.sample_prompts))

    def prepare(
        self,
        base: LoadedBase,
        cache: Path | None,
        arithmetic: Arithmetic | None,
        *,
        continues: bool,
        prompt_form: PromptForm,
    ) -> None:
        """Encode the images, inject the adapter, and restore the newest checkpoint."""
        config = self._config
        self._emit(PhaseStarted(Phase.PREPARING))
        check_supported(config, base, device=self._device)
        identity = training_identity(config, self._images, base.info.fingerprint)
        self._checkpoints = CheckpointFolder(
            self._out / "checkpoints",
            identity=identity,
            keep=config.keep_checkpoints,
            keep_adapters=config.keep_adapters,
            adopts=continues,
        )
        self._checkpoints.delete_unfinished()
        restored = self._checkpoints.restore(on_damaged=lambda text: self._emit(Notice(text)))
        if restored:
            arithmetic = Arithmetic(**restored.state["arithmetic"])
        elif cut := describe_cut_captions(base, self._images):
            self._emit(Notice(cut, is_warning=True))
        if arithmetic:
            torch.set_num_threads(arithmetic.threads)
        # a stop keeps what was restored, so that has to be loaded first
        poll = self._requests.poll_while_stopping if restored else self._requests.poll
        self._emit(PhaseStarted(Phase.ENCODING))
        encoded = encode_dataset(
            base,
            self._images,
            config,
            cache=cache,
            check_stop=poll,
            device=self._device,
        )
        self._trained_on = encoded.images
        precision = config.precision
        if arithmetic and precision is Precision.AUTO:
            precision = Precision(arithmetic.precision)
        prompts = subject_prompts(self._images, prompt_form)  # patience may be set later
        parts = prepare(
            base, encoded, config, prompts, device=self._device, precision=precision, cache=cache
        )
        self._lora, self._learner, self._batches = parts.lora, parts.learner, parts.batches
        self._validation = parts.validation
        self._health = TrainingHealth(parts.learner, parts.lora, parts.fixed, self._emit)
        self._watch = StyleWatch(
            prompts, encoded, parts, default_guidance(base.info.resolution, base.info.family)
        )
        self._sampler, self._precision = parts.sampler, parts.precision
        self._arithmetic = Arithmetic(parts.precision.value, torch.get_num_threads())
        self.trainable_parameters = parts.lora.size
        self._metadata = {
            "base_fingerprint": base.info.fingerprint,
            "base_family": base.info.family.value,
        }
        if restored:
            self._restore_state(
                restored,
                same_batches=have_equal(SAME_BATCHES, restored.identity, identity),
                same_measure=have_equal(SAME_MEASURE, restored.identity, identity),
            )
            if restored.identity.get("learning_rate") != config.learning_rate:
                self._lr_scale = 1.0  # the rate was changed since the old one was halved
            self._config = self._plan.at(self.step - 1)  # of the step that was taken last
        self._warn_if_never_enough()
        self._last_good = RestoredState(self.step, copy.deepcopy(self._full_state()))
        release_memory()
        self._emit(self._arithmetic)
        lora, every = parts.lora, base_parameters(base)
        self._emit(BaseFacts(lora.size, every, len(lora.sites), lora.all_layers))

    def run(self) -> None:
        """Train until the last step; raises StopRequested for an early stop."""
        self._emit(PhaseStarted(Phase.TRAINING))
        self._generate_due_samples()
        self._stop_if_enough()
        while self._use_settings().steps > self.step:
            self._requests.poll()
            if self._change_settings():
                continue
            self._handle_requests()
            self._pause_if_due()
            if not self._take_step():
                continue
            if self._is_due(self._config.checkpoint_every):
                self._run_validation()
                self._stop_if_enough()
                self._save_checkpoint()
            self._generate_due_samples()
            if self.step % STEPS_BETWEEN_RELEASES == 0:
                release_memory()
        if self.step != self._saved_step:
            self._run_validation()
        self._save_checkpoint()
        self._generate_due_samples()

    def _use_settings(self) -> TrainConfig:
        """The settings of the next step."""
        self._config = self._plan.at(self.step)
        if self._watch and not self._config.patience:
            self._watch.measures.clear()  # as a training that is resumed here has none
        return self._config

    def _change_settings(self) -> bool:
        """Carry out an order to change settings; False if there is none."""
        order = self._requests.take_change()
        if order is None:
            return False
        made = self._plan.change(self.step, order.values)
        self._emit(SettingsChanged(order.number, made))
        self._use_settings()
        if made.after.keys() & {"steps", "checkpoint_every", "patience"}:
            self._warn_if_never_enough()
        return True

    def end(self, outcome: Outcome) -> tuple[Outcome, Path | None]:
        """Save the result: the adapter, a checkpoint to continue from, or nothing.

        A stop saves a checkpoint and a row of samples of the very step that is kept. Meanwhile the
        training can still be canceled or interrupted; returns how it ended.
        """
        if outcome is Outcome.STOPPED:
            outcome = self._record_stop()
        if self.step == 0 or outcome is Outcome.CANCELED:
            return outcome, None
        if outcome is Outcome.INTERRUPTED:
            self._save_checkpoint(is_measured=False)
            return outcome, None
        self._emit(PhaseStarted(Phase.SAVING))
        path = self._out / ADAPTER
        adapter = self._extract_adapter()
        self._check_effect(adapter)
        self._room.write(lambda: canonical.save_adapter(adapter, path), phase=Phase.SAVING)
        return outcome, path

    def judge(self) -> Verdict:
        """The verdict on the result, by the fixed images and the samples."""
        steps = [step for step in self._health.losses if step] or [self.step]
        requests = sample_requests(self._config, self._sampler.resolution)
        samples = check_samples(
            self._samples, {0, self.step, *steps}, requests, self._sampler.resolution
        )
        health = self._health
        return judge(health.losses, samples, last=self.step, guess=health.guess)

    def _record_stop(self) -> Outcome:
        """Save a checkpoint and samples of the step that is kept; before the first, cancel."""
        if self.step == 0:
            return Outcome.CANCELED
        self._poll = self._requests.poll_while_stopping
        try:
            self._run_validation()
            self._save_checkpoint()
            self._generate_due_samples()
        except StopRequested as request:
            return OUTCOMES[request.control]
        return Outcome.STOPPED

    def _take_step(self) -> bool:
        """Train on the next batches; False when the training rolled back instead."""
        started = time.perf_counter()
        batches = [self._batches.next() for _ in range(self._config.gradient_accumulation)]
        try:
            learned = self._learner.learn(
                batches, step=self.step, lr_scale=self._lr_scale, lengths=self._plan.lengths
            )
        except NonFiniteError as error:
            self._roll_back(error)
            return False
        self.step += 1
        self._durations.append(time.perf_counter() - started)
        speed = len(self._durations) / sum(self._durations)
        total = self._plan.config.steps  # also before the step from which it holds
        self._emit(StepDone(self.step, total, learned.loss, learned.learning_rate, speed))
        self._health.after_step(self.step, learned.loss)
        if self.step == 1 and self._validation:
            with self._lora.disabled():
                self._emit_validation_loss(0)
        return True

    def _roll_back(self, error: NonFiniteError) -> None:
        """Roll back to the last good state at a lower rate; the second time raise DivergedError."""
        names = sorted(self._trained_on[index].label for index in error.images)
        where = f"in step {self.step + 1} (images: {', '.join(names)})"
        if self._lr_scale < 1:
            self._save_checkpoint()
            self._generate_due_samples()
            saved = f" The checkpoint of step {self.step} was saved." if self.step else ""
            raise DivergedError(
                f"The training diverged {where}: the loss or gradient was NaN or infinite, even at "
                f"the lowered learning rate.{saved} Check these images, or use a lower learning "
                "rate."
            ) from error
        self._restore_state(self._last_good)
        self._lr_scale = NAN_RETRY_LR_FACTOR
        self._samples.delete_after(self.step)
        self._emit(RolledBack(self.step))
        self._emit(
            Notice(
                f"The loss was NaN or infinite {where}. The training went back to step {self.step} "
                f"and continues with {NAN_RETRY_LR_FACTOR:.0%} of the learning rate.",
                is_warning=True,
            )
        )

    def _restore_state(
        self, restored: RestoredState, *, same_batches: bool = True, same_measure: bool = True
    ) -> None:
        """Load a saved state; other batches and fixed images start from the beginning."""
        try:
            self._learner.load(restored.state["learner"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                "The checkpoint has another adapter or optimizer. Use its adapter kind, rank, "
                "target modules and optimizer."
            ) from error
        if same_batches:
            self._batches.load(restored.state["batches"])
        self._health.load(restored.state.get("health") if same_measure else None)
        self._held_out = restored.state.get("held_out", {}) if same_measure else {}
        self._validated_step = None
        if self._watch:
            self._watch.load(restored.state.get("style") if same_measure else None)
        self._lr_scale = restored.state["slower"]
        self.step = self._saved_step = restored.step

    def _run_validation(self) -> None:
        """Report the validation loss of the current adapter, once."""
        if self._validation and self.step != self._validated_step:
            self._validated_step = self.step
            with self._learner.averaged():
                self._emit_validation_loss(self.step)

    def _emit_validation_loss(self, step: int) -> None:
        assert self._validation is not None
        loss = self._learner.held_out_loss(self._validation, self._held_out)
        self._held_out = loss.images
        self._emit(ValidationDone(step, loss.mean, loss.low, loss.high))

    def _stop_if_enough(self) -> None:
        """Measure the style at a checkpoint, once; raise StopRequested when it stopped rising.

        Where it cannot be measured, the training goes on without.
        """
        watch, config = self._watch, self._config
        if watch is None or not self._can_be_enough:
            return
        if not self._is_due(config.checkpoint_every) or self.step == config.steps:
            return
        if self.step and not watch.has(self.step):
            self._measure_style(watch)
        if reason := reason_to_stop(watch.measures, config.patience):
            self._emit(Notice(reason))
            raise StopRequested(Control.STOP_AND_KEEP)

    @property
    def _checkpoints_before_end(self) -> int:
        """The checkpoints before the last step, as the settings are now."""
        config = self._config
        return (config.steps - 1) // (config.checkpoint_every or config.steps)

    @property
    def _can_be_enough(self) -> bool:
        """True if the training may stop by itself."""
        return 0 < self._config.patience < self._checkpoints_before_end

    def _warn_if_never_enough(self) -> None:
        patience = self._config.patience
        if patience and not self._can_be_enough:
            short = (
                f"That takes {patience + 1} checkpoints before it, and there are "
                f"{self._checkpoints_before_end}."
            )
            self._emit(Notice(f"{GOES_ON} {short}", is_warning=True))

    def _measure_style(self, watch: StyleWatch) -> None:
        self._emit(PhaseStarted(Phase.SAMPLING))
        try:
            with translate_failures(self._config):
                watch.measure(self.step, self._poll)
        except (NotMeasured, EyesError) as error:
            self._watch = None
            self._emit(Notice(f"{GOES_ON} {error}", is_warning=True))
        except OutOfMemoryError:  # as for a sample
            self._watch = None
            self._emit(Notice(f"{GOES_ON} Drawing for it ran out of memory.", is_warning=True))
        release_memory()
        self._emit(PhaseStarted(Phase.TRAINING))

    def _check_effect(self, adapter: LoraAdapter) -> None:
        """Raise an error for an adapter without effect, warn about one that shows in no sample."""
        if not any(bool(module.delta().any()) for module in adapter.modules):
            raise DeadAdapterError(
                f"The adapter has no effect after {self.step} steps. Use a higher learning rate or "
                "more steps."
            )
        if self._samples.are_equal(0, self.step):
            text = (
                f"The adapter seems to have no effect: every sample of step {self.step} equals the "
                "base model's. Use a higher learning rate or more steps."
            )
            self._emit(Notice(text, is_warning=True))

    def _pause_if_due(self) -> None:
        """Save everything at the step to pause at, and raise StopRequested."""
        if self.step and self.step == self._pause_at:
            self._run_validation()
            self._save_checkpoint()
            self._generate_due_samples()
            raise StopRequested(Control.SAVE_AND_EXIT)

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def _handle_requests(self) -> None:
        requests = self._requests.take()
        if requests.save_now and self.step:
            self._save_checkpoint(is_requested=True)
            self._generate_due_samples()
        if requests.sample_now and self.step:
            self._save_samples(self.step)

    def _save_checkpoint(self, *, is_requested: bool = False, is_measured: bool = True) -> None:
        """Save the state of this step, once, with its loss on the fixed images."""
        if self.step == self._saved_step or self.step == 0:
            if is_requested and self._saved is not None and self._saved.step == self.step:
                self._emit(replace(self._saved, is_requested=True))
            return
        if is_measured:
            self._health.measure(self.step)
        state = self._full_state()
        adapter = self._extract_adapter()
        best = self._watch.best if self._watch and self._config.patience else None
        saved = self._room.write(
            lambda: self._checkpoints.save(self.step, state, adapter, best=best),
            phase=Phase.TRAINING,
        )
        self._saved_step = self.step
        self._last_good = RestoredState(self.step, copy.deepcopy(state))
        self._saved = replace(saved, is_requested=is_requested)
        self._emit(self._saved)

    def _full_state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "arithmetic": asdict(self._arithmetic),
            "learner": self._learner.state(),
            "batches": self._batches.state(),
            "slower": self._lr_scale,
            "health": self._health.state(),
            "held_out": dict(self._held_out),
            "style": self._watch.state() if self._watch and self._config.patience else None,
        }

    def _generate_due_samples(self) -> None:
        """Generate the samples that are due; a resumed run catches up.

        Every checkpoint has a row of samples. The base model's samples wait for the first step, so
        that a person sees progress early.
        """
        if self.step and not self._samples.is_complete(0):
            with self._lora.disabled():
                self._save_samples(0)
        due = self.step in (self._config.steps, self._saved_step) or self._is_due(
            self._config.sample_every
        )
        if self.step and due and not self._samples.is_complete(self.step):
            self._save_samples(self.step)

    def _save_samples(self, step: int) -> None:
        if not self._config.sample_prompts or not self._can_sample:
            return
        self._emit(PhaseStarted(Phase.SAMPLING))
        try:
            with translate_failures(self._config):
                self._generate_samples(step)
        except OutOfMemoryError:  # a sample needs more memory than a step, and matters less
            self._can_sample = False
            self._emit(Notice(SAMPLES_OUT_OF_MEMORY, is_warning=True))
        self._emit(PhaseStarted(Phase.TRAINING))

    def _generate_samples(self, step: int) -> None:
        with ExitStack() as stack:
            stack.enter_context(autocast(self._precision, device=self._device))
            if step:
                stack.enter_context(self._learner.averaged())
            for sample in self._sampler.generate(self._poll):
                self._emit(
                    self._room.write(
                        partial(self._samples.save, step, sample), phase=Phase.SAMPLING
                    )
                )

    def _extract_adapter(self) -> LoraAdapter:
        """The adapter; config and changes in its metadata are enough to train it again."""
        plan, metadata = self._plan, self._metadata | {"steps": str(self.step)}
        hidden = BaseFamily(metadata["base_family"]).facts.options.hidden
        metadata["train_config"] = plan.config.model_dump_json(exclude=hidden)
        if plan.changes:
            metadata["train_changes"] = json.dumps([asdict(one) for one in plan.changes])
        return self._lora.extract(self._learner.weights(), metadata)

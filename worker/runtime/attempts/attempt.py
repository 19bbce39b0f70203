"""One attempt at a run: commands to the trainer, user requests, timeouts and the final status."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.registry.blobs.report import report
from app.registry.errors import AppError, StorageFullError
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.runs import progress
from app.registry.runs.checkpoints import list_checkpoints
from app.registry.runs.presets import prompt_form_of
from app.registry.storage.store import BlobDamaged, BlobNotFound
from app.registry.tables.runs import WARNING, Checkpoint, Run
from worker.core.families.family import FALLBACK_FAMILY, BaseFamily, find_family
from worker.core.training.changes import Change, ChangeOrder
from worker.core.training.config import TrainConfig
from worker.core.training.errors import LostCacheError, StorageError
from worker.core.training.events import Arithmetic, Commands, Control
from worker.core.training.fallback import reduce_memory_use
from worker.core.training.outcome import Outcome, TrainedAdapter
from worker.runtime import scratch
from worker.runtime.attempts.report import Reporter
from worker.runtime.attempts.save_result import TrainingResult
from worker.runtime.attempts.work import RunInputs, RunWork, load_inputs
from worker.runtime.job_progress import RefusedError
from worker.runtime.line_process import Ended
from worker.runtime.messages import ExportReport, FailureReport, Heartbeat, Message, Ready, Train
from worker.runtime.outages.patience import CanceledWhileWaiting, reason_to_wait
from worker.runtime.trainer_process import TrainerProcess

POLL_SECONDS = 0.1
CHECK_SECONDS = 0.3
CANCEL_SECONDS = 5.0  # how long a canceled run goes on storing what was saved before
SMALL_BASE = 150_000_000  # parameters; two larger base models may not fit in memory
log = logging.getLogger(__name__)

CRASHED = (
    "The training process was killed or crashed (exit code {code}). If this happens again, the "
    "machine may be out of memory: choose a smaller batch, or turn on “Gradient checkpointing”."
)
STALLED = "The training made no progress for {minutes:.0f} minutes, so it was stopped."
NO_MEMORY = (
    "Out of memory, even with a batch of one image and “Gradient checkpointing” on. Choose a "
    "smaller resolution or rank, or a smaller base model."
)
NOT_STORED = "The checkpoint of the last step could not be stored."
NO_START = (
    "The checkpoint that this run continues from is damaged or missing, so nothing was trained. "
    "Continue from another checkpoint, or start a new run."
)


class Attempt:
    """Supervises the trainer process of one claimed run."""

    def __init__(self, work: RunWork) -> None:
        self._work = work
        self._run = work.run
        self._lease = work.lease
        self._reporter = Reporter(work)
        self._control = Control.CONTINUE
        self._change_sent: int | None = None  # number of the order
        self._deadline: float | None = None
        self._last_message_at = time.monotonic()
        self._last_check_at = 0.0
        self._result: TrainingResult | None = None
        self.model: Path | None = None

    def supervise(self) -> None:
        """Train until the run's status changes. Raises LostLease if another worker owns the run."""
        token = self._lease.claim.token
        try:
            with self._work.database.read() as session:
                inputs = load_inputs(session, self._run)
                self.model = inputs.base.location
            with (
                scratch.attempt_folder(
                    self._work.settings.data_dir, self._run.key, token
                ) as folder,
                self._start_training(folder, inputs) as trainer,
            ):
                while not self._handle_next_message(trainer, inputs):
                    pass
        except RefusedError as error:
            self._fail_run(error.code, str(error))
        except CanceledWhileWaiting:
            self._finish_run(JobStatus.CANCELED)
        except (BlobNotFound, BlobDamaged) as error:
            self._fail_run(error.code, report(self._work.database, error))
        except AppError as error:
            if reason_to_wait(error) is not None:
                self._reporter.set(phase=None)
                self._reporter.flush(now=True)
                raise  # the run goes back to the queue, and this worker waits
            self._fail_run(error.code, error.detail)
        finally:
            self._reporter.uploads.close()

    @contextmanager
    def _start_training(self, folder: Path, inputs: RunInputs) -> Iterator[TrainerProcess]:
        """Start training this run; the trainer process is killed when the block ends."""
        assert self.model is not None
        trainer = self._work.trainers.take(self.model)
        try:
            store = self._work.store
            scratch.write_images(store, inputs.images, folder / "data", folder / "blobs")
            with self._work.database.read() as session:
                rows = progress.checkpoints(session, self._run.key)
                samples = progress.samples_until(session, self._run.key, rows)
                form = prompt_form_of(session, self._run.dataset_id, self._run.trigger_word)
            resumed = self._restore_checkpoint(rows, folder / "out")
            if self._run.parent_id is not None and not resumed:
                raise RefusedError("checkpoint", NO_START)
            scratch.restore_samples(store, samples, folder / "out", folder / "blobs")
            self._reporter.set(phase="preparing", step=resumed, device=trainer.device or None)
            self._reporter.flush(now=True)
            trainer.send(
                Train(
                    model=self.model,
                    data=folder / "data",
                    out=folder / "out",
                    cache=self._work.settings.data_dir / "cache" / "latents",
                    config=TrainConfig.model_validate(self._run.config),
                    # checkpoints of this run or its parent, possibly with other memory settings
                    continues=bool(rows),
                    arithmetic=Arithmetic(**known) if (known := self._run.arithmetic) else None,
                    prompt_form=form,
                    changes=[Change(**one) for one in self._run.changes],
                    pause_at=self._run.pause_at,
                )
            )
            self._work.trainers.warm_during_run(self.model)
            yield trainer
        finally:
            trainer.kill()

    def _restore_checkpoint(self, rows: Sequence[Checkpoint], out: Path) -> int:
        """Unpack the newest usable checkpoint, note the others on the run; return its step or 0."""
        restored = scratch.restore_checkpoint(self._work.store, rows, out)
        for _, error in restored.unusable:
            if isinstance(error, BlobNotFound | BlobDamaged):
                report(self._work.database, error)
        if restored.unusable:
            text = restored.sentence
            self._reporter.persist(
                lambda session: jobs.record(session, Run, self._run.key, WARNING, text=text)
            )
        return restored.step

    def _handle_next_message(self, trainer: TrainerProcess, inputs: RunInputs) -> bool:
        """Handle one message or check the run; True if the run's status has changed."""
        message = trainer.receive(POLL_SECONDS)
        if isinstance(message, Ended):
            return self._on_exit(trainer, message)
        if message is not None:
            if self._handle_message(trainer, inputs, message):
                return True
            self._last_message_at = time.monotonic()  # it may have waited for storage until now
        if time.monotonic() - self._last_check_at > CHECK_SECONDS:
            self._last_check_at = time.monotonic()
            return self._check_run(trainer)
        return False

    def _handle_message(self, trainer: TrainerProcess, inputs: RunInputs, message: Message) -> bool:
        if isinstance(message, Ready):
            self._reporter.set(device=message.device)
        elif isinstance(message, TrainedAdapter):
            return self._on_trained(trainer, inputs, message)
        elif isinstance(message, ExportReport):
            assert self._result is not None
            self._result.publish(message)
            trainer.finish()
            return True
        elif isinstance(message, FailureReport):
            return self._on_failure(message, trainer, inputs)
        elif not isinstance(message, Heartbeat):
            self._reporter.record_event(message)  # type: ignore[arg-type] # only events remain
            self._reporter.flush()
        return False

    def _on_trained(
        self, trainer: TrainerProcess, inputs: RunInputs, message: TrainedAdapter
    ) -> bool:
        self._reporter.set(
            step=message.steps,
            trainable_parameters=message.trainable_parameters,
            base_parameters=message.base_parameters,
            peak_memory_bytes=message.peak_memory_bytes,
        )
        self._reporter.flush(now=True)
        if message.outcome is Outcome.INTERRUPTED:
            self._finish_uploads()
            if message.steps == self._run.pause_at:
                self._leave_at(message.steps, JobStatus.PAUSED, attempt=0)
            else:
                self._persist_end(jobs.give_back)
            return True
        if message.path is None:
            self._cancel_run()
            return True
        self._deadline = None  # a cancel comes too late now: the run succeeds
        self._control = Control.CONTINUE
        self._reporter.set(phase="saving")
        self._result = TrainingResult(self._work, self._reporter, inputs, message)
        self._finish_uploads()
        if self._run.sweep_id is not None:  # its checkpoints are all that a sweep needs
            self._leave_at(message.steps, JobStatus.SUCCEEDED, **self._result.outcome())
            return True
        trainer.send(self._result.export_order())
        if self.model is not None and sum(inputs.base.parameters.values()) < SMALL_BASE:
            self._work.trainers.warm_after_training(self.model)
        return False

    def _check_run(self, trainer: TrainerProcess) -> bool:
        self._lease.check()
        self._reporter.uploads.check()
        self._reporter.flush()
        now = time.monotonic()
        if self._deadline is not None and now > self._deadline:
            log.warning("run %s: the trainer did not stop in time and was killed.", self._run.key)
            trainer.kill()
            if self._control is Control.SAVE_AND_EXIT:
                self._finish_uploads()
                self._persist_end(jobs.give_back)
            else:
                self._cancel_run()
            return True
        if now - self._last_message_at > self._work.timeouts.stall:
            trainer.kill()
            self._finish_uploads()
            minutes = self._work.timeouts.stall / 60
            self._retry_run("stalled", STALLED.format(minutes=minutes), trainer.log_tail())
            return True
        self._forward_requests(trainer)
        return False

    def _forward_requests(self, trainer: TrainerProcess) -> None:
        flags = self._reporter.read_flags()
        if self._result is not None:
            return
        if flags.cancel:
            self._send_control(trainer, Control.CANCEL, timeout=self._work.timeouts.cancel)
        elif self._work.stopping.is_set():
            self._send_control(trainer, Control.SAVE_AND_EXIT, timeout=self._work.timeouts.drain)
        elif flags.stop:
            self._send_control(trainer, Control.STOP_AND_KEEP, timeout=None)
        if flags.sample or flags.save:
            trainer.send(Commands(sample_now=flags.sample, save_now=flags.save))
            self._reporter.set(sample_requested=False, save_requested=False)
            self._reporter.flush(now=True)

        if flags.change and flags.change["number"] != self._change_sent:
            self._change_sent = flags.change["number"]
            trainer.send(Commands(change=ChangeOrder(**flags.change)))

    def _finish_uploads(self) -> None:
        """Store what waits: the run may go on elsewhere, from its newest checkpoint.

        An outage is waited out, unless the worker stops meanwhile. Raises CanceledWhileWaiting.
        """

        def give_up() -> bool:
            self._lease.check()
            self._reporter.flush()
            if self._reporter.read_flags().cancel:
                raise CanceledWhileWaiting
            return self._reporter.must_leave

        if not self._reporter.uploads.finish(give_up=give_up):
            log.warning("run %s: not everything that was saved is stored.", self._run.key)

    def _send_control(
        self, trainer: TrainerProcess, control: Control, *, timeout: float | None
    ) -> None:
        if self._control is control:
            return
        self._control = control
        self._deadline = None if timeout is None else time.monotonic() + timeout
        trainer.send(Commands(control=control))

    def _on_exit(self, trainer: TrainerProcess, end: Ended) -> bool:
        """Handle a trainer process that ended without a final message."""
        if self._control is Control.CANCEL:
            self._cancel_run()
        else:
            self._finish_uploads()
            self._retry_run("trainer_crashed", CRASHED.format(code=end.code), trainer.log_tail())
        return True

    def _on_failure(
        self, failed: FailureReport, trainer: TrainerProcess, inputs: RunInputs
    ) -> bool:
        self._finish_uploads()
        if failed.code == StorageError.code:
            raise StorageFullError(failed.error)
        if failed.code == "out_of_memory":
            self._out_of_memory(failed, find_family(inputs.base.family) or FALLBACK_FAMILY)
        elif failed.expected and failed.code != LostCacheError.code:
            self._fail_run(failed.code, failed.error, failed.trace)
        else:
            self._retry_run(failed.code, failed.error, failed.trace + trainer.log_tail())
        return True

    def _out_of_memory(self, failed: FailureReport, family: BaseFamily) -> None:
        """Queue the run again with settings that need less memory; fail it if there are none.

        This does not count as an attempt: there are few such steps, each with other settings.
        """
        found = reduce_memory_use(TrainConfig.model_validate(self._run.config), family)
        if found is None:
            self._fail_run(failed.code, NO_MEMORY, failed.trace)
            return
        config, sentence = found

        def write(session: Any, _: Any, claim: Claim) -> None:
            rows = progress.checkpoints(session, self._run.key)
            where = f" from step {rows[0].step:,}" if rows else ""
            text = f"Out of memory: the run starts again{where}. {sentence}"
            jobs.record(session, Run, self._run.key, WARNING, text=text)
            jobs.update_owned(
                session, Run, claim, config=config.model_dump(mode="json"), arithmetic={}
            )
            jobs.give_back(session, Run, claim)

        self._persist_end(write)

    def _fail_run(self, code: str, error: str, trace: str = "") -> None:
        self._finish_run(JobStatus.FAILED, error_code=code, error=error, error_trace=trace or None)

    def _retry_run(self, code: str, error: str, trace: str = "") -> None:
        self._persist_end(jobs.give_up_or_retry, code=code, error=error, trace=trace)

    def _leave_at(self, step: int, status: JobStatus, **values: Any) -> None:
        """End or pause the run of a sweep at a step whose checkpoint is stored."""

        def write(session: Any, _: Any, claim: Claim) -> None:
            found = list_checkpoints(session, self._run.key, steps=[step])
            is_stored = found and found[0].state is not None and found[0].version is not None
            if not is_stored:
                jobs.give_up_or_retry(session, Run, claim, code="checkpoint", error=NOT_STORED)
            elif session.get_one(Run, self._run.key, populate_existing=True).cancel_requested:
                jobs.finish(session, Run, claim, JobStatus.CANCELED)
            else:
                jobs.finish(session, Run, claim, status, **values)

        self._persist_end(write)

    def _cancel_run(self) -> None:
        """Cancel the run; what was saved before is stored, unless there is an outage."""
        end = time.monotonic() + CANCEL_SECONDS

        def give_up() -> bool:
            self._lease.check()
            return time.monotonic() > end or self._reporter.must_leave

        self._reporter.uploads.finish(give_up=give_up)
        self._finish_run(JobStatus.CANCELED)

    def _finish_run(self, status: JobStatus, **values: Any) -> None:
        self._persist_end(jobs.finish, status=status, **values)

    def _persist_end(self, write: Callable[..., object], **values: Any) -> None:
        """Write the last progress, and the new status by a function of jobs, in one transaction."""

        def write_both(session: Any) -> None:
            self._reporter.set(phase=None)
            self._reporter.write_pending(session)
            write(session, Run, self._lease.claim, **values)

        self._reporter.uploads.close()
        self._reporter.persist(write_both)
        self._lease.release()

"""Render jobs: one render at a time, with warm pipelines."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from functools import partial
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from PIL import Image
from sqlmodel import Session, select

from app.registry.base_models import service as base_models
from app.registry.base_models.precisions import chosen_precision, record_choice
from app.registry.blobs.make_thumbnails import make_thumbnails
from app.registry.blobs.report import report
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.errors import AppError
from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import ResolvedAdapter
from app.registry.jobs import service as jobs
from app.registry.renders import results
from app.registry.renders.covers import take_cover
from app.registry.renders.listing import last_used_base
from app.registry.renders.results import NewRenderImage
from app.registry.storage.store import BlobDamaged, BlobNotFound, BlobStore
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import EMBEDDED, BaseModel, ModelStatus
from app.registry.tables.renders import Render
from worker.core.bases.family import BaseModelError
from worker.core.device import choose_device
from worker.core.inference.config import ImageSettings, RenderConfig
from worker.core.inference.errors import RenderCanceled, RenderError
from worker.core.inference.infotext import ImageParameters, UsedAdapter, encode_png
from worker.core.inference.prompt_syntax import parse_prompt
from worker.core.lean_imports import lean_imports
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.file_names import file_stem
from worker.core.words import RenderPrecision
from worker.runtime.job_progress import WorkerStopping
from worker.runtime.lease import Lease
from worker.runtime.outages.patience import reason_to_wait
from worker.runtime.renders.cancel_watch import CancelWatch
from worker.runtime.renders.previews import Previews

if TYPE_CHECKING:
    from worker.core.inference.pipeline import RenderedImage
    from worker.runtime.renders.warm_pipelines import WarmPipelines

REPORT_SECONDS = 0.15
STUCK_SECONDS = 300.0
WATCH_SECONDS = 5.0
STUCK = 70
TRUNCATED = "The prompt is too long for this base model. Its end was ignored: “{end}”."
MAX_QUOTED = 120  # characters of it

log = logging.getLogger(__name__)


class RenderJobs:
    """Processes the renders of the `render` queue."""

    table = Render
    memory_bytes = None

    def __init__(self, settings: Settings, database: Database, store: BlobStore) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._warm: WarmPipelines | None = None

    @property
    def device(self) -> str:
        """Description of the device; empty while unknown."""
        return self._warm.described if self._warm else ""

    @property
    def machine(self) -> str:
        """The machine that the precision of images depends on; empty while unknown."""
        return self._warm.machine if self._warm else ""

    def prepare(self) -> None:
        """Import torch and load the embedded base model, then the one that was used last.

        The embedded one renders once. What waits is done first.
        """
        with self._database.read() as session:
            base = session.exec(select(BaseModel).where(BaseModel.source == EMBEDDED)).first()
            last = last_used_base(session)
        self._warm_pipelines().prepare(base, is_waiting=self._is_waiting)
        if base is not None:
            self._known_precision(base)
        if last is not None and not self._is_waiting():
            self._preload(last)

    def _preload(self, base: BaseModel) -> None:
        """Load a base model if it fits in memory beside the embedded one."""
        precision = self._known_precision(base)
        if precision is None:
            return  # it is measured for its first image
        try:
            self._warm_pipelines().preload(base, precision)
        except (BaseModelError, RenderError) as error:
            log.warning("Could not load the base model that was used last: %s", error)

    def close(self) -> None:
        """Release the pipelines."""
        if self._warm:
            self._warm.clear()

    def run(self, job: Any, lease: Lease, stopping: threading.Event) -> None:
        """Generate the images of a render, or copy those of an identical one."""
        render: Render = job
        try:
            with self._database.read() as session:
                base = session.get_one(BaseModel, render.base_model_id)
            render.precision = self._known_precision(base)
            if not self._copy_cached(render, lease):
                self._generate(render, base, lease, stopping)
        except WorkerStopping:
            with self._database.write() as session:
                jobs.give_back(session, Render, lease.claim)
        except (BlobNotFound, BlobDamaged) as error:
            self._fail_render(lease, error.code, report(self._database, error))
        except AppError as error:
            if reason_to_wait(error) is not None:
                raise  # the render goes back to the queue, and this worker waits
            self._fail_render(lease, error.code, error.detail)
        if self._warm is not None and not self._is_waiting():
            self._warm.tune()

    def _is_waiting(self) -> bool:
        with self._database.read() as session:
            return jobs.has_waiting(session, Render)

    def _copy_cached(self, render: Render, lease: Lease) -> bool:
        with self._database.read() as session:
            cached = results.find_cached_images(session, render, self._store)
        if cached is None:
            return False
        with self._database.write() as session:
            results.finish_render(
                session,
                lease.claim,
                cached.images,
                seconds=0.0,
                from_cache=True,
                note=cached.note or render.note,
                precision=render.precision,
                progress=render.all_steps,
            )
            take_cover(session, render)
        return True

    def _known_precision(self, base: BaseModel) -> RenderPrecision | None:
        """The precision of a base model on this machine; None if it must be measured first."""
        warm = self._warm_pipelines()
        with self._database.read() as session:
            chosen = chosen_precision(session, base, warm.machine)
        if chosen is not None:
            return RenderPrecision(chosen.precision)
        fixed = warm.fixed_precision(base)
        if fixed is not None and base.status == ModelStatus.READY:
            with self._database.write() as session:
                record_choice(session, warm.row_of_choice(base, fixed))
        return fixed

    def _choose_precision(
        self,
        render: Render,
        base: BaseModel,
        lease: Lease,
        stopping: threading.Event,
        watch: CancelWatch,
    ) -> RenderPrecision:
        """Choose the precision of a base model by timing it for this render; stored for later."""
        warm, total = self._warm_pipelines(), render.all_steps
        # loading reports no progress that could get stuck
        pipeline = warm.pipeline(base, RenderPrecision.FP32)
        with (
            watch.computing(),
            RenderProgress(self._database, lease, stopping) as steps,
            pipeline.stoppable(watch.should_stop),
        ):
            chosen = warm.choose_precision(
                base, _config(render), on_call=lambda: steps.note(0, total)
            )
        precision = RenderPrecision(chosen.precision)
        with self._database.write() as session:
            record_choice(session, chosen)
        return precision

    def _generate(
        self, render: Render, base: BaseModel, lease: Lease, stopping: threading.Event
    ) -> None:
        started = time.monotonic()
        base_models.require_ready(base)
        source = self._read_source(render)
        watch = CancelWatch(self._database, lease, stopping)
        try:
            with watch:
                if render.precision is None:
                    render.precision = self._choose_precision(render, base, lease, stopping, watch)
                warm = self._warm_pipelines()
                pipeline = warm.pipeline(base, RenderPrecision(render.precision))
                needed = 1 if render.weights is None else len(render.weights)
                stacks = [_active(render, index) for index in range(needed)]
                if render.weights is None:
                    pipeline.set_adapters(warm.stack(stacks[0]))
                previews = Previews(pipeline.preview_image)
                with (
                    watch.computing(),
                    RenderProgress(self._database, lease, stopping, previews) as steps,
                    pipeline.stoppable(watch.should_stop),
                ):
                    draw = (
                        pipeline.render
                        if render.weights is None
                        else partial(warm.render_strip, pipeline, stacks=stacks)
                    )
                    drawn = draw(
                        _config(render),
                        source=source,
                        on_step=steps.note,
                        on_preview=previews.note,
                    )
        except RenderCanceled:
            if watch.has_stored_end:
                return
            if stopping.is_set():
                raise WorkerStopping from None
            lease.check()
            with self._database.write() as session:
                jobs.finish(session, Render, lease.claim, JobStatus.CANCELED)
            return
        except (AdapterError, BaseModelError, RenderError) as error:
            self._fail_render(lease, "render", str(error))
            return
        self._store_images(render, base, drawn, lease, time.monotonic() - started)

    def _read_source(self, render: Render) -> Image.Image | None:
        """The image that a render starts from; it was written by Brushwork."""
        if render.source_sha256 is None:
            return None
        with self._store.open(render.source_sha256) as file:
            image = Image.open(file, formats=("PNG",))
            image.load()
            return image

    def _store_images(
        self,
        render: Render,
        base: BaseModel,
        drawn: Sequence[RenderedImage],
        lease: Lease,
        seconds: float,
    ) -> None:
        with self._database.read() as session:
            jobs.is_canceled(session, Render, lease.claim)  # raises LostLease
            used = [
                [_describe_adapter(session, adapter) for adapter in _active(render, index)]
                for index in range(len(drawn))
            ]
        settings = _settings(render)
        request = settings.model_dump(exclude_none=True) | {
            "base": base.name,
            "fingerprint": base.fingerprint,
            "precision": render.precision,
        }
        if render.source_sha256 is not None:
            request["source_sha256"] = render.source_sha256
        images = []
        for index, rendered in enumerate(drawn):
            info = ImageParameters(
                settings.model_copy(update={"seed": rendered.seed}),
                model=base.name,
                model_hash=base.fingerprint,
                precision=render.precision,
                source_sha256=render.source_sha256,
                adapters=used[index],
            )
            stack = [adapter.for_render() for adapter in _active(render, index)]
            own = request | {"seed": rendered.seed, "adapters": stack}
            data = encode_png(rendered.image, info, own)
            blob = self._store.put_bytes(data)
            thumbnail = make_thumbnails(self._store, blob, rendered.image)
            images.append(NewRenderImage(rendered.seed, blob.sha256, thumbnail))
        with self._database.write() as session:
            results.finish_render(
                session,
                lease.claim,
                images,
                seconds=seconds,
                note=_note(render, base, drawn[0].truncated),
                precision=render.precision,
                progress=render.all_steps,
            )
            take_cover(session, render)

    def _warm_pipelines(self) -> WarmPipelines:
        if self._warm is None:
            device = choose_device(self._settings.device)
            with lean_imports(device):
                # here, because it loads torch and diffusers: seconds, on the thread of the job loop
                from worker.runtime.renders.warm_pipelines import WarmPipelines

            self._warm = WarmPipelines(self._settings, self._store, device=device)
        return self._warm

    def _fail_render(self, lease: Lease, code: str, error: str) -> None:
        with self._database.write() as session:
            jobs.finish(
                session, Render, lease.claim, JobStatus.FAILED, error_code=code, error=error
            )


class RenderProgress:
    """Stores the progress of a render with its previews, and checks whether it was canceled.

    A render without progress for minutes hangs in native code, where threads cannot be stopped. The
    process then exits, its lease expires, and the pool starts another process.
    """

    def __init__(
        self,
        database: Database,
        lease: Lease,
        stopping: threading.Event,
        previews: Previews | None = None,
    ) -> None:
        self._database = database
        self._lease = lease
        self._stopping = stopping
        self._previews = previews
        self._reported = 0.0
        self._moved = time.monotonic()
        self._ended = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> RenderProgress:
        self._watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def note(self, done: int, total: int) -> bool:
        """Record a step; False if the render should stop."""
        now = self._moved = time.monotonic()
        if self._stopping.is_set() or self._lease.lost.is_set():
            return False
        if now - self._reported < REPORT_SECONDS:
            return True
        self._reported = now
        try:
            preview = self._previews.take() if self._previews else None
            with self._database.write() as session:
                return results.write_step(session, self._lease.claim, done, preview=preview)
        except sa.exc.SQLAlchemyError as error:
            if reason_to_wait(error) is None:
                raise
            log.warning("Could not store the progress of a render: %s", error)
            return True

    def _watch(self) -> None:
        while not self._ended.wait(WATCH_SECONDS):
            if time.monotonic() - self._moved > STUCK_SECONDS:
                log.critical("A render made no progress for %.0f s; exiting.", STUCK_SECONDS)
                os._exit(STUCK)


def _active(render: Render, index: int = 0) -> list[ResolvedAdapter]:
    """The adapters of one image with a weight other than 0."""
    return [adapter for adapter in render.stack_of(index) if not adapter.is_off]


def _settings(render: Render) -> ImageSettings:
    """The settings of the first image of a render."""
    return ImageSettings.model_validate(render, from_attributes=True)


def _config(render: Render) -> RenderConfig:
    count = 1 if render.weights is not None else render.count
    return RenderConfig(**dict(_settings(render)), count=count)


def _note(render: Render, base: BaseModel, truncated: str) -> str | None:
    """The notes for the user: of the request, on the end that was not read, on lone brackets."""
    end = shorten(truncated, MAX_QUOTED, placeholder=" …")
    notes = [render.note] if render.note else []
    notes += [TRUNCATED.format(end=end)] if end else []
    has_weights = base.options.has_prompt_weights
    notes += parse_prompt(render.prompt, has_weights=has_weights).notes
    if render.guidance > 1:  # else the negative prompt is not read
        notes += parse_prompt(render.negative_prompt, has_weights=has_weights).notes
    return " ".join(dict.fromkeys(notes)) or None


def _describe_adapter(session: Session, adapter: ResolvedAdapter) -> UsedAdapter:
    version = session.get(AdapterVersion, adapter.version_id)
    details = version.details if version is not None else {}
    row = session.get(Adapter, adapter.adapter_id)
    is_step = row is not None and not row.is_listed
    name = file_stem(adapter.slug, adapter.version, is_step=is_step)
    blocks = adapter.block_weights.factors if adapter.block_weights else None
    tensor_hash = details.get("tensor_sha256")
    return UsedAdapter(name, *adapter.weights, tensor_hash=tensor_hash, block_factors=blocks)

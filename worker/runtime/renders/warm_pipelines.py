"""The pipelines and adapters that a render worker holds in memory.

Importing this module loads torch and diffusers.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL.Image import Image

from app.registry.config import Settings
from app.registry.job_kinds.weighted import ResolvedAdapter, in_parts
from app.registry.storage.store import BlobStore
from app.registry.tables.added_models import EMBEDDED, BaseModel, BasePrecision
from app.registry.temporary import temporary_folder
from worker.core import starter
from worker.core.bases.threads import is_small, use_fastest_threads
from worker.core.device import set_threads
from worker.core.inference.batches import Preview
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import (
    RenderedImage,
    ResidentPipeline,
    default_precision,
    weight_bytes,
)
from worker.core.inference.precision import choose_precision
from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS
from worker.core.memory import device_memory
from worker.core.training.memory import release_memory
from worker.core.wording import plural
from worker.core.words import RenderPrecision
from worker.runtime.device import describe_device, describe_processor, identify_machine, threads

PipelineKey = tuple[int, str | None, RenderPrecision]

KEPT_SHARE = 1 / 3
"""The share of the device's memory that all pipelines held take; the rest is for generating images,
the weights that adapters change, and training."""
SHORT_SHARE = 1 / 10
"""With less free memory than this share, only the pipeline in use is held."""
LOADING = 1.5
"""Free memory that loading a pipeline needs, in sizes of its weights."""
KEPT_ADAPTERS = 16
WITH_GUIDANCE = 2  # batch of a render: with and without the prompt


@dataclass
class HeldPipeline:
    """A pipeline in memory, and the CPU threads with which it is the fastest."""

    pipeline: ResidentPipeline
    threads: int
    is_tuned: bool


class WarmPipelines:
    """Loads pipelines and adapters on use and holds the most recent ones.

    A base that is loaded stays until its memory is needed for another one: as many are held as fit
    in KEPT_SHARE of the device's memory, at least one, and the least recently used leaves first.
    When others, such as a training, take the memory, only the one in use stays.
    """

    def __init__(self, settings: Settings, store: BlobStore, *, device: str) -> None:
        self._settings = settings
        self._store = store
        self._pipelines: OrderedDict[PipelineKey, HeldPipeline] = OrderedDict()
        self._adapters: OrderedDict[str, LoraAdapter] = OrderedDict()
        self._device = device
        self._threads = threads(settings.threads)
        self.machine = identify_machine(device, self._threads)
        self.described = ""  # the device, once a pipeline is on it

    def prepare(self, embedded: BaseModel | None, *, is_waiting: Callable[[], bool]) -> None:
        """Load the embedded base model; unless a render is waiting, tune it and render once."""
        if embedded is None:
            ResidentPipeline.load(starter.PATH, self._device, name=EMBEDDED)
            self.described = describe_device(self._device)
            return
        pipeline = self.pipeline(embedded, default_precision(self._device, embedded.options))
        if not is_waiting():
            self.tune()
        if not is_waiting():
            pipeline.render(RenderConfig(prompt="warm", steps=1))
        release_memory()

    def preload(self, base: BaseModel, precision: RenderPrecision) -> bool:
        """Load a base model if it fits beside those that are held; whether it is held now."""
        key = (base.key, base.fingerprint, precision)
        if key not in self._pipelines and self._fits(
            weight_bytes(base.parameters, precision, base.options)
        ):
            self.pipeline(base, precision)
        return key in self._pipelines

    def tune(self) -> None:
        """Find the fastest number of threads for a base model that was just loaded: 0.5 s."""
        for held in self._pipelines.values():
            if not held.is_tuned:
                held.threads = use_fastest_threads(
                    held.pipeline.base, batch_size=WITH_GUIDANCE, at_most=self._threads
                )
                held.is_tuned = True
                self.described = describe_device(self._device)
                release_memory()

    def clear(self) -> None:
        """Release the pipelines and adapters."""
        self._pipelines.clear()
        self._adapters.clear()

    def fixed_precision(self, base: BaseModel) -> RenderPrecision | None:
        """The precision of this base model if there is nothing to choose: on a GPU, and for a small
        base, for which bf16 is slower on every CPU; else None."""
        is_fixed = self._device != "cpu" or is_small(base.parameters)
        return default_precision(self._device, base.options) if is_fixed else None

    def pipeline(self, base: BaseModel, precision: RenderPrecision) -> ResidentPipeline:
        """The pipeline of a base model, loaded if it is not held."""
        key = (base.key, base.fingerprint, precision)
        if key not in self._pipelines:
            self._make_room(weight_bytes(base.parameters, precision, base.options))
            self._pipelines[key] = self._load(base, precision)
        self._pipelines.move_to_end(key)
        while len(self._pipelines) > 1 and self._is_short():
            self._release_oldest()
        held = self._pipelines[key]
        if self._device == "cpu":
            set_threads(held.threads)
        self.described = describe_device(self._device)
        return held.pipeline

    def choose_precision(
        self, base: BaseModel, config: RenderConfig, *, on_call: Callable[[], bool]
    ) -> BasePrecision:
        """Time a base model in fp32 and in bf16, and hold it in the better one.

        `on_call` is called every few seconds; when it returns False, RenderCanceled is raised.
        """
        pipeline = self.pipeline(base, RenderPrecision.FP32)
        _, held = self._pipelines.popitem()  # the last one; it is no longer what its key says
        choice = choose_precision(pipeline, config, on_call=on_call)
        self._pipelines[base.key, base.fingerprint, choice.precision] = held
        width, height = pipeline.image_size(config)
        return self.row_of_choice(base, **asdict(choice), width=width, height=height)

    def row_of_choice(
        self, base: BaseModel, precision: RenderPrecision, **measured: Any
    ) -> BasePrecision:
        """The row of a precision on this machine, with what was measured to choose it."""
        return BasePrecision(
            base_model_id=base.key,
            machine=self.machine,
            fingerprint=base.fingerprint,
            precision=precision,
            processor=self._describe_processor(),
            **measured,
        )

    def _describe_processor(self) -> str:
        if self._device != "cpu":
            return describe_device(self._device)[:80]
        return f"{describe_processor()[:60]}, {plural(self._threads, 'thread')}"

    def _make_room(self, needed: int) -> None:
        """Release the least recently used pipelines until `needed` bytes fit, or none is left."""
        while self._pipelines and not self._fits(needed):
            self._release_oldest()

    def _release_oldest(self) -> None:
        self._pipelines.popitem(last=False)
        gc.collect()  # a pipeline and its networks refer to each other
        release_memory()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _is_short(self) -> bool:
        """True if the device has so little memory that an image could fail."""
        memory = device_memory(self._device)
        return memory is not None and memory.free < SHORT_SHARE * memory.total

    def _fits(self, needed: int) -> bool:
        """True if a pipeline of `needed` bytes can be loaded beside those that are held."""
        memory = device_memory(self._device)
        if memory is None:
            return False
        taken = sum(held.pipeline.memory_bytes for held in self._pipelines.values())
        return taken + needed <= KEPT_SHARE * memory.total and LOADING * needed <= memory.free

    def stack(self, adapters: Sequence[ResolvedAdapter]) -> list[LoadedAdapter]:
        """These adapters with their weights; files of recent renders are still in memory."""
        return [
            LoadedAdapter(
                named.sha256,
                self._adapter(named.sha256),
                *named.weights,
                named.factors_by_part,
            )
            for named in adapters
        ]

    def render_strip(
        self,
        pipeline: ResidentPipeline,
        config: RenderConfig,
        *,
        stacks: Sequence[Sequence[ResolvedAdapter]],
        source: Image | None = None,
        on_step: Callable[[int, int], bool],
        on_preview: Preview,
    ) -> list[RenderedImage]:
        """The image of the config with each of these stacks; see `ResidentPipeline.render_weights`.

        No more different adapters are in use at once than one image can have: with those of more,
        such as the checkpoints of a run, the images are generated in parts.
        """
        total = config.steps_run * len(stacks)
        drawn: list[RenderedImage] = []
        keys = ((stack, {used.sha256 for used in stack}) for stack in stacks)
        for part in in_parts(keys, most=len(stacks), adapters=MAX_RENDER_ADAPTERS):

            def note_step(done: int, _: int, before: int = len(drawn)) -> bool:
                return on_step(before * config.steps_run + done, total)

            def note_preview(first: int, latents: torch.Tensor, before: int = len(drawn)) -> None:
                on_preview(before + first, latents)

            drawn += pipeline.render_weights(
                config,
                [self.stack(stack) for stack in part],
                source=source,
                on_step=note_step,
                on_preview=note_preview,
            )
        return drawn

    def _load(self, base: BaseModel, precision: RenderPrecision) -> HeldPipeline:
        pipeline = ResidentPipeline.load(
            base.location, self._device, precision=precision, name=f"“{base.name}”"
        )
        # until it is tuned, one thread is the fastest for most small base models
        usual = 1 if is_small(pipeline.base.info.parameters) else self._threads
        return HeldPipeline(pipeline, threads=usual, is_tuned=self._device != "cpu")

    def _adapter(self, sha256: str) -> LoraAdapter:
        if sha256 not in self._adapters:
            with temporary_folder(self._settings.scratch, "render-") as scratch:
                path = self._store.local_path(sha256, scratch)
                self._adapters[sha256] = canonical.load_adapter(path)
            if len(self._adapters) > KEPT_ADAPTERS:
                self._adapters.popitem(last=False)
        self._adapters.move_to_end(sha256)
        return self._adapters[sha256]

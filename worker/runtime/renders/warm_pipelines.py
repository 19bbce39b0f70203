"""The pipelines and adapters that a render worker holds in memory.

Importing this module loads torch and diffusers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from app.registry.adapters.weighted import ResolvedAdapter
from app.registry.base_models import service as base_models
from app.registry.base_models.models import EMBEDDED, BaseModel, BasePrecision
from app.registry.config import Settings
from app.registry.storage.store import BlobStore
from app.registry.temporary import temporary_folder
from worker.core import starter
from worker.core.bases.threads import is_small, use_fastest_threads
from worker.core.device import set_threads
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline, default_precision
from worker.core.inference.precision import choose_precision
from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.training.memory import release_memory
from worker.core.wording import plural
from worker.core.words import RenderPrecision
from worker.runtime.device import describe_device, describe_processor, identify_machine, threads

PipelineKey = tuple[int, str | None, RenderPrecision]

KEPT_PIPELINES = 1
KEPT_ADAPTERS = 16
WITH_GUIDANCE = 2  # batch of a render: with and without the prompt


class WarmPipelines:
    """Loads pipelines and adapters on use and holds the most recent ones."""

    def __init__(self, settings: Settings, store: BlobStore, *, device: str) -> None:
        self._settings = settings
        self._store = store
        self._pipelines: OrderedDict[PipelineKey, ResidentPipeline] = OrderedDict()
        self._adapters: OrderedDict[str, LoraAdapter] = OrderedDict()
        self._device = device
        self._threads = threads(settings.threads)
        self._untuned: ResidentPipeline | None = None
        self.machine = identify_machine(device, self._threads)
        self.described = ""  # the device, once a pipeline is on it

    def prepare(self, embedded: BaseModel | None, *, is_waiting: Callable[[], bool]) -> None:
        """Load the embedded base model; unless a render is waiting, tune it and render once."""
        usual = default_precision(self._device)
        if embedded is None:
            self._load(starter.PATH, EMBEDDED, usual)
            return
        pipeline = self.pipeline(embedded, usual)
        if not is_waiting():
            self.tune()
        if not is_waiting():
            pipeline.render(RenderConfig(prompt="warm", steps=1))
        release_memory()

    def tune(self) -> None:
        """Find the fastest number of threads for a base model that was just loaded: 0.5 s."""
        pipeline, self._untuned = self._untuned, None
        if pipeline is not None:
            use_fastest_threads(pipeline.base, batch_size=WITH_GUIDANCE, at_most=self._threads)
            self.described = describe_device(self._device)
            release_memory()

    def clear(self) -> None:
        """Release the pipelines and adapters."""
        self._pipelines.clear()
        self._adapters.clear()
        self._untuned = None

    def fixed_precision(self, base: BaseModel) -> RenderPrecision | None:
        """The precision of this base model if there is nothing to choose: on a GPU, and for a small
        base, for which bf16 is slower on every CPU; else None."""
        is_fixed = self._device != "cpu" or is_small(base.parameters)
        return default_precision(self._device) if is_fixed else None

    def pipeline(self, base: BaseModel, precision: RenderPrecision) -> ResidentPipeline:
        """The pipeline of a base model, loaded if it is not held."""
        key = (base.key, base.fingerprint, precision)
        if key not in self._pipelines:
            self._keep(key, lambda: self._load(base_models.location(base), base.name, precision))
        self._pipelines.move_to_end(key)
        return self._pipelines[key]

    def choose_precision(
        self, base: BaseModel, config: RenderConfig, *, on_call: Callable[[], bool]
    ) -> BasePrecision:
        """Time a base model in fp32 and in bf16, and hold it in the better one.

        `on_call` is called every few seconds; when it returns False, RenderCanceled is raised.
        """
        pipeline = self.pipeline(base, RenderPrecision.FP32)
        self._pipelines.clear()  # it is no longer what its key says
        choice = choose_precision(pipeline, config, on_call=on_call)
        key = (base.key, base.fingerprint, choice.precision)
        self._keep(key, lambda: pipeline)
        width, height = pipeline.image_size(config)
        return BasePrecision(
            base_model_id=base.key,
            machine=self.machine,
            fingerprint=base.fingerprint,
            precision=choice.precision,
            processor=self._describe_processor(),
            width=width,
            height=height,
            fp32_seconds=choice.fp32_seconds,
            bf16_seconds=choice.bf16_seconds,
            step_effect=choice.step_effect,
        )

    def unmeasured_choice(self, base: BaseModel, precision: RenderPrecision) -> BasePrecision:
        """The row of a precision that was not chosen by timing."""
        return BasePrecision(
            base_model_id=base.key,
            machine=self.machine,
            fingerprint=base.fingerprint,
            precision=precision,
            processor=self._describe_processor(),
        )

    def _describe_processor(self) -> str:
        if self._device != "cpu":
            return describe_device(self._device)[:80]
        return f"{describe_processor()[:60]}, {plural(self._threads, 'thread')}"

    def _keep(self, key: PipelineKey, make: Callable[[], ResidentPipeline]) -> None:
        """Hold a pipeline; the oldest ones are released before it is made."""
        while len(self._pipelines) >= KEPT_PIPELINES:
            self._pipelines.popitem(last=False)
        self._pipelines[key] = make()

    def stack(self, adapters: Sequence[ResolvedAdapter]) -> list[LoadedAdapter]:
        """These adapters with their weights; files of recent renders are still in memory."""
        return [
            LoadedAdapter(named.sha256, self._adapter(named.sha256), *named.weights)
            for named in adapters
        ]

    def _load(self, path: Path, name: str, precision: RenderPrecision) -> ResidentPipeline:
        pipeline = ResidentPipeline.load(path, self._device, precision=precision, name=f"“{name}”")
        if self._device == "cpu":
            self._untuned = pipeline
            # until it is tuned, what is the fastest for most small base models
            set_threads(1 if is_small(pipeline.base.info.parameters) else self._threads)
        self.described = describe_device(self._device)
        return pipeline

    def _adapter(self, sha256: str) -> LoraAdapter:
        if sha256 not in self._adapters:
            with temporary_folder(self._settings.scratch, "render-") as scratch:
                path = self._store.local_path(sha256, scratch)
                self._adapters[sha256] = canonical.load_adapter(path)
            if len(self._adapters) > KEPT_ADAPTERS:
                self._adapters.popitem(last=False)
        self._adapters.move_to_end(sha256)
        return self._adapters[sha256]

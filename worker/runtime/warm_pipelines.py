"""The pipelines and adapters that a render worker holds in memory.

Importing this module loads torch and diffusers.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from app.registry.adapters.weighted import ResolvedAdapter
from app.registry.base_models import service as base_models
from app.registry.base_models.models import BaseModel
from app.registry.config import Settings
from app.registry.storage.store import BlobStore
from worker.core import starter
from worker.core.bases.threads import is_small, use_fastest_threads
from worker.core.device import set_threads
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.training.memory import release_memory
from worker.runtime import device

KEPT_PIPELINES = 1
KEPT_ADAPTERS = 16
WITH_GUIDANCE = 2  # batch of a render: with and without the prompt


class WarmPipelines:
    """Loads pipelines and adapters on use and holds the most recent ones."""

    def __init__(self, settings: Settings, store: BlobStore, *, device: str) -> None:
        self._settings = settings
        self._store = store
        self._pipelines: OrderedDict[tuple[int, str | None], ResidentPipeline] = OrderedDict()
        self._adapters: OrderedDict[str, LoraAdapter] = OrderedDict()
        self._device = device
        self._untuned: ResidentPipeline | None = None
        self.described = ""  # the device, once a pipeline is on it

    def prepare(self, embedded: BaseModel | None, *, is_waiting: Callable[[], bool]) -> None:
        """Load the embedded base model; unless a render is waiting, tune it and render once."""
        if embedded is None:
            self._load(starter.PATH, base_models.EMBEDDED)
            return
        pipeline = self.pipeline(embedded)
        if not is_waiting():
            self.tune()
        if not is_waiting():
            pipeline.render(RenderConfig(prompt="warm", steps=1))
        release_memory()

    def tune(self) -> None:
        """Find the fastest number of threads for a base model that was just loaded: 0.5 s."""
        pipeline, self._untuned = self._untuned, None
        if pipeline is not None:
            at_most = device.threads(self._settings.threads)
            use_fastest_threads(pipeline.base, batch_size=WITH_GUIDANCE, at_most=at_most)
            self.described = device.describe_device(self._device)
            release_memory()

    def clear(self) -> None:
        """Release the pipelines and adapters."""
        self._pipelines.clear()
        self._adapters.clear()
        self._untuned = None

    def pipeline(self, base: BaseModel) -> ResidentPipeline:
        """The pipeline of a base model, loaded if it is not held."""
        key = (base.key, base.fingerprint)
        if key not in self._pipelines:
            while len(self._pipelines) >= KEPT_PIPELINES:
                self._pipelines.popitem(last=False)
            self._pipelines[key] = self._load(base_models.location(base), base.name)
        self._pipelines.move_to_end(key)
        return self._pipelines[key]

    def stack(self, adapters: Sequence[ResolvedAdapter]) -> list[LoadedAdapter]:
        """These adapters with their weights; files of recent renders are still in memory."""
        return [
            LoadedAdapter(named.sha256, self._adapter(named.sha256), *named.weights)
            for named in adapters
        ]

    def _load(self, path: Path, name: str) -> ResidentPipeline:
        pipeline = ResidentPipeline.load(path, self._device, name=f"“{name}”")
        if self._device == "cpu":
            self._untuned = pipeline
            # until it is tuned, what is the fastest for most small base models
            set_threads(1 if is_small(pipeline.base) else device.threads(self._settings.threads))
        self.described = device.describe_device(self._device)
        return pipeline

    def _adapter(self, sha256: str) -> LoraAdapter:
        if sha256 not in self._adapters:
            with tempfile.TemporaryDirectory() as scratch:
                path = self._store.local_path(sha256, Path(scratch))
                self._adapters[sha256] = canonical.load_adapter(path)
            if len(self._adapters) > KEPT_ADAPTERS:
                self._adapters.popitem(last=False)
        self._adapters.move_to_end(sha256)
        return self._adapters[sha256]

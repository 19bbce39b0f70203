"""Writes and verifies downloads with torch, in the trainer process or the io worker.

The last part of a file's proof: the installed diffusers loads it and generates an image. Every file
is loaded into the layers of its base, which need no weights for that. A small base (such as the
embedded one) is loaded with its weights: they must change as the adapter defines, and the image
must equal that of our own pipeline.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import COMPONENTS, LoadedBase, load_base, make_source
from worker.core.bases.weights import build_module
from worker.core.families.adapter_files import adapted_components, files_of
from worker.core.families.family import BaseFamily
from worker.core.inference.config import RenderConfig
from worker.core.inference.errors import RenderError
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.lora_files import canonical
from worker.core.lora_files.algebra import one_thread
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.compatible import adaptable_layers, mismatched_modules
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.export import export, with_whole_layers
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.lora_files.proof.check import ONE_THREAD_PARAMETERS
from worker.core.lora_files.proof.loaders import DIFFUSERS
from worker.core.lora_files.proof.loading import (
    DiffusersRefusal,
    load_with_diffusers,
    measure_loaded_adapter,
    strip_weights,
)
from worker.core.lora_files.proof.result import DiffusersLoad, ImageComparison, Proof
from worker.core.words import FileFormat
from worker.runtime.messages import Export, ExportFile

MOMENT_BYTES = 256 * 1024**2  # of a base's files
MOMENT_PIXELS = 128  # of its native side
STEPS, SEED, SUBJECT = 4, 0, "castle"
DIFFERENCE_LIMITS = {"fp16": 8, "bf16": 32, "fp32": 2}  # of 255 levels

NO_LAYERS = (
    "Its base model is missing, and the adapter does not fit the published layers of its family. "
    "Add the base model again to have the file loaded."
)
NO_COMPARISON = (
    "at full weight, this adapter produces NaNs on its base model in every program. Use a lower "
    "weight."
)
PRODUCES_NANS = (
    "Loaded by diffusers, this file produces NaNs, although the adapter itself does not. Choose "
    "fp32 for this adapter."
)


class Prover:
    """Loads the files of one adapter with diffusers; the base is prepared once.

    `base`: the path of the base. Without it, or if it cannot be read, the published layers of the
    family are used.
    """

    def __init__(self, base: Path | None, family: BaseFamily, triggers: tuple[str, ...]) -> None:
        self._path = base
        self._family = family
        self._adapted = adapted_components(family)
        self._prompt = ", ".join((SUBJECT, *triggers))
        self._images: dict[str, np.ndarray[Any, Any]] = {}

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The weight shapes of the base model's layers, by canonical key."""
        return {
            f"{component}.{path}": tuple(layer.weight.shape)  # type: ignore[arg-type]
            for component, part in self._components.items()
            for path, layer in adaptable_layers(component, part).items()
        }

    def shapes_for(self, adapter: LoraAdapter) -> Mapping[str, tuple[int, ...]]:
        """The base's shapes; empty if the adapter does not fit them, as its own base is missing."""
        return {} if mismatched_modules(adapter, self.shapes) else self.shapes

    def prove(self, path: Path, adapter: LoraAdapter, proof: Proof) -> Proof:
        """The proof with the result of loading the file with diffusers, and its failures."""
        own_rule = next(result for result in proof.loaders if result.name == DIFFUSERS.name)
        if not own_rule.needed:
            return proof  # the loader's rule gives the reason
        if mismatched_modules(adapter, self.shapes):
            return replace(proof, not_loaded=NO_LAYERS)
        failures = list(proof.failures)
        comparison, reason = None, ""
        try:
            with one_thread(when=adapter.parameters <= ONE_THREAD_PARAMETERS):
                self._generate_references(adapter)
                with load_with_diffusers(path, self._components, self._family):
                    loaded = measure_loaded_adapter(adapter, self._components)
                    if self._small_base is not None:
                        moved = measure_loaded_adapter(adapter, self._components, weights=True)
                        loaded = max(loaded, moved, key=lambda found: found.worst_error)
                        loaded = replace(loaded, weights=True)
                        comparison, reason, fault = self._compare_images(
                            self._generate_image(), proof.dtype
                        )
                        failures += fault
        except DiffusersRefusal as error:
            return replace(proof, failures=[*failures, f"diffusers cannot load it: {error}"])
        failures += _loading_faults(loaded, comparison, proof.read_back.limit)
        return replace(proof, loaded=loaded, drawn=comparison, not_drawn=reason, failures=failures)

    @cached_property
    def _small_base(self) -> LoadedBase | None:
        """The base with its weights if it is small, else None."""
        if self._path is None:
            return None
        try:
            info = inspect_base(self._path)
            if info.size_bytes > MOMENT_BYTES or info.resolution > MOMENT_PIXELS:
                return None
            return load_base(self._path)
        except BaseModelError:
            return None

    @cached_property
    def _components(self) -> dict[str, nn.Module]:
        if self._small_base is not None:
            parts = self._small_base.adaptable()
            return {name: part for name, part in parts.items() if name in self._adapted}
        configs = self._component_configs() or files_of(self._family).networks
        return {name: strip_weights(build_module(*config)) for name, config in configs.items()}

    def _component_configs(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """(class, config) of the base's own components; empty if it cannot be read."""
        if self._path is None:
            return {}
        try:
            info = inspect_base(self._path)
            source = make_source(info)
            names = [name for name in COMPONENTS if name in self._adapted & info.parameters.keys()]
            return {name: source.config(name) for name in names}
        except BaseModelError:
            return {}

    def _generate_references(self, adapter: LoraAdapter) -> None:
        """Generate images with and without the canonical adapter, once for all its files."""
        if self._small_base is None or "own" in self._images:
            return
        pipeline = ResidentPipeline(self._small_base)
        for name, stack in (("own", [LoadedAdapter("proof", adapter)]), ("plain", [])):
            pipeline.set_adapters(stack)
            image = self._generate_image(pipeline)
            if image is not None:
                self._images[name] = image

    def _generate_image(
        self, pipeline: ResidentPipeline | None = None
    ) -> np.ndarray[Any, Any] | None:
        """An image with the current state of the base; None if it produces NaNs."""
        assert self._small_base is not None
        sampler, *_ = self._family.facts.options.samplers
        config = RenderConfig(prompt=self._prompt, steps=STEPS, seed=SEED, sampler=sampler)
        try:
            # a new pipeline has no cached prompt: the text encoder may have changed
            (comparison,) = (pipeline or ResidentPipeline(self._small_base)).render(config)
        except RenderError:
            return None
        return np.asarray(comparison.image, dtype=np.int16)

    def _compare_images(
        self, image: np.ndarray[Any, Any] | None, dtype: str
    ) -> tuple[ImageComparison | None, str, list[str]]:
        """(the comparison, the reason why there is none, failures of the file)."""
        if len(self._images) < 2:  # the adapter itself produces NaNs in every program
            return None, NO_COMPARISON, []
        if image is None:
            return None, "", [PRODUCES_NANS]
        own, plain = self._images["own"], self._images["plain"]
        comparison = ImageComparison(
            prompt=self._prompt,
            seed=SEED,
            difference=int(abs(image - own).max()),
            effect=int(abs(plain - own).max()),
            limit=DIFFERENCE_LIMITS[dtype],
        )
        return comparison, "", []


def _loading_faults(
    loaded: DiffusersLoad, comparison: ImageComparison | None, limit: float
) -> list[str]:
    faults = []
    if loaded.worst_error > limit:
        faults.append(
            f"diffusers {loaded.diffusers} loads {loaded.worst_module} with a relative error of "
            f"{loaded.worst_error:.2g}; at most {limit:g} is accepted."
        )
    if comparison is not None and comparison.difference > comparison.limit:
        faults.append(
            f"An image generated with the file differs by up to {comparison.difference} of 255 "
            f"levels; at most {comparison.limit} are accepted."
        )
    return faults


def write_downloads(path: Path, order: Export) -> list[ExportFile]:
    """Write and verify every file of the order from the canonical adapter at `path`.

    A file that fails verification is deleted; its `problem` gives the reason. Raises AdapterError
    if the canonical file is damaged.
    """
    metadata = order.metadata
    adapter = with_whole_layers(canonical.load_adapter(path), metadata.family)
    prover = Prover(order.base, metadata.family, metadata.trigger_words)
    written = []
    for file in order.files:
        try:
            proof = _write_file(adapter, file, metadata, prover)
            written.append(replace(file, proof=proof))
        except AdapterError as error:
            file.path.unlink(missing_ok=True)
            written.append(replace(file, problem=str(error)))
    return written


def _write_file(
    adapter: LoraAdapter, file: ExportFile, metadata: AdapterMetadata, prover: Prover
) -> dict[str, object]:
    proof = export(
        adapter,
        file.path,
        format=file.format,
        dtype=file.dtype,
        metadata=metadata,
        shapes=prover.shapes_for(adapter),
    )
    with _weights_file(file) as weights:
        proof = prover.prove(weights, adapter, proof)
    if not proof.passed:
        raise AdapterError(proof.failures[0])
    return proof.as_json()


@contextmanager
def _weights_file(file: ExportFile) -> Iterator[Path]:
    """The safetensors file of a download: itself, or the one in a bundle."""
    if file.format is not FileFormat.BUNDLE:
        yield file.path
        return
    folder = tempfile.TemporaryDirectory(dir=file.path.parent)
    with folder as place, zipfile.ZipFile(file.path) as bundle:
        name = next(n for n in bundle.namelist() if n.endswith(".safetensors"))
        yield Path(bundle.extract(name, place))

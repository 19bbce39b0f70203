"""The tensors of a base model by module, read one at a time from a folder or a single file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import Tensor

from worker.core.bases.family import BaseInfo, BaseModelError
from worker.core.bases.folder import FolderSource, possible_names
from worker.core.bases.inspect import MAX_HEADER_BYTES, component_files, inspect_base
from worker.core.bases.ldm import SingleFileSource
from worker.core.bases.load import COMPONENTS, Source, make_source
from worker.core.bases.weights import build_module
from worker.core.families.adapter_files import adapted_components
from worker.core.lora_files.compatible import adaptable_layers
from worker.core.lora_files.tools.ldm_names import LdmNames, LdmTensor, ldm_names
from worker.core.safetensors_header import Header, read_header

TensorName = tuple[str, str]
"""(component, name of the tensor in its module)."""


@dataclass(frozen=True)
class TensorLocation:
    """The location of a module's tensor; `shape` is that of the module."""

    file: Path
    place: LdmTensor
    shape: tuple[int, ...]


class BaseCheckpoint:
    """A base model with its headers read and its weights on disk; files stay open until `close`.

    `tensors`: every tensor of its modules by (component, name). `targets`: the weights that
    adapters change, by canonical key. `headers`: those of all weight files.
    """

    def __init__(self, path: Path) -> None:
        self.info: BaseInfo = inspect_base(path)
        self.source: Source = make_source(self.info)
        self.modules: dict[str, dict[str, tuple[int, ...]]] = {}
        self.targets: dict[str, TensorName] = {}
        self.headers: dict[Path, Header] = {}
        self.files: dict[str, list[Path]] = {}
        self._open: dict[Path, Any] = {}
        self._stack = ExitStack()
        for component in COMPONENTS:
            if component in self.info.parameters:
                self._inspect_module(component)
        if isinstance(self.source, SingleFileSource):
            self.tensors = self._find_in_single_file(self.source)
        else:
            self.tensors = self._find_in_folder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stack.close()
        self._open.clear()

    @property
    def target_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight that adapters can change, by canonical key."""
        return {key: self.tensors[name].shape for key, name in self.targets.items()}

    def read(self, name: TensorName) -> Tensor:
        """A module's tensor in the stored number type and the module's shape."""
        stored = self.tensors[name]
        tensor = self.read_stored(stored.file, stored.place.name)
        if stored.place.third is not None:
            tensor = tensor.chunk(3)[stored.place.third]
        if stored.place.transposed:
            tensor = tensor.T
        return tensor.reshape(stored.shape)

    def read_stored(self, file: Path, name: str) -> Tensor:
        """A tensor of a file, by its name in the file."""
        if file not in self._open:
            opened = safe_open(file, framework="pt", device="cpu")
            self._open[file] = self._stack.enter_context(opened)
        tensor: Tensor = self._open[file].get_tensor(name)
        return tensor

    def _inspect_module(self, component: str) -> None:
        """Find the tensors and layers of a module from its config alone."""
        module = build_module(*self.source.config(component))
        self.modules[component] = {n: tuple(t.shape) for n, t in module.state_dict().items()}
        if component not in adapted_components(self.info.family):
            return
        names = {id(layer): name for name, layer in module.named_modules()}
        for path, layer in adaptable_layers(component, module).items():
            self.targets[f"{component}.{path}"] = (component, f"{names[id(layer)]}.weight")

    def _find_in_folder(self) -> dict[TensorName, TensorLocation]:
        assert isinstance(self.source, FolderSource)
        found: dict[TensorName, TensorLocation] = {}
        for component, shapes in self.modules.items():
            self.files[component] = component_files(
                self.info.path, self.source.kind.folders[component]
            )
            for file in self.files[component]:
                self.headers[file] = read_header(file, limit=MAX_HEADER_BYTES)
                for stored in self.headers[file].tensors:
                    if name := next((n for n in possible_names(stored) if n in shapes), None):
                        found[component, name] = TensorLocation(
                            file, LdmTensor(stored), shapes[name]
                        )
        self._check_complete(found)
        return found

    def _find_in_single_file(self, source: SingleFileSource) -> dict[TensorName, TensorLocation]:
        path = self.info.path
        self.headers[path] = read_header(path, limit=MAX_HEADER_BYTES)
        names = self.names_in_file(source)
        found = {
            (component, name): TensorLocation(path, names.of(component, name), shape)
            for component, shapes in self.modules.items()
            for name, shape in shapes.items()
        }
        for name, stored in found.items():  # encoders with and without `text_model.`
            short = stored.place.name.replace(".text_model.", ".", 1)
            known = self.headers[path].tensors
            if stored.place.name not in known and short in known:
                found[name] = TensorLocation(path, LdmTensor(short), stored.shape)
        self._check_complete(found)
        return found

    def names_in_file(self, source: SingleFileSource) -> LdmNames:
        """The names of the tensors in the single file."""
        prefixes = {c: source.prefix(c) for c in self.modules if c.startswith("text_encoder")}
        names = self.headers[self.info.path].tensors
        open_clip = [c for c, p in prefixes.items() if f"{p}positional_embedding" in names]
        return ldm_names(self.modules, open_clip=open_clip, prefixes=prefixes)

    def _check_complete(self, found: Mapping[TensorName, TensorLocation]) -> None:
        """Raise BaseModelError if a tensor is missing or its size differs from the module's."""
        for component, shapes in self.modules.items():
            for name, shape in shapes.items():
                stored = found.get((component, name))
                entry = stored and self.headers[stored.file].tensors.get(stored.place.name)
                if stored is None or entry is None:
                    raise BaseModelError(
                        f"The base model is incomplete: {component} has no {name}."
                    )
                size = torch.Size(entry.shape).numel() // (1 if stored.place.third is None else 3)
                if size != torch.Size(shape).numel():
                    raise BaseModelError(
                        f"The base model's {name} in {component} has the shape {entry.shape}; "
                        f"its config says {shape}."
                    )

    def by_stored_name(self) -> dict[tuple[Path, str], list[TensorName]]:
        """The module tensors that each stored tensor contains, by (file, stored name)."""
        found: dict[tuple[Path, str], list[TensorName]] = defaultdict(list)
        for name, stored in self.tensors.items():
            found[stored.file, stored.place.name].append(name)
        return found

"""Builds modules without initializing weights, and fills them from safetensors files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, ZImageTransformer2DModel
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import read_base_header
from worker.core.torch_dtypes import SAFETENSORS_DTYPES

StateDict = dict[str, Tensor]
CHUNK_BYTES = 8 * 2**20  # read at once for a tensor that is cast
_DIFFUSERS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        UNet2DConditionModel,
        ZImageTransformer2DModel,
        AutoencoderKL,
        AutoencoderTiny,
    )
}
_TRANSFORMERS: dict[str, Any] = {
    kind.__name__: kind for kind in (CLIPTextModel, CLIPTextModelWithProjection)
}
_RARE = {
    "Qwen3Model": "transformers",
    "Flux2Transformer2DModel": "diffusers",
    "PackedAutoencoder": "worker.core.families.klein.autoencoder",
}
"""Where classes are that are imported when a base has one."""
_NUMPY_DTYPES = {torch.float16: np.float16, torch.float32: np.float32}
RANDOM_FILLS = frozenset(
    {Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_}
)
_preloaded: dict[tuple[Path, int], np.ndarray[Any, np.dtype[np.float32]]] = {}


class WithoutInitialization(TorchFunctionMode):
    """A context in which tensors are not filled with random numbers, and ranges are on the CPU.

    On the meta device both have no values, but torch loads sympy to find their type (30 MB). From
    a range comes every buffer that no file stores, such as the frequencies of rotary positions.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the function; a random fill returns its tensor as it is."""
        kwargs = kwargs or {}
        if func in RANDOM_FILLS:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func is torch.arange:
            kwargs = {"device": "cpu"} | kwargs
        return func(*args, **kwargs)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file, `offset` bytes after its beginning."""

    file: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def read(self, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor in `dtype`, by default and for integers as it is stored.

        Raises BaseModelError.

        The bytes are read straight into the result, or piece by piece if it has another type: a
        mapped file would count as memory of the process, besides the tensors copied from it.
        """
        if dtype is None or not self.dtype.is_floating_point:
            dtype = self.dtype
        if dtype is torch.float32:
            # given out once, because who reads a tensor may change it
            array = _preloaded.pop((self.file, self.offset), None)
            if array is not None:
                return torch.from_numpy(array).view(self.shape)
        tensor = torch.empty(self.shape, dtype=dtype)
        try:
            with self.file.open("rb", buffering=0) as content:
                content.seek(self.offset)
                self._read_into(tensor.view(-1), content)
        except OSError as error:
            raise BaseModelError(
                f"The base model's {self.file.name} cannot be read: {error.strerror}."
            ) from error
        return tensor

    def _read_into(self, flat: Tensor, content: BinaryIO) -> None:
        if flat.dtype == self.dtype:
            _read_bytes(content, flat)
            return
        piece = torch.empty(CHUNK_BYTES // self.dtype.itemsize, dtype=self.dtype)
        for target in torch.split(flat, len(piece)):
            stored = piece[: len(target)]
            _read_bytes(content, stored)
            target.copy_(stored)


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, in the order of their bytes.

    Tensors whose number type torch lacks are left out; no base model needs them.
    """
    header = read_base_header(file)
    return {
        name: StoredTensor(
            file, header.data_offset + entry.start, SAFETENSORS_DTYPES[entry.dtype], entry.shape
        )
        for name, entry in sorted(header.tensors.items(), key=lambda item: item[1].start)
        if entry.dtype in SAFETENSORS_DTYPES
    }


def preload_fp32(files: Iterable[Path]) -> None:
    """Keep the tensors of safetensors files in memory as fp32, for the next load of each.

    A process calls this before it forks others that load these files: they share the memory of
    what they do not change. It uses numpy, because a process that has run an operation of torch
    must not fork. Raises BaseModelError, and OSError if a file cannot be read.
    """
    for file in files:
        content = file.read_bytes()
        for stored in stored_tensors(file).values():
            if (kind := _NUMPY_DTYPES.get(stored.dtype)) is not None:
                count = prod(stored.shape)
                values = np.frombuffer(content, kind, count=count, offset=stored.offset)
                _preloaded[file, stored.offset] = values.astype(np.float32)


def _known(kind: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that the class reads: diffusers warns of the rest and ignores it."""
    names = signature(kind.__init__).parameters
    return {name: value for name, value in config.items() if name in names or name[:1] == "_"}


def build_module(kind: str, config: dict[str, Any]) -> nn.Module:
    """A module of class `kind` whose weights have no memory yet (on torch's meta device)."""
    if kind in _RARE:
        of_text = _RARE[kind] == "transformers"
        known = _TRANSFORMERS if of_text else _DIFFUSERS
        known[kind] = getattr(import_module(_RARE[kind]), kind)
    try:
        with torch.device("meta"), WithoutInitialization():
            if kind in _TRANSFORMERS:
                model = _TRANSFORMERS[kind]
                return model(model.config_class(**config))  # type: ignore[no-any-return]
            if kind in _DIFFUSERS:
                model = _DIFFUSERS[kind]
                return model.from_config(_known(model, config))  # type: ignore[no-any-return]
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise BaseModelError(
            f"The config of the base model's {kind} is invalid. Use another model."
        ) from error
    raise BaseModelError(f"The component class {kind[:60]!r} is not supported. Use another model.")


def fill_weights(module: nn.Module, weights: StateDict, component: str) -> None:
    """Load the weights into `module`; BaseModelError when some are missing or have other shapes."""
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in weights:
            raise BaseModelError(
                f"The base model is incomplete: {component} has no {name}. Use another."
            )
        if weights[name].shape != tensor.shape:
            raise BaseModelError(
                f"{name} in the base model's {component} has the shape "
                f"{tuple(weights[name].shape)}, but its config needs {tuple(tensor.shape)}. Use "
                "another model."
            )
    module.load_state_dict({name: weights[name] for name in expected}, assign=True)
    for name, buffer in module.named_buffers():
        if buffer.is_meta:  # no file stores it, and the module did not compute it
            raise BaseModelError(
                f"The values of {name} in the base model's {component} are unknown. Use another "
                "model."
            )
    module.requires_grad_(False)
    module.eval()


def _read_bytes(content: BinaryIO, flat: Tensor) -> None:
    """Fill a tensor of one dimension with the next bytes of the file."""
    if not flat.numel():
        return
    target = flat.view(torch.uint8).numpy().data
    while target:
        count = content.readinto(target)  # type: ignore[attr-defined]
        if not count:
            raise BaseModelError(
                "A file of the base model ended early: it was changed while it was read. Try again."
            )
        target = target[count:]

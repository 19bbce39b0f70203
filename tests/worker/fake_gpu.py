"""A fake GPU: tensors sent to "cuda" stay where they are, but must not meet those of the host.

It finds the code that forgets to move a tensor, which runs on every machine without a GPU and
fails on every one with a GPU. Every operation passes through Python, so models must be small.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA, HOST = torch.device("cuda", 0), torch.device("cpu")
COPY = "aten::copy_"  # into a tensor of any place
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class WrongDeviceError(RuntimeError):
    """Tensors of the host and of the fake GPU met in one operation."""


class _Memory:
    """Which storages lie on the fake GPU."""

    def __init__(self) -> None:
        self._there: dict[int, StorageWeakRef] = {}  # a weak reference keeps its number from reuse

    def holds(self, tensor: Tensor) -> bool:
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage()._cdata in self._there

    def put(self, tensor: Tensor) -> None:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
        if storage._cdata not in self._there:
            self._there[storage._cdata] = StorageWeakRef(storage)

    def take(self, tensor: Tensor) -> None:
        with torch._C.DisableTorchFunction():
            self._there.pop(tensor.untyped_storage()._cdata, None)


class _Operations(TorchDispatchMode):
    """Refuses operations on tensors of both places; what comes out lies where it came from."""

    def __init__(self, memory: _Memory) -> None:
        super().__init__()
        self._memory = memory

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if self._memory.holds(tensor)]
        if name in INDEXED and there and self._memory.holds(args[0]):
            pass  # the indices may be anywhere
        elif name != COPY and there:
            here = [t for t in tensors if t.dim() and not self._memory.holds(t)]
            if here:
                raise WrongDeviceError(
                    f"{name}: {[tuple(t.shape) for t in here]} of the host meet "
                    f"{[tuple(t.shape) for t in there]} of the GPU."
                )
        out = func(*args, **(kwargs or {}))
        if there and name != COPY:
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    self._memory.put(leaf)
        return out


class _Calls(TorchFunctionMode):
    """Carries out what names the fake device: moves, new tensors, and the question where."""

    def __init__(self, memory: _Memory) -> None:
        super().__init__()
        self._memory = memory

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return CUDA if self._memory.holds(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:
            return self._memory.holds(args[0])
        if func in (Tensor.numpy, Tensor.__array__) and self._memory.holds(args[0]):
            raise WrongDeviceError("A tensor of the GPU has no numpy array; move it first.")
        if func in (Tensor.to, Tensor.cuda, Tensor.cpu):
            return self._moved(func, args, kwargs)
        if func is Tensor.__deepcopy__:
            copy = func(*args, **kwargs)
            return self._placed(copy, there=self._memory.holds(args[0]))
        if func is torch._C._nn.pad_sequence:  # makes its tensor where the first one lies
            return self._placed(func(*args, **kwargs), there=self._memory.holds(args[0][0]))
        wanted = kwargs.get("device")
        if wanted is None:
            return func(*args, **kwargs)
        there = torch.device(wanted).type == "cuda"
        made = func(*args, **(kwargs | {"device": HOST}))
        return self._placed(made, there=there) if isinstance(made, Tensor) else made

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        tensor, *rest = args
        copy = bool(kwargs.pop("copy", False))
        if func is not Tensor.to:
            device: torch.device | None = CUDA if func is Tensor.cuda else HOST
            dtype = None
        elif rest and isinstance(rest[0], Tensor):
            device, dtype = (CUDA if self._memory.holds(rest[0]) else HOST), rest[0].dtype
        else:
            device, dtype, *_ = torch._C._nn._parse_to(*rest, **kwargs)
        was = self._memory.holds(tensor)
        there = was if device is None else device.type == "cuda"
        out: Tensor = tensor.to(dtype=dtype or tensor.dtype, copy=copy)
        if there != was and out.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            out = out.clone()
        return self._placed(out, there=there)

    def _placed(self, tensor: Tensor, *, there: bool) -> Tensor:
        (self._memory.put if there else self._memory.take)(tensor)
        return tensor


def _on_host(made: Callable[..., Any]) -> Callable[..., Any]:
    """A class or function that only knows real devices, made on the host instead."""

    @functools.wraps(made, updated=())
    def make(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return made("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return make


@contextmanager
def fake_gpu() -> Iterator[None]:
    """The device "cuda" for as long as the context lasts."""
    memory = _Memory()
    with (
        mock.patch.object(torch, "autocast", _on_host(torch.autocast)),
        mock.patch.object(torch.amp, "GradScaler", _on_host(torch.amp.GradScaler)),
        mock.patch.object(torch.cuda, "max_memory_allocated", return_value=0),
        mock.patch.object(torch.cuda, "is_bf16_supported", return_value=True),
        _Operations(memory),
        _Calls(memory),
    ):
        yield

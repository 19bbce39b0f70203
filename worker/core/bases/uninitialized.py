"""Builds modules on the meta device without what has no effect there, but loads sympy: 0.6 s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

RANDOM_FILLS = frozenset(
    {Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_}
)


class WithoutInitialization(TorchFunctionMode):
    """A context in which tensors are not filled with random numbers, and ranges are on the CPU.

    On the meta device both have no values, but torch loads sympy to find their type (30 MB).
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
        if func is torch.arange:  # CLIP's position_ids, a buffer that no file stores
            kwargs = {"device": "cpu"} | kwargs
        return func(*args, **kwargs)

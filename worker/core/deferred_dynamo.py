"""Keeps `torch._dynamo`, the front end of torch's compiler, from being imported until it is used.

diffusers, transformers and torch's optimizers import it only to mark functions for the compiler.
That costs 1 s of CPU time and 60 MB, which a process that never compiles need not pay.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

NAME = "torch._dynamo"
WRAPPED_OPERATORS = f"{NAME}._trace_wrapped_higher_order_op"


def defer_dynamo() -> None:
    """Install the stand-in, unless the real module is loaded; for processes that never compile.

    Whatever the stand-in does not have loads the real module, which then takes its place.
    """
    if NAME in sys.modules:
        return
    import torch  # here, so that a process chooses by its device whether to load torch this way

    sys.modules[NAME] = torch._dynamo = DeferredDynamo()
    sys.modules[WRAPPED_OPERATORS] = _wrapped_operators()
    sys.meta_path.insert(0, _SubmoduleFinder())


class DeferredDynamo(ModuleType):
    """`torch._dynamo` with what marks functions for a compiler, without the compiler."""

    def __init__(self) -> None:
        super().__init__(NAME, __doc__)
        self.__path__: list[str] = []
        self._allowed: list[Any] = []
        self._disabled: list[Any] = []

    def allow_in_graph(self, fn: Any) -> Any:
        """Remember the function or class; the real module gets it when it is loaded."""
        self._allowed.append(fn)
        return fn

    def disable(self, fn: Any = None, *_: object, **__: object) -> Any:
        """Return the function, or a decorator that does."""
        if fn is None:
            return self.disable
        self._disabled.append(fn)
        return fn

    @staticmethod
    def assume_constant_result(fn: Any) -> Any:
        """Set the mark that the real module reads."""
        fn._dynamo_marked_constant = True
        return fn

    @staticmethod
    def graph_break(*_: object, **__: object) -> None:
        """Do nothing, as the real one does outside of a compiled function."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system and by `inspect`
            raise AttributeError(name)
        return getattr(load_dynamo(), name)


def load_dynamo() -> ModuleType:
    """The real module, loaded in place of the stand-in; it learns of the marks made so far."""
    stand_in = sys.modules.get(NAME)
    if not isinstance(stand_in, DeferredDynamo):
        return importlib.import_module(NAME)
    import torch

    for name in (NAME, WRAPPED_OPERATORS):
        del sys.modules[name]
    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _SubmoduleFinder)]
    del torch._dynamo
    dynamo = importlib.import_module(NAME)
    for allowed in stand_in._allowed:
        dynamo.allow_in_graph(allowed)
    for disabled in stand_in._disabled:
        # torch keeps the answer of `disable` here: it must ask again
        vars(disabled).pop("__dynamo_disable", None)
    return dynamo


def _wrapped_operators() -> ModuleType:
    """The module from which transformers takes a context manager for masks that it never uses."""
    module = ModuleType(WRAPPED_OPERATORS)

    def make_mode() -> Any:
        load_dynamo()
        return importlib.import_module(WRAPPED_OPERATORS).TransformGetItemToIndex()

    module.TransformGetItemToIndex = make_mode  # type: ignore[attr-defined]
    return module


class _SubmoduleFinder:
    """Loads the real package when one of its submodules is imported."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a submodule in the real package; None for every other module."""
        if not name.startswith(f"{NAME}."):
            return None
        package = load_dynamo()
        if name in sys.modules:
            return importlib.machinery.ModuleSpec(name, _Loaded(sys.modules[name]))
        return importlib.machinery.PathFinder.find_spec(name, package.__path__, target)


class _Loaded(importlib.abc.Loader):
    """The loader of a module that its package has just imported."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: object) -> ModuleType:
        """The module itself."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing; restore what the import system has overwritten."""
        module.__spec__ = self._spec

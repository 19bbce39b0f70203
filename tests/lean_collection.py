"""Imports what the collected tests import at half the cost: no compiler, no garbage collection.

Every process of pytest-xdist collects all files, so each imports torch, diffusers, transformers
and PEFT. Tests run on a CPU, where processes of ours import them in this way too.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType

from worker.core.lean_imports import lean_imports

LIBRARIES = ("diffusers", "peft", "transformers")


class _LeanFinder:
    """Enters `lean_imports` when one of the libraries is first imported; it finds nothing itself.

    It stays in `sys.meta_path` until then, so that tests without networks do not load torch.
    """

    def __init__(self, imports: ExitStack) -> None:
        self._imports = imports

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> None:
        """None: the other finders find the module."""
        if name in LIBRARIES and self in sys.meta_path:
            sys.meta_path.remove(self)
            self._imports.enter_context(lean_imports("cpu"))


@contextmanager
def lean_collection() -> Iterator[None]:
    """A block in which test files are imported; those without networks do not load torch."""
    with ExitStack() as imports:
        finder = _LeanFinder(imports)
        sys.meta_path.insert(0, finder)
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
            if finder in sys.meta_path:
                sys.meta_path.remove(finder)

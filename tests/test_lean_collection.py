"""Test files import the large libraries as processes on a CPU do."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests import lean_collection


def test_libraries_are_imported_lean_and_nothing_is_loaded_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered = []

    @contextlib.contextmanager
    def lean_imports(device: str) -> Iterator[None]:
        entered.append(device)
        yield
        entered.append("left")

    monkeypatch.setattr(lean_collection, "lean_imports", lean_imports)
    monkeypatch.setattr(lean_collection, "LIBRARIES", ("antigravity", "this"))
    with lean_collection.lean_collection():
        assert not gc.isenabled()
        find_spec("colorsys")
        assert entered == []
        find_spec("antigravity")
        find_spec("this")
        assert entered == ["cpu"]
    assert entered == ["cpu", "left"]
    assert gc.isenabled()


def test_nothing_of_it_stays_when_no_library_was_imported() -> None:
    before = list(lean_collection.sys.meta_path)
    with lean_collection.lean_collection():
        pass
    assert lean_collection.sys.meta_path == before

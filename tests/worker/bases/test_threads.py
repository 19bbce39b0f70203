from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from worker.core.bases import threads
from worker.core.bases.load import LoadedBase, load_base


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(smallest_sd15_folder: Path) -> LoadedBase:
    """An SD 1.5 that is quickly measured."""
    return load_base(smallest_sd15_folder)


def pretend(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> list[int]:
    """Make forward passes take these seconds; gives the thread counts that were tried."""
    tried: list[int] = []

    def measured(_base: object, _batch: int, *, threads: int) -> float:
        tried.append(threads)
        return seconds[threads]

    monkeypatch.setattr(threads, "_time_forward", measured)
    return tried


@pytest.mark.parametrize(
    ("seconds", "at_most", "expected", "tried"),
    [
        ({1: 1.0, 2: 1.9}, 2, 1, [1, 2]),
        ({1: 1.0, 2: 0.6}, 2, 2, [1, 2]),
        ({1: 1.0, 2: 0.6, 4: 0.5, 6: 0.51}, 6, 4, [1, 2, 4, 6]),
        ({1: 1.0, 2: 0.99}, 16, 1, [1, 2]),
        ({}, 1, 1, []),
    ],
)
def test_threads_are_added_for_as_long_as_they_help(
    monkeypatch: pytest.MonkeyPatch,
    base: LoadedBase,
    seconds: dict[int, float],
    at_most: int,
    expected: int,
    tried: list[int],
) -> None:
    seen = pretend(monkeypatch, seconds)
    assert threads.use_fastest_threads(base, batch_size=2, at_most=at_most) == expected
    assert torch.get_num_threads() == expected
    assert seen == tried


def test_a_large_base_takes_every_thread_unmeasured(
    monkeypatch: pytest.MonkeyPatch, base: LoadedBase
) -> None:
    monkeypatch.setitem(base.info.parameters, "unet", 860_000_000)
    seen = pretend(monkeypatch, {})
    assert threads.use_fastest_threads(base, batch_size=2, at_most=2) == 2
    assert not seen


def test_both_families_can_be_measured(base: LoadedBase, smallest_sdxl_folder: Path) -> None:
    sdxl = load_base(smallest_sdxl_folder)
    assert threads.use_fastest_threads(sdxl, batch_size=2, at_most=2) in (1, 2)
    assert threads.use_fastest_threads(base, batch_size=2, at_most=2) in (1, 2)

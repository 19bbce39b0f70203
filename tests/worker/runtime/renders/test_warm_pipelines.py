"""A render worker holds the bases that were used last, as many as fit in its memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.registry.config import Settings
from app.registry.tables.added_models import BaseModel, ModelStatus
from tests.worker.bases.tiny_models import save_two_blocks
from worker.core import memory
from worker.core.bases.inspect import inspect_base
from worker.core.inference.pipeline import ResidentPipeline, weight_bytes
from worker.core.memory import Memory, device_memory, system_memory
from worker.core.words import RenderPrecision
from worker.runtime.renders import warm_pipelines
from worker.runtime.renders.warm_pipelines import WarmPipelines

FP32 = RenderPrecision.FP32
MIB = 1 << 20


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[BaseModel]:
    """Three bases of the same files, which takes three times their memory."""
    folder = save_two_blocks(tmp_path_factory.mktemp("bases") / "base")
    info = inspect_base(folder)
    return [
        BaseModel(
            id=number,
            slug=f"base-{number}",
            name=f"Base {number}",
            source=f"{folder}",
            status=ModelStatus.READY,
            parameters=info.parameters,
            fingerprint=info.fingerprint,
        )
        for number in (1, 2, 3)
    ]


@pytest.fixture
def warm(tmp_path: Path) -> WarmPipelines:
    settings = Settings(data_dir=tmp_path)
    return WarmPipelines(settings, store=None, device="cpu")  # type: ignore[arg-type] # no adapters


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets the total and the free memory of the machine in bytes."""

    def limited(total: int, free: int) -> None:
        monkeypatch.setattr(warm_pipelines, "device_memory", lambda _: Memory(total, free))

    return limited


def held(warm: WarmPipelines) -> list[int]:
    return [number for number, _, _ in warm._pipelines]


def test_the_least_recently_used_base_leaves(
    warm: WarmPipelines, bases: list[BaseModel], limit: Callable[[int, int], None]
) -> None:
    first, second, third = bases
    size = weight_bytes(first.parameters, FP32, first.options)
    limit(3 * 2 * size, 3 * 2 * size)  # of which a third is for pipelines: two of them
    one = warm.pipeline(first, FP32)
    assert one.memory_bytes == size
    warm.pipeline(second, FP32)
    assert warm.pipeline(first, FP32) is one
    assert held(warm) == [2, 1]
    warm.pipeline(third, FP32)
    assert held(warm) == [1, 3]
    assert warm.pipeline(first, FP32) is one
    limit(3 * size - 1, 3 * size)
    warm.pipeline(second, FP32)
    assert held(warm) == [2]  # a base in use is always held


def test_when_memory_is_short_only_the_base_in_use_is_kept(
    warm: WarmPipelines, bases: list[BaseModel], limit: Callable[[int, int], None]
) -> None:
    limit(1 << 40, 1 << 39)
    for base in bases:
        warm.pipeline(base, FP32)
    warm.pipeline(bases[1], FP32)
    assert held(warm) == [1, 3, 2]
    limit(1 << 40, 1 << 36)  # a training began
    warm.pipeline(bases[0], FP32)
    assert held(warm) == [1]


@pytest.mark.parametrize("total_free", [None, (100, 1)])
def test_without_free_memory_one_base_is_held(
    total_free: tuple[int, int] | None,
    warm: WarmPipelines,
    bases: list[BaseModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = weight_bytes(bases[0].parameters, FP32, bases[0].options)
    known = None if total_free is None else Memory(*(part * size for part in total_free))
    monkeypatch.setattr(warm_pipelines, "device_memory", lambda _: known)
    for base in bases:
        warm.pipeline(base, FP32)
    assert held(warm) == [3]
    assert not warm.preload(bases[0], FP32)
    assert held(warm) == [3]


def test_a_base_is_preloaded_only_beside_what_is_held(
    warm: WarmPipelines, bases: list[BaseModel], limit: Callable[[int, int], None]
) -> None:
    first, second, third = bases
    size = weight_bytes(first.parameters, FP32, first.options)
    limit(6 * size, 6 * size)
    warm.pipeline(first, FP32)
    assert warm.preload(second, FP32)
    assert not warm.preload(third, FP32)
    assert warm.preload(first, FP32)
    assert held(warm) == [1, 2]


def test_each_base_runs_on_its_own_number_of_threads(
    warm: WarmPipelines,
    bases: list[BaseModel],
    limit: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit(1 << 40, 1 << 40)
    before, counts = torch.get_num_threads(), iter([1, 2])
    monkeypatch.setattr(warm_pipelines, "use_fastest_threads", lambda *_, **__: next(counts))
    try:
        for base in bases[:2]:
            warm.pipeline(base, FP32)
            warm.tune()
        warm.pipeline(bases[0], FP32)
        assert torch.get_num_threads() == 1
        warm.pipeline(bases[1], FP32)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("precision", RenderPrecision)
def test_the_memory_of_a_base_is_known_before_it_is_loaded(
    precision: RenderPrecision, bases: list[BaseModel]
) -> None:
    loaded = ResidentPipeline.load(Path(bases[0].source), precision=precision)
    assert loaded.memory_bytes == weight_bytes(bases[0].parameters, precision, bases[0].options)


def test_the_memory_of_this_machine_is_known() -> None:
    found = device_memory("cpu")
    assert found is not None
    assert 0 < found.free <= found.total


def test_files_in_the_memory_of_a_container_count_as_free(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    assert system_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    meminfo = tmp_path / "proc/meminfo"
    meminfo.write_text(f"MemTotal: {900 * MIB // 1024} kB\nMemAvailable: {800 * MIB // 1024} kB\n")
    assert system_memory(tmp_path) == Memory(900 * MIB, 800 * MIB)
    (group / "memory.max").write_text(f"{500 * MIB}\n")
    (group / "memory.current").write_text(f"{400 * MIB}\n")
    assert system_memory(tmp_path) == Memory(500 * MIB, 100 * MIB)
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {150 * MIB}\n")
    assert system_memory(tmp_path) == Memory(500 * MIB, 250 * MIB)


def test_a_gpus_memory_counts_what_torch_keeps_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (200, 1_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 450)
    assert memory.device_memory("cuda:0") == Memory(total=1_000, free=250)

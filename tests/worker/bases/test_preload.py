"""Weights that a fork server holds for its forks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from worker.core import starter
from worker.core.bases import weights
from worker.core.bases.load import LoadedBase, load_base

FILES = sorted(starter.PATH.rglob("*.safetensors"))


@pytest.fixture
def preloaded(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[Path, int], object]:
    monkeypatch.setattr(weights, "_preloaded", held := {})
    weights.preload_fp32(FILES)
    return held


def tensors(base: LoadedBase) -> list[torch.Tensor]:
    modules = (base.denoiser, base.vae, *base.text_encoders)
    return [tensor for module in modules for tensor in module.state_dict().values()]


def test_a_base_is_the_same_with_and_without_preloaded_weights(
    preloaded: dict[tuple[Path, int], object],
) -> None:
    addresses = {array.ctypes.data for array in preloaded.values()}  # type: ignore[attr-defined]
    first = load_base(starter.PATH)
    assert preloaded == {}  # all were given out, so that nobody shares them with this base
    second = load_base(starter.PATH)
    assert all(map(torch.equal, tensors(first), tensors(second)))
    used = {tensor.data_ptr() for tensor in tensors(first)}
    assert len(used & addresses) == len(addresses)
    assert not addresses & {tensor.data_ptr() for tensor in tensors(second)}


def test_another_type_is_read_from_the_file(preloaded: dict[tuple[Path, int], object]) -> None:
    held = len(preloaded)
    stored = next(iter(weights.stored_tensors(FILES[0]).values()))
    assert stored.read(torch.bfloat16).dtype is torch.bfloat16
    assert len(preloaded) == held

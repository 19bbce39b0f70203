"""Resized adapters keep as much as their rank allows, and report how much."""

from __future__ import annotations

import pytest
import torch

from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.families.family import Component
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.tools.lowrank import spectrum_of_matrix, spectrum_of_product
from worker.core.lora_files.tools.resize import ResizeOptions, resize_adapter
from worker.core.lora_files.tools.stack import ToolError

SHAPES = {
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (24, 16),
    "unet.mid_block.resnets.0.conv1": (24, 24, 3, 3),
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (16, 16),
}


def with_values(path: str, values: list[float]) -> LoraModule:
    """A module with known singular values."""
    rank = len(values)
    generator = torch.Generator().manual_seed(len(path))
    left, _ = torch.linalg.qr(torch.randn(24, rank, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(20, rank, generator=generator))
    return LoraModule(Component.DENOISER, path, (right * torch.tensor(values)).T, left, float(rank))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_rank_keeps_what_the_full_svd_says_it_can(rank: int) -> None:
    adapter = random_adapter(SHAPES, rank=8, alpha=3.0)
    made = resize_adapter(adapter, ResizeOptions(rank=rank))
    for before, after, kept in zip(
        sorted(adapter.modules, key=lambda m: m.key),
        made.adapter.modules,
        made.report.modules,
        strict=True,
    ):
        values = torch.linalg.svdvals(before.delta().flatten(1).double())
        best = float(values[rank:].square().sum().sqrt())
        assert float((after.delta() - before.delta()).norm()) == pytest.approx(best, abs=1e-5)
        share = float(values[:rank].square().sum() / values.square().sum())
        assert kept.share == pytest.approx(share, abs=1e-6)
        assert (after.rank, after.alpha) == (rank, rank)
    assert made.adapter.metadata == adapter.metadata


def test_an_energy_gives_all_modules_the_rank_that_suffices_for_each() -> None:
    easy, hard = with_values("a", [10.0, 1.0, 0.5, 0.1]), with_values("b", [1.0, 1.0, 1.0, 0.1])
    made = resize_adapter(LoraAdapter((easy, hard)), ResizeOptions(energy=0.95))
    assert [module.rank for module in made.adapter.modules] == [3, 3]
    assert made.report.least == pytest.approx(3 / 3.01, abs=1e-6)
    assert made.report.mean == pytest.approx((101.25 / 101.26 + 3 / 3.01) / 2, abs=1e-6)


def test_dynamic_ranks_are_the_smallest_of_each_module() -> None:
    easy, hard = with_values("a", [10.0, 1.0, 0.5, 0.1]), with_values("b", [1.0, 1.0, 1.0, 0.1])
    made = resize_adapter(LoraAdapter((easy, hard)), ResizeOptions(energy=0.95, dynamic=True))
    assert [(module.rank, module.alpha) for module in made.adapter.modules] == [(1, 1), (3, 3)]


def test_modules_of_smaller_ranks_are_padded_to_one_rank() -> None:
    mixed = LoraAdapter((with_values("a", [2.0]), with_values("b", [2.0, 1.0, 0.5])))
    made = resize_adapter(mixed, ResizeOptions(rank=2))
    assert [module.rank for module in made.adapter.modules] == [2, 2]
    assert torch.allclose(made.adapter.modules[0].delta(), mixed.modules[0].delta(), atol=1e-6)


def test_a_module_without_any_change_stays_without_one() -> None:
    dead = LoraModule(Component.DENOISER, "a", torch.randn(4, 20), torch.zeros(24, 4), 4.0)
    made = resize_adapter(
        LoraAdapter((dead, with_values("b", [2.0, 1.0]))), ResizeOptions(energy=0.9)
    )
    assert made.report.least >= 0.9
    assert not made.adapter.modules[0].delta().any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ResizeOptions(rank=0), "rank must be from 1 to 1,024"),
        (ResizeOptions(rank=5000), "rank must be from 1 to 1,024"),
        (ResizeOptions(rank=9), "The adapter already has rank 8"),
        (ResizeOptions(), "either a rank or a share"),
        (ResizeOptions(rank=2, energy=0.9), "either a rank or a share"),
        (ResizeOptions(energy=1.5), "above 0 and at most 1"),
        (ResizeOptions(energy=float("nan")), "above 0 and at most 1"),
        (ResizeOptions(rank=2, dynamic=True), "needs a share of the energy"),
    ],
)
def test_impossible_settings_are_refused(options: ResizeOptions, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        resize_adapter(random_adapter(SHAPES, rank=8), options)


@pytest.mark.parametrize(("rows", "columns"), [(12, 40), (40, 12), (16, 16)])
def test_both_ways_to_a_spectrum_agree_with_the_full_svd(rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    up = torch.randn(rows, 20, generator=generator)
    down = torch.randn(20, columns, generator=generator)
    exact = (up.double() @ down.double()).float()
    values = torch.linalg.svdvals(exact.double())
    for spectrum in (spectrum_of_product(up, down), spectrum_of_matrix(exact)):
        count = min(rows, columns)
        assert torch.allclose(spectrum.values[:count], values, rtol=1e-5)
        found, other = spectrum.factors(count)
        assert torch.allclose(found @ other, exact, atol=1e-4)

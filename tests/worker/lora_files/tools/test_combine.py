"""Merged adapters equal the formulas exactly, or as closely as the rank allows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.families.family import Component
from worker.core.lora_files.canonical import LoraAdapter, LoraModule, check_adapter
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.combine import MergeOptions, dare, dare_seed, merge_adapters
from worker.core.lora_files.tools.stack import ToolError
from worker.core.words import MergeMethod

SHAPES = {
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (24, 16),
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q": (24, 24),
    "unet.mid_block.resnets.0.conv1": (24, 24, 3, 3),
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (16, 16),
}
KEYS = sorted(SHAPES)


def adapter(seed: int, *, rank: int = 3, alpha: float = 6.0, only: str = "") -> LoraAdapter:
    return random_adapter(SHAPES, rank=rank, alpha=alpha, seed=seed, choose=lambda key: only in key)


def delta(adapter: LoraAdapter, key: str) -> Tensor:
    found = [module.delta() for module in adapter.modules if module.key == key]
    return found[0] if found else torch.zeros(SHAPES[key])


def optimal_error(matrix: Tensor, rank: int) -> float:
    return float(torch.linalg.svdvals(matrix.flatten(1).double())[rank:].square().sum().sqrt())


def test_linear_is_exact_for_any_ranks_weights_and_missing_modules() -> None:
    one, two, three = adapter(1), adapter(2, rank=5, alpha=1.0), adapter(3, only="unet")
    stack = [
        LoadedAdapter("one", one, 0.7),
        LoadedAdapter("two", two, -1.5, text_encoder_weight=0.25),
        LoadedAdapter("three", three, 2.0),
    ]
    made = merge_adapters(stack, MergeOptions())
    check_adapter(made.adapter)
    assert [module.key for module in made.adapter.modules] == KEYS
    for module in made.adapter.modules:
        text = module.component is not Component.DENOISER
        expected = 0.7 * delta(one, module.key) + (0.25 if text else -1.5) * delta(two, module.key)
        expected = expected + 2.0 * delta(three, module.key)
        assert torch.allclose(module.delta(), expected, atol=1e-6)
        assert module.rank == (8 if text else 11)
        assert module.alpha == module.rank
    assert made.report.relative_error == 0


def test_an_adapter_of_weight_zero_leaves_no_trace() -> None:
    one, two = adapter(1), adapter(2)
    made = merge_adapters(
        [LoadedAdapter("one", one), LoadedAdapter("two", two, 0.0)], MergeOptions()
    )
    assert {module.rank for module in made.adapter.modules} == {3}
    assert torch.allclose(made.adapter.modules[0].delta(), delta(one, KEYS[0]), atol=1e-6)


@pytest.mark.parametrize("rank", [1, 4, 7])
def test_svd_is_as_close_as_the_full_svd(rank: int) -> None:
    one, two = adapter(1, rank=4), adapter(2, rank=6)
    made = merge_adapters(
        [LoadedAdapter("one", one, 1.0), LoadedAdapter("two", two, -0.5)],
        MergeOptions(MergeMethod.SVD, rank=rank),
    )
    lost = total = 0.0
    for module in made.adapter.modules:
        exact = delta(one, module.key) - 0.5 * delta(two, module.key)
        error = float((module.delta() - exact).norm())
        assert error == pytest.approx(optimal_error(exact, rank), rel=1e-4)
        assert (module.rank, module.alpha) == (rank, rank)
        lost, total = lost + error**2, total + float(exact.norm()) ** 2
    assert made.report.relative_error == pytest.approx((lost / total) ** 0.5, rel=1e-4)


def test_svd_at_the_full_rank_loses_nothing_and_uses_no_higher_rank() -> None:
    one, two = adapter(1), adapter(2)
    stack = [LoadedAdapter("one", one), LoadedAdapter("two", two)]
    made = merge_adapters(stack, MergeOptions(MergeMethod.SVD, rank=64))
    assert {module.rank for module in made.adapter.modules} == {6}
    assert made.report.relative_error < 1e-6
    for module in made.adapter.modules:
        exact = delta(one, module.key) + delta(two, module.key)
        assert torch.allclose(module.delta(), exact, atol=1e-6)


def ties_by_the_paper(changes: list[list[float]], density: float) -> list[float]:
    """Trim, elect, disjoint merge, entry by entry, as in algorithm 1 of arXiv 2306.01708."""
    size = len(changes[0])
    count = max(1, round(density * size))
    trimmed = []
    for change in changes:
        kept = set(sorted(range(size), key=lambda i: -abs(change[i]))[:count])
        trimmed.append([value if i in kept else 0.0 for i, value in enumerate(change)])
    merged = []
    for i in range(size):
        column = [change[i] for change in trimmed]
        positive = sum(v for v in column if v > 0)
        negative = -sum(v for v in column if v < 0)
        agreeing = [v for v in column if (v > 0 if positive > negative else v < 0)]
        merged.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return merged


def test_ties_is_the_papers_formula_at_full_rank() -> None:
    adapters = [adapter(seed) for seed in (1, 2, 3)]
    weights = (1.0, 0.8, -0.6)
    stack = [
        LoadedAdapter(str(i), a, w) for i, (a, w) in enumerate(zip(adapters, weights, strict=True))
    ]
    made = merge_adapters(stack, MergeOptions(MergeMethod.TIES, rank=24, density=0.3))
    for module in made.adapter.modules:
        changes = [
            (w * delta(a, module.key)).flatten().tolist()
            for a, w in zip(adapters, weights, strict=True)
        ]
        expected = torch.tensor(ties_by_the_paper(changes, 0.3)).reshape(module.weight_shape)
        assert torch.allclose(module.delta(), expected, atol=1e-5)
        assert float(expected.norm()) > 0.01


def test_ties_at_a_low_rank_reports_its_true_error() -> None:
    stack = [LoadedAdapter("one", adapter(1)), LoadedAdapter("two", adapter(2))]
    whole = merge_adapters(stack, MergeOptions(MergeMethod.TIES, rank=24))
    small = merge_adapters(stack, MergeOptions(MergeMethod.TIES, rank=2))
    lost = total = 0.0
    for exact, module in zip(whole.adapter.modules, small.adapter.modules, strict=True):
        error = float((module.delta() - exact.delta()).norm())
        assert error == pytest.approx(optimal_error(exact.delta(), 2), rel=1e-3)
        lost, total = lost + error**2, total + float(exact.delta().norm()) ** 2
    assert small.report.relative_error == pytest.approx((lost / total) ** 0.5, rel=1e-3)
    assert 0.1 < small.report.relative_error < 1


def test_dare_drops_and_rescales_entries_by_its_seed() -> None:
    adapters = [adapter(1), adapter(2)]
    stack = [LoadedAdapter("one", adapters[0], 1.0), LoadedAdapter("two", adapters[1], -0.5)]
    options = MergeOptions(MergeMethod.DARE, rank=24, density=0.4, seed=7)
    made = merge_adapters(stack, options)
    for module in made.adapter.modules:
        expected = torch.zeros(module.weight_shape).flatten(1)
        for index, weight in enumerate((1.0, -0.5)):
            random = torch.Generator().manual_seed(dare_seed(7, index, module.key))
            mask = torch.rand(expected.shape, generator=random) < 0.4
            change = weight * delta(adapters[index], module.key).flatten(1)
            expected = expected + mask * change / 0.4
        assert torch.allclose(module.delta().flatten(1), expected, atol=1e-5)
    again = merge_adapters(stack, options).adapter.modules
    other = merge_adapters(stack, MergeOptions(MergeMethod.DARE, rank=24, density=0.4, seed=8))
    assert all(torch.equal(a.up, b.up) for a, b in zip(made.adapter.modules, again, strict=True))
    assert not torch.equal(other.adapter.modules[0].up, again[0].up)


def test_dare_keeps_the_expected_change() -> None:
    change = delta(adapter(1), KEYS[-1])
    total = torch.zeros_like(change)
    for seed in range(400):
        total += dare([change], 0.5, [seed])
    assert float((total / 400 - change).norm() / change.norm()) < 0.1


def refused(stack: list[LoadedAdapter], **options: object) -> str:
    with pytest.raises(ToolError) as caught:
        merge_adapters(stack, MergeOptions(**options))  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e9, -11.0])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    sentence = refused([LoadedAdapter("one", adapter(1)), LoadedAdapter("two", adapter(2), weight)])
    assert sentence.startswith("The weight of “two” ")
    assert "is not a number" in sentence or "weights from -10 to 10 are accepted" in sentence


@pytest.mark.parametrize("rank", [0, -3, 1025, None])
def test_an_impossible_rank_is_refused(rank: int | None) -> None:
    stack = [LoadedAdapter("one", adapter(1)), LoadedAdapter("two", adapter(2))]
    assert "rank" in refused(stack, method=MergeMethod.SVD, rank=rank)


def test_an_impossible_density_is_refused() -> None:
    stack = [LoadedAdapter("one", adapter(1)), LoadedAdapter("two", adapter(2))]
    sentence = refused(stack, method=MergeMethod.DARE, rank=4, density=0.0)
    assert "must be above 0 and at most 1" in sentence


def test_all_weights_zero_are_refused() -> None:
    stack = [LoadedAdapter("one", adapter(1), 0), LoadedAdapter("two", adapter(2), 0)]
    assert refused(stack) == "All weights are 0. Set at least one to another value."


def test_one_adapter_alone_is_refused() -> None:
    assert refused([LoadedAdapter("one", adapter(1))]) == (
        "Choose 2 to 16 adapters to merge, not 1."
    )


def test_adapters_for_different_bases_are_refused_by_their_widths() -> None:
    other = random_adapter({"unet.down_blocks.1.attentions.0.attn2.to_k": (24, 768)})
    sentence = refused([LoadedAdapter("one", adapter(1)), LoadedAdapter("two", other)])
    assert "“one” and “two” are for different base models (cross-attention width 16 and 768)" in (
        sentence
    )


def test_adapters_whose_layers_differ_are_refused_by_the_layer() -> None:
    other = random_adapter({"unet.mid_block.resnets.0.conv1": (24, 32, 3, 3)})
    sentence = refused([LoadedAdapter("one", adapter(1)), LoadedAdapter("two", other)])
    assert (
        "unet.mid_block.resnets.0.conv1 is 24 × 24 × 3 × 3 in one and 24 × 32 × 3 × 3" in sentence
    )


def test_ranks_that_add_up_to_too_much_point_to_svd() -> None:
    wide = LoraModule(Component.DENOISER, "x", torch.ones(600, 4), torch.ones(4, 600), 600.0)
    stack = [LoadedAdapter("one", LoraAdapter((wide,))), LoadedAdapter("two", LoraAdapter((wide,)))]
    sentence = refused(stack)
    assert "add up to 1,200" in sentence
    assert "Choose the SVD method" in sentence
    assert merge_adapters(stack, MergeOptions(MergeMethod.SVD, rank=4)).report.relative_error < 1e-6


def test_a_stop_between_modules_ends_the_merge() -> None:
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        seen.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_adapters(
            [LoadedAdapter("a", adapter(1)), LoadedAdapter("b", adapter(2))],
            MergeOptions(),
            on_module=stop,
        )
    assert seen == [(1, 4)]

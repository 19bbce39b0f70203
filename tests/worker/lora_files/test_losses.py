"""The loss of a conversion is measured, and a large one needs consent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.core.lora_files.algebra import truncate_to_rank
from worker.core.lora_files.errors import LossError
from worker.core.lora_files.reading import read_with_notes

STEM = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
NORM = "lora_unet_down_blocks_1_resnets_0_norm2"


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loha(rank: int, size: int = 640) -> dict[str, Tensor]:
    return {
        f"{STEM}.hada_{name}": random(*shape, seed=seed) / 8
        for seed, (name, shape) in enumerate(
            {
                "w1_a": (size, rank), "w1_b": (rank, size),
                "w2_a": (size, rank), "w2_b": (rank, size),
            }.items()
        )
    }  # fmt: skip


def test_a_conversion_that_loses_much_asks_first(tmp_path: Path) -> None:
    path = tmp_path / "loha.safetensors"
    save_file(loha(32), path)
    with pytest.raises(LossError, match=r"A LoRA cannot contain all .*: \d\d % of its") as refused:
        read_with_notes(path)
    found = read_with_notes(path, allow_loss=True)
    assert found.loss == refused.value.loss
    assert found.adapter.modules[0].rank == 256
    factors = {name.rpartition("_w")[2]: t for name, t in loha(32).items()}
    change = (factors["1_a"] @ factors["1_b"]) * (factors["2_a"] @ factors["2_b"])
    values = torch.linalg.svdvals(change.double())
    best = float((values[256:].square().sum() / values.square().sum()).sqrt())
    assert found.loss == pytest.approx(best, rel=1e-3)
    error = (found.adapter.modules[0].delta() - change).norm() / change.norm()
    assert float(error) == pytest.approx(best, rel=1e-3)


def test_a_conversion_without_loss_does_not_ask(tmp_path: Path) -> None:
    save_file(loha(8), tmp_path / "loha.safetensors")
    found = read_with_notes(tmp_path / "loha.safetensors")
    assert (found.loss, found.adapter.modules[0].rank) == (0, 64)


@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_norms_count_as_a_loss(size: float, tmp_path: Path) -> None:
    path = tmp_path / "norms.safetensors"
    pair = {f"{STEM}.lora_down.weight": random(4, 640), f"{STEM}.lora_up.weight": random(640, 4)}
    save_file(pair | {f"{NORM}.w_norm": size * 400 * random(640)}, path)
    if size < 1:
        assert 0 < read_with_notes(path).loss < 0.1
        return
    with pytest.raises(LossError, match="Changes of 1 norm were left out"):
        read_with_notes(path)
    assert read_with_notes(path, allow_loss=True).loss > 0.5


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 5e-4), (torch.bfloat16, 4e-3)]
)
@pytest.mark.parametrize("shape", [(640, 640), (64, 640), (640, 160)])
def test_the_rank_of_a_full_difference_is_found(
    dtype: torch.dtype, limit: float, shape: tuple[int, int], tmp_path: Path
) -> None:
    change = random(shape[0], 3) @ random(3, shape[1], seed=2)
    save_file({f"{STEM}.diff": change.to(dtype)}, tmp_path / "diff.safetensors")
    found = read_with_notes(tmp_path / "diff.safetensors")
    (module,) = found.adapter.modules
    assert module.rank == 3
    assert float((module.delta() - change).norm() / change.norm()) < limit
    assert found.loss < limit


@pytest.mark.parametrize("shape", [(100, 400), (400, 120), (300, 300)])
@pytest.mark.parametrize("rank", [1, 30, 90])
def test_every_way_to_the_directions_gives_the_best_approximation(
    shape: tuple[int, int], rank: int
) -> None:
    matrix = (
        random(*shape) @ torch.diag(torch.logspace(0, -3, shape[1]))
        if rank == 30
        else (random(*shape))
    )
    down, up, lost = truncate_to_rank(matrix, rank)
    values = torch.linalg.svdvals(matrix.double()).square()
    assert lost == pytest.approx(float(values[rank:].sum()), rel=2e-2)
    assert float((matrix - up @ down).double().square().sum()) == pytest.approx(lost, rel=1e-6)

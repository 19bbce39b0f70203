"""What two checkpoints differ by comes back as the adapter that makes one of the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import worker.core.starter
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.lora_files.canonical import Adapter
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.checkpoint import Checkpoint
from worker.core.lora_files.tools.extract import extract
from worker.core.lora_files.tools.fuse import FuseDtype, FuseLayout, FuseOptions, fuse
from worker.core.lora_files.tools.stack import ToolError

STARTER = worker.core.starter.PATH
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def adapter() -> Adapter:
    """Every third layer that a run may train, so that others stay as they are."""
    with Checkpoint(STARTER) as base:
        whole = random_adapter(base.target_shapes, rank=3, alpha=6.0)
    return Adapter(whole.modules[::3])


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, adapter: Adapter) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "tuned"
    fuse(STARTER, [LoadedAdapter("one", adapter, 0.5)], out, FuseOptions(dtype=FuseDtype.FP32))
    return out


def test_fusing_and_extracting_gives_the_adapter_back(adapter: Adapter, tuned: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = extract(STARTER, tuned, 3, on_layer=lambda *at: seen.append(at))
    by_key = {module.key: module for module in adapter.modules}
    assert {module.key for module in found.adapter.modules} == by_key.keys()
    for module in found.adapter.modules:
        assert torch.allclose(module.delta(), 0.5 * by_key[module.key].delta(), atol=1e-5)
        assert (module.rank, module.alpha) == (3, 3)
    assert found.report.relative_error < 1e-3
    assert found.beyond == 0
    assert seen[-1] == (len(seen), found.unchanged + len(by_key))


def test_a_lower_rank_tells_its_true_error(adapter: Adapter, tuned: Path) -> None:
    found = extract(STARTER, tuned, 1)
    by_key = {module.key: module for module in adapter.modules}
    lost = total = 0.0
    for module in found.adapter.modules:
        exact = 0.5 * by_key[module.key].delta()
        lost += float((module.delta() - exact).norm()) ** 2
        total += float(exact.norm()) ** 2
    assert found.report.relative_error == pytest.approx((lost / total) ** 0.5, rel=1e-3)
    assert 0.2 < found.report.relative_error < 0.9


def test_a_single_file_and_a_folder_can_be_compared(sd15_folder: Path, tmp_path: Path) -> None:
    with Checkpoint(sd15_folder) as base:
        few = Adapter(random_adapter(base.target_shapes, rank=2).modules[::20])
    out = tmp_path / "tuned.safetensors"
    fuse(
        sd15_folder,
        [LoadedAdapter("few", few)],
        out,
        FuseOptions(FuseLayout.SINGLE, FuseDtype.FP32),
    )
    found = extract(sd15_folder, out, 2)
    assert [module.key for module in found.adapter.modules] == [m.key for m in few.modules]
    for before, after in zip(few.modules, found.adapter.modules, strict=True):
        assert torch.allclose(before.delta(), after.delta(), atol=1e-5)


def test_what_only_rounding_changed_is_left_out(tmp_path: Path, adapter: Adapter) -> None:
    one = Adapter(adapter.modules[:1])
    wide, rounded = tmp_path / "wide", tmp_path / "rounded"
    fuse(STARTER, [LoadedAdapter("all", adapter)], wide, FuseOptions(dtype=FuseDtype.FP32))
    fuse(wide, [LoadedAdapter("one", one)], rounded, FuseOptions(dtype=FuseDtype.BF16))
    found = extract(wide, rounded, 4)
    assert [module.key for module in found.adapter.modules] == [one.modules[0].key]


def test_norms_that_differ_are_told(tuned: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tuned, other)
    tensors = load_file(other / UNET)
    tensors["conv_norm_out.weight"] += 0.1
    save_file(tensors, other / UNET, {"format": "pt"})
    assert extract(STARTER, other, 1).beyond == 1
    with pytest.raises(ToolError, match=r"in any layer that a LoRA can change \(1 norms"):
        extract(tuned, other, 1)


def test_equal_checkpoints_are_refused(tuned: Path) -> None:
    with pytest.raises(ToolError, match=r"do not differ in any layer that a LoRA can change\.$"):
        extract(tuned, tuned, 4)


@pytest.mark.parametrize("rank", [0, 2000])
def test_an_impossible_rank_is_refused(rank: int, tuned: Path) -> None:
    with pytest.raises(ToolError, match="ranks from 1 to 1,024 are accepted"):
        extract(STARTER, tuned, rank)


def test_other_architectures_are_refused_by_what_differs(
    sd15_folder: Path, sdxl_folder: Path
) -> None:
    with pytest.raises(ToolError, match=r"is an SD 1\.x model and the tuned one an SDXL model"):
        extract(sd15_folder, sdxl_folder, 4)
    with pytest.raises(ToolError, match=r"not of one architecture: .* layers differ"):
        extract(STARTER, sd15_folder, 4)

"""The difference of two checkpoints is extracted as the adapter that was fused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.bases.tiny_klein import save_klein
from tests.worker.bases.tiny_zimage import save_zimage
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools.checkpoint import BaseCheckpoint
from worker.core.lora_files.tools.extract import extract_adapter
from worker.core.lora_files.tools.fuse import FuseOptions, fuse_adapters
from worker.core.lora_files.tools.stack import ToolError
from worker.core.words import FusedDtype, FuseLayout

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def adapter(small_starter: Path) -> LoraAdapter:
    """An adapter for every third trainable layer; the others are unchanged."""
    with BaseCheckpoint(small_starter) as base:
        whole = random_adapter(base.target_shapes, rank=3, alpha=6.0)
    return LoraAdapter(whole.modules[::3])


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory, adapter: LoraAdapter, small_starter: Path
) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "tuned"
    fuse_adapters(
        small_starter, [LoadedAdapter("one", adapter, 0.5)], out, FuseOptions(dtype=FusedDtype.FP32)
    )
    return out


def test_fusing_and_extracting_gives_the_adapter_back(
    adapter: LoraAdapter, tuned: Path, small_starter: Path
) -> None:
    seen: list[tuple[int, int]] = []
    found = extract_adapter(small_starter, tuned, 3, on_layer=lambda *at: seen.append(at))
    by_key = {module.key: module for module in adapter.modules}
    assert {module.key for module in found.adapter.modules} == by_key.keys()
    for module in found.adapter.modules:
        assert torch.allclose(module.delta(), 0.5 * by_key[module.key].delta(), atol=1e-5)
        assert (module.rank, module.alpha) == (3, 3)
    assert found.report.relative_error < 1e-3
    assert found.beyond == 0
    assert seen[-1] == (len(seen), found.unchanged + len(by_key))


@pytest.mark.parametrize("save", [save_zimage, save_klein])
def test_a_transformer_gives_its_adapter_back(save: Callable[[Path], Path], tmp_path: Path) -> None:
    base, tuned = save(tmp_path / "base"), tmp_path / "tuned"
    with BaseCheckpoint(base) as found:
        whole = random_adapter(found.target_shapes, rank=2, alpha=4.0)
    adapter = LoraAdapter(whole.modules[::4])
    options = FuseOptions(dtype=FusedDtype.FP32)
    fuse_adapters(base, [LoadedAdapter("one", adapter)], tuned, options)
    extracted = extract_adapter(base, tuned, 2)
    by_key = {module.key: module for module in adapter.modules}
    assert {module.key for module in extracted.adapter.modules} == by_key.keys()
    for module in extracted.adapter.modules:
        assert torch.allclose(module.delta(), by_key[module.key].delta(), atol=1e-5)
    assert extracted.beyond == 0


def test_a_lower_rank_reports_its_true_error(
    adapter: LoraAdapter, tuned: Path, small_starter: Path
) -> None:
    found = extract_adapter(small_starter, tuned, 1)
    by_key = {module.key: module for module in adapter.modules}
    lost = total = 0.0
    for module in found.adapter.modules:
        exact = 0.5 * by_key[module.key].delta()
        lost += float((module.delta() - exact).norm()) ** 2
        total += float(exact.norm()) ** 2
    assert found.report.relative_error == pytest.approx((lost / total) ** 0.5, rel=1e-3)
    assert 0.2 < found.report.relative_error < 0.9


def test_a_single_file_and_a_folder_can_be_compared(sd15_folder: Path, tmp_path: Path) -> None:
    with BaseCheckpoint(sd15_folder) as base:
        few = LoraAdapter(random_adapter(base.target_shapes, rank=2).modules[::20])
    out = tmp_path / "tuned.safetensors"
    fuse_adapters(
        sd15_folder,
        [LoadedAdapter("few", few)],
        out,
        FuseOptions(FuseLayout.SINGLE, FusedDtype.FP32),
    )
    found = extract_adapter(sd15_folder, out, 2)
    assert [module.key for module in found.adapter.modules] == [m.key for m in few.modules]
    for before, after in zip(few.modules, found.adapter.modules, strict=True):
        assert torch.allclose(before.delta(), after.delta(), atol=1e-5)


def test_what_only_rounding_changed_is_left_out(
    tmp_path: Path, adapter: LoraAdapter, small_starter: Path
) -> None:
    one = LoraAdapter(adapter.modules[:1])
    wide, rounded = tmp_path / "wide", tmp_path / "rounded"
    fuse_adapters(
        small_starter, [LoadedAdapter("all", adapter)], wide, FuseOptions(dtype=FusedDtype.FP32)
    )
    fuse_adapters(wide, [LoadedAdapter("one", one)], rounded, FuseOptions(dtype=FusedDtype.BF16))
    found = extract_adapter(wide, rounded, 4)
    assert [module.key for module in found.adapter.modules] == [one.modules[0].key]


def test_norms_that_differ_are_counted(tuned: Path, tmp_path: Path, small_starter: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tuned, other)
    tensors = load_file(other / UNET)
    tensors["conv_norm_out.weight"] += 0.1
    save_file(tensors, other / UNET, {"format": "pt"})
    assert extract_adapter(small_starter, other, 1).beyond == 1
    with pytest.raises(ToolError, match=r"in any layer that a LoRA can change \(1 norms"):
        extract_adapter(tuned, other, 1)


def test_equal_checkpoints_are_refused(tuned: Path) -> None:
    with pytest.raises(ToolError, match=r"do not differ in any layer that a LoRA can change\.$"):
        extract_adapter(tuned, tuned, 4)


@pytest.mark.parametrize("rank", [0, 2000])
def test_an_impossible_rank_is_refused(rank: int, tuned: Path, small_starter: Path) -> None:
    with pytest.raises(ToolError, match="rank must be from 1 to 1,024"):
        extract_adapter(small_starter, tuned, rank)


def test_other_architectures_are_refused_by_what_differs(
    smallest_sd15_folder: Path, smallest_sdxl_folder: Path, small_starter: Path
) -> None:
    with pytest.raises(ToolError, match=r"is an SD 1\.x model and the tuned model an SDXL model"):
        extract_adapter(smallest_sd15_folder, smallest_sdxl_folder, 4)
    with pytest.raises(ToolError, match=r"have different architectures: .* layers differ"):
        extract_adapter(small_starter, smallest_sd15_folder, 4)

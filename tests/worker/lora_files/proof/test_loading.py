"""The installed diffusers loads our files, and reads other files as its rule predicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.costs import wide_but
from tests.worker.lora_files.proof.files import (
    attention,
    everything,
    mixed,
    peft_file,
    renamed,
    script_file,
    util_file,
    without,
)
from tests.worker.lora_files.random_adapters import ATTENTION, metadata, random_adapter
from worker.core.bases.load import load_base
from worker.core.bases.weights import build_module
from worker.core.families.family import BaseFamily
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.compatible import adaptable_layers
from worker.core.lora_files.export import export
from worker.core.lora_files.proof.content import FileContent
from worker.core.lora_files.proof.diffusers_rule import read_as_diffusers
from worker.core.lora_files.proof.layout import BaseLayout
from worker.core.lora_files.proof.loading import (
    ADAPTER_NAME,
    DiffusersRefusal,
    _lora_layers,
    load_with_diffusers,
    measure_loaded_adapter,
    strip_weights,
)
from worker.core.words import FileFormat, WeightDtype

SD1, SDXL = BaseFamily.SD1, BaseFamily.SDXL
MIDDLE = ("lora_unet_mid_block_attentions_0_", "lora_unet_middle_block_1_")
Parts = dict[str, Any]
Make = Callable[[LoraAdapter], FileContent]


def shapes_of(parts: Parts) -> dict[str, tuple[int, ...]]:
    return {
        f"{component}.{path}": tuple(layer.weight.shape)
        for component, module in parts.items()
        for path, layer in adaptable_layers(component, module).items()
    }


def encoders_named(content: FileContent) -> FileContent:
    return renamed(content, "lora_te1_", "lora_te_text_model_")


def with_alphas(adapter: LoraAdapter) -> FileContent:
    content = encoders_named(util_file(adapter))
    for module in adapter.modules:
        prefix = "lora_unet_" if module.component == "unet" else "lora_te_"
        name = f"{prefix}{module.path.replace('.', '_')}.alpha"
        content.tensors[name] = torch.tensor(module.alpha)
    return content


def some_alphas(adapter: LoraAdapter) -> FileContent:
    drop = set(sorted(with_alphas(adapter).tensors)[::3])
    return without(with_alphas(adapter), lambda name: name in drop and name.endswith("alpha"))


def old_processors(adapter: LoraAdapter) -> FileContent:
    """The names of attention processors, of the attention of the UNet alone."""
    tensors = {}
    for module in adapter.modules:
        layer, _, name = module.path.removesuffix(".0").rpartition(".")
        if module.component == "unet" and name.startswith("to_"):
            stem = f"unet.{layer}.processor.{name}_lora"
            tensors[f"{stem}.down.weight"], tensors[f"{stem}.up.weight"] = module.down, module.up
    return FileContent(tensors)


def with_patterns(adapter: LoraAdapter) -> FileContent:
    """PEFT's names with settings that contain regular expressions."""
    settings: dict[str, object] = {}
    for component in ("unet", "text_encoder"):
        settings |= {
            f"{component}.r": 2,
            f"{component}.target_modules": [*ATTENTION, "fc1", "fc2"],
            f"{component}.lora_alpha": 4,
            f"{component}.alpha_pattern": {r"attn1\.to_[qk]|mlp\.fc1": 32, ".*conv.?": 1},
        }
    content = peft_file(adapter, text_model=False)
    return FileContent(content.tensors, {"lora_adapter_metadata": json.dumps(settings)})


SD_FILES: dict[str, Make] = {
    "old attention processors": old_processors,
    "settings with regular expressions": with_patterns,
    "alphas": with_alphas,
    "alphas of many sizes": lambda adapter: with_alphas(mixed(adapter)),
    "alphas on some modules": some_alphas,
    "no alphas, many ranks": lambda adapter: without(
        with_alphas(mixed(adapter)), lambda name: name.endswith(".alpha")
    ),
    "numbered encoder": lambda adapter: renamed(with_alphas(adapter), "lora_te_", "lora_te1_"),
    "diffusers' own conversion": util_file,
    "a block by SDXL's name": lambda adapter: renamed(with_alphas(adapter), *MIDDLE),
    "an encoder without out_proj": lambda adapter: without(
        with_alphas(adapter), lambda name: "out_proj" in name
    ),
    "peft": peft_file,
    "peft of transformers 5": lambda adapter: peft_file(adapter, text_model=False),
    "example scripts": script_file,
}


def actual(content: FileContent, parts: Parts, family: BaseFamily, path: Path) -> dict[str, float]:
    """The scale of every layer that diffusers changed, by canonical key."""
    save_file({n: t.contiguous() for n, t in content.tensors.items()}, path, dict(content.metadata))
    with load_with_diffusers(path, parts, family):
        return {key: layer.scaling[ADAPTER_NAME] for key, layer in _lora_layers(parts)}


@pytest.mark.parametrize("make", SD_FILES.values(), ids=SD_FILES.keys())
def test_the_rule_says_what_diffusers_does_with_sd_files(
    make: Make, shallow_sd15_parts: Parts, tmp_path: Path
) -> None:
    shapes = shapes_of(shallow_sd15_parts)
    content = make(random_adapter(shapes, rank=2, choose=everything))
    content = FileContent(dict(sorted(content.tensors.items())), content.metadata)
    said = read_as_diffusers(content, BaseLayout(SD1, shapes))
    found = actual(content, shallow_sd15_parts, SD1, tmp_path / "a.safetensors")
    assert {key: patch.scale for key, patch in said.patches.items()} == pytest.approx(found)


@pytest.mark.parametrize("naming", ["one alpha", "mixed alphas", "both namings", "size embedding"])
def test_the_rule_says_what_diffusers_does_with_sdxl_files(
    naming: str, sdxl_parts: Parts, tmp_path: Path
) -> None:
    shapes = shapes_of(sdxl_parts)
    adapter = random_adapter(
        shapes,
        rank=2,
        choose=lambda key: key.endswith(("to_q", "to_out.0", "_proj", "fc1", "linear_1")),
    )
    path = tmp_path / "a.safetensors"
    one, form = WeightDtype.FP32, FileFormat.KOHYA
    export(adapter, path, format=form, dtype=one, metadata=metadata(family=SDXL))
    tensors = dict(FileContent.read(path).tensors)
    if naming == "mixed alphas":
        for index, name in enumerate(n for n in tensors if n.endswith(".alpha")):
            tensors[name] = torch.tensor((1.0, 1.0, 2.0, 3.0)[index % 4])
    content = FileContent(tensors)
    if naming == "size embedding":
        content = renamed(content, "unet_label_emb_0_0", "unet_add_embedding_linear_1")
    if naming == "both namings":
        content = renamed(content, "unet_middle_block_1_", "unet_mid_block_attentions_0_")
    content = FileContent(dict(sorted(content.tensors.items())))
    said = read_as_diffusers(content, BaseLayout(SDXL, shapes))
    found = actual(content, sdxl_parts, SDXL, path)
    assert {key: patch.scale for key, patch in said.patches.items()} == pytest.approx(found)
    assert (len(found) < len(adapter.modules)) is (naming in ("both namings", "size embedding"))


def test_a_flat_projection_is_refused(shallow_sd15_parts: Parts, tmp_path: Path) -> None:
    shapes = shapes_of(shallow_sd15_parts)
    content = with_alphas(random_adapter(shapes, rank=2, choose=attention))
    stem = "lora_unet_down_blocks_0_attentions_0_proj_in"
    tensors = {
        **content.tensors,
        f"{stem}.lora_down.weight": torch.randn(2, 32),
        f"{stem}.lora_up.weight": torch.randn(32, 2),
    }
    with pytest.raises(DiffusersRefusal):
        actual(FileContent(tensors), shallow_sd15_parts, SD1, tmp_path / "a.safetensors")


def test_files_that_the_rule_rejects_are_rejected(
    shallow_sd15_parts: Parts, tmp_path: Path
) -> None:
    shapes = shapes_of(shallow_sd15_parts)
    adapter = random_adapter(shapes, rank=2, choose=attention)
    good = with_alphas(adapter)
    encoder = random_adapter(shapes, rank=2, choose=lambda key: key.endswith("fc1"))
    other_rank = json.dumps(
        {"unet.r": 2, "unet.lora_alpha": 2, "unet.rank_pattern": {r"attn1\.to_.": 4}}
    )
    for bad in (
        peft_file(encoder),
        without(good, lambda name: "out_proj" in name),
        without(renamed(good, *MIDDLE), lambda name: "n_blocks" in name or "p_blocks" in name),
        FileContent(good.tensors, {"lora_adapter_metadata": '{"unet.r": 2}'}),
        FileContent({**good.tensors, "bundle_emb.x": torch.zeros(1)}),
        FileContent({**good.tensors, "lora_unet_conv_norm_out.w_norm": torch.zeros(32)}),
        FileContent({**good.tensors, "lora_unet_conv_in.diff_b": torch.zeros(32)}),
        FileContent(with_patterns(adapter).tensors, {"lora_adapter_metadata": other_rank}),
    ):
        assert read_as_diffusers(bad, BaseLayout(SD1, shapes)).rejection
        with pytest.raises(DiffusersRefusal):
            actual(bad, shallow_sd15_parts, SD1, tmp_path / "a.safetensors")
    assert not list(_lora_layers(shallow_sd15_parts))  # nothing remains loaded


@pytest.mark.parametrize("form", [FileFormat.KOHYA, FileFormat.PEFT])
@pytest.mark.parametrize("kind", wide_but(["even", "uneven"], "uneven"))
@pytest.mark.parametrize("family", [SD1, SDXL])
def test_diffusers_loads_our_files_as_they_were_trained(
    form: FileFormat, kind: str, family: BaseFamily, request: Any, tmp_path: Path
) -> None:
    parts: Parts = request.getfixturevalue("sd15_parts" if family is SD1 else "sdxl_parts")
    adapter = random_adapter(shapes_of(parts), rank=2, choose=everything)
    # only a part: peft compares every layer with every pattern
    some = [m for n, m in enumerate(adapter.modules) if n % 7 == 0 or "out_proj" in m.path]
    adapter = replace(adapter, modules=tuple(some))
    adapter = mixed(adapter) if kind == "uneven" else adapter
    path = tmp_path / "a.safetensors"
    half = WeightDtype.FP16
    export(adapter, path, format=form, dtype=half, metadata=metadata(family=family))
    with load_with_diffusers(path, parts, family):
        found = measure_loaded_adapter(adapter, parts)
    assert found.worst_error < 2e-3
    assert found.modules == len(adapter.modules)
    wrong = replace(adapter, modules=tuple(replace(m, alpha=2 * m.alpha) for m in adapter.modules))
    with load_with_diffusers(path, parts, family):
        assert measure_loaded_adapter(wrong, parts).worst_error == pytest.approx(0.5, abs=1e-2)
        fewer = replace(adapter, modules=adapter.modules[1:])
        assert measure_loaded_adapter(fewer, parts).worst_module == adapter.modules[0].key


def test_the_weights_of_a_real_base_move_by_the_adapter_and_back(
    small_starter: Path, tmp_path: Path
) -> None:
    base = load_base(small_starter)
    parts = base.adaptable()
    adapter = random_adapter(shapes_of(parts))
    path = tmp_path / "a.safetensors"
    form, half = FileFormat.KOHYA, WeightDtype.FP16
    export(adapter, path, format=form, dtype=half, metadata=metadata(family=SD1))
    before = {n: t.clone() for part in parts.values() for n, t in part.state_dict().items()}
    with load_with_diffusers(path, parts, SD1):
        moved = measure_loaded_adapter(adapter, parts, weights=True)
        assert (moved.weights, moved.modules) == (True, len(adapter.modules))
        assert 1e-5 < moved.worst_error < 2e-3
    after = {n: t for part in parts.values() for n, t in part.state_dict().items()}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_base_of_full_size_is_checked_without_its_weights(tmp_path: Path) -> None:
    wide = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768}
    unet = strip_weights(build_module("UNet2DConditionModel", {"sample_size": 64, **wide}))
    text = strip_weights(
        build_module("CLIPTextModel", {"hidden_size": 768, "num_hidden_layers": 2})
    )
    parts = {"unet": unet, "text_encoder": text}
    held = sum(p.untyped_storage().nbytes() for p in unet.parameters())
    assert held == 4 * len(list(unet.parameters()))  # shapes of 3.4 GB, one number each
    adapter = random_adapter(
        shapes_of(parts), rank=2, choose=lambda key: key.endswith(("attn2.to_k", "q_proj"))
    )
    path = tmp_path / "a.safetensors"
    form, half = FileFormat.PEFT, WeightDtype.FP16
    export(adapter, path, format=form, dtype=half, metadata=metadata(family=SD1))
    with load_with_diffusers(path, parts, SD1):
        assert measure_loaded_adapter(adapter, parts).worst_error < 2e-3

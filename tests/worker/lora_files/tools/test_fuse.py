"""A fused base generates the same images as base and adapter, and is written atomically."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

import worker.core.starter
from tests.worker.base_shapes import base_shapes
from tests.worker.bases.tiny_models import (
    SHALLOW_SD15,
    SYMMETRIC,
    WIDTH,
    autoencoder,
    clip_to_ldm,
    clip_to_open_clip,
    save_single,
    sd2_unet,
    text_config,
)
from tests.worker.bases.tiny_zimage import save_zimage
from tests.worker.lora_files.random_adapters import random_adapter
from worker.core.bases.family import BaseModelError
from worker.core.bases.load import LoadedBase, load_base
from worker.core.families.family import Component
from worker.core.inference.config import RenderConfig
from worker.core.inference.merge import MergedWeights
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.compatible import AdapterMismatchError
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.tools import stream
from worker.core.lora_files.tools.checkpoint import BaseCheckpoint
from worker.core.lora_files.tools.fuse import FuseOptions, fuse_adapters
from worker.core.lora_files.tools.ldm_names import LdmNames
from worker.core.lora_files.tools.stack import ToolError
from worker.core.safetensors_header import read_header
from worker.core.words import FusedDtype, FuseLayout

FOLDER32 = FuseOptions(FuseLayout.DIFFUSERS, FusedDtype.FP32)
SINGLE32 = FuseOptions(FuseLayout.SINGLE, FusedDtype.FP32)


@pytest.fixture(scope="module")
def sd15_file(tmp_path_factory: pytest.TempPathFactory, sd15_folder: Path) -> Path:
    base = load_base(sd15_folder)
    return save_single(
        tmp_path_factory.mktemp("fuse-file") / "tiny.safetensors",
        unet=base.denoiser,
        vae=base.vae,
        encoders={"cond_stage_model.transformer.": clip_to_ldm(base.text_encoders[0])},
        metadata={"modelspec.resolution": "64x64", "modelspec.hash_sha256": "0x00", "note": "kept"},
    )


def state(base: LoadedBase) -> dict[str, Tensor]:
    return {
        f"{component}.{name}": tensor.float().clone()
        for component, module in {**base.adaptable(), "vae": base.vae}.items()
        for name, tensor in module.state_dict().items()
    }


def with_adapters(path: Path, stack: list[LoadedAdapter]) -> dict[str, Tensor]:
    """The weights that the playground uses."""
    base = load_base(path)
    MergedWeights(base.adaptable()).apply(stack)
    return state(base)


def stack_for(path: Path) -> list[LoadedAdapter]:
    """Two adapters for every fifth layer: all kinds of layers, and some that are unchanged."""
    with BaseCheckpoint(path) as base:
        shapes = dict(sorted(base.target_shapes.items())[::5])
    return [
        LoadedAdapter("one", random_adapter(shapes, seed=1), 0.8),
        LoadedAdapter("two", random_adapter(shapes, seed=2, rank=2), -0.5, text_encoder_weight=0.3),
    ]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    wrong = [n for n in found if not torch.allclose(found[n], expected[n], rtol=0, atol=1e-7)]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("sd15_folder", FOLDER32),
        pytest.param("sd15_folder", SINGLE32, marks=pytest.mark.wide),
        pytest.param("sd15_file", FOLDER32, marks=pytest.mark.wide),
        ("sd15_file", SINGLE32),
        ("sdxl_folder", SINGLE32),
    ],
)
def test_the_weights_are_those_of_base_and_adapters(
    source: str, options: FuseOptions, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base: Path = request.getfixturevalue(source)
    stack = stack_for(base)
    out = tmp_path / ("out" if options is FOLDER32 else "out.safetensors")
    seen: list[tuple[int, int]] = []
    made = fuse_adapters(base, stack, out, options, on_tensor=lambda *at: seen.append(at))
    assert_same(state(load_base(out)), with_adapters(base, stack))
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert made.layers == len(stack[0].adapter.modules)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name]


def test_a_folder_with_a_transformer_keeps_its_parts(tmp_path: Path) -> None:
    base, out = save_zimage(tmp_path / "base"), tmp_path / "out"
    stack = [replace(one, text_encoder_weight=None) for one in stack_for(base)]
    fuse_adapters(base, stack, out, FOLDER32)
    assert_same(state(load_base(out)), with_adapters(base, stack))
    names = [
        sorted(str(path.relative_to(where)) for path in where.rglob("*")) for where in (base, out)
    ]
    assert names[1] == sorted([*names[0], "brushwork.json"])
    with BaseCheckpoint(base) as found:
        assert {key.split(".")[0] for key in found.target_shapes} == {"unet"}
    with pytest.raises(ToolError, match="Z-Image bases are only written as folders"):
        fuse_adapters(base, stack, tmp_path / "out.safetensors", SINGLE32)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_single_file_keeps_its_own_names_and_words(sd15_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    fuse_adapters(
        sd15_file, stack_for(sd15_file), out, FuseOptions(FuseLayout.SINGLE, FusedDtype.BF16)
    )
    before, after = load_file(sd15_file), load_file(out)
    assert before.keys() == after.keys()
    assert {name: t.shape for name, t in before.items()} == {n: t.shape for n, t in after.items()}
    floats = {t.dtype for t in after.values() if t.dtype.is_floating_point}
    assert floats == {torch.bfloat16}
    ids = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    assert torch.equal(after[ids], before[ids])
    told = read_header(out).metadata
    assert (told["note"], told["modelspec.resolution"]) == ("kept", "64x64")
    assert told["modelspec.merged_from"] == "tiny, one, two"
    assert "modelspec.hash_sha256" not in told


def test_an_sd2_file_changes_the_fused_attention_of_its_encoder(tmp_path: Path) -> None:
    from transformers import CLIPTextModel

    torch.manual_seed(3)
    encoder = CLIPTextModel(
        text_config(
            vocab_size=600,
            hidden_size=1024,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=16,
        )
    )
    base = save_single(
        tmp_path / "sd2.safetensors",
        unet=sd2_unet(**SHALLOW_SD15 | SYMMETRIC),
        vae=autoencoder(),
        encoders={"cond_stage_model.model.": clip_to_open_clip(encoder, extra_layer=True)},
    )
    stack = stack_for(base)
    expected = with_adapters(base, stack)
    single, folder = tmp_path / "out.safetensors", tmp_path / "out"
    fuse_adapters(base, stack, single, SINGLE32)
    fuse_adapters(base, stack, folder, FOLDER32)
    assert_same(state(load_base(single)), expected)
    assert_same(state(load_base(folder)), expected)
    again = tmp_path / "again.safetensors"
    fuse_adapters(folder, stack, again, SINGLE32)
    assert_same(state(load_base(again)), with_adapters(folder, stack))
    told, first = load_file(again), load_file(base)
    told |= {n: t for n, t in first.items() if n.endswith(("position_ids", "logit_scale"))}
    assert told.keys() == first.keys()  # with the layer that is not used


def test_the_fused_starter_generates_the_images_of_base_and_adapter(tmp_path: Path) -> None:
    base = worker.core.starter.PATH
    shapes = base_shapes(load_base(base))
    adapter = random_adapter(shapes, strength=0.03)
    out = tmp_path / "fused"
    fuse_adapters(base, [LoadedAdapter("one", adapter, 0.8)], out, FOLDER32)
    config = RenderConfig(prompt="a red apple", steps=2, seed=3)
    plain = ResidentPipeline.load(base)
    (untouched,) = plain.render(config)
    plain.set_adapters([LoadedAdapter("one", adapter, 0.8, 0.8)])
    (merged,) = plain.render(config)
    (fused,) = ResidentPipeline.load(out).render(config)
    difference = np.abs(np.asarray(fused.image, int) - np.asarray(merged.image, int))
    assert difference.max() <= 1
    assert np.abs(np.asarray(untouched.image, int) - np.asarray(merged.image, int)).mean() > 2
    told = json.loads((out / "brushwork.json").read_text())
    assert told["adapters"] == [{"name": "one", "weight": 0.8, "text_encoder_weight": None}]
    assert (out / "tokenizer" / "tokenizer.json").read_bytes() == (
        base / "tokenizer" / "tokenizer.json"
    ).read_bytes()


def test_diffusers_loads_the_folder_written_from_a_single_file(
    sd15_file: Path, tmp_path: Path
) -> None:
    fuse_adapters(sd15_file, stack_for(sd15_file), tmp_path / "out", FOLDER32)
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "out", local_files_only=True)
    expected = with_adapters(sd15_file, stack_for(sd15_file))
    found = pipe.unet.state_dict()
    assert all(torch.allclose(found[n], expected[f"unet.{n}"], atol=1e-7) for n in found)
    encoder = {n.removeprefix("text_model."): t for n, t in pipe.text_encoder.state_dict().items()}
    key = "encoder.layers.1.self_attn.q_proj.weight"
    expected_text = {
        n.replace("text_encoder.text_model.", "text_encoder."): t for n, t in expected.items()
    }
    assert torch.allclose(encoder[key], expected_text[f"text_encoder.{key}"], atol=1e-7)


def test_keep_leaves_the_stored_number_types(tmp_path: Path) -> None:
    base, out = worker.core.starter.PATH, tmp_path / "out"
    adapter = random_adapter(base_shapes(load_base(base)), seed=4)
    few = LoraAdapter(adapter.modules[:2])
    fuse_adapters(base, [LoadedAdapter("few", few)], out, FuseOptions(dtype=FusedDtype.KEEP))
    before = load_file(base / "unet/diffusion_pytorch_model.safetensors")
    after = load_file(out / "unet/diffusion_pytorch_model.safetensors")
    assert {t.dtype for t in after.values()} == {t.dtype for t in before.values()}
    changed = [n for n in before if not torch.equal(before[n], after[n])]
    changed_paths = {m.path for m in few.modules if m.component is Component.DENOISER}
    assert {n.removesuffix(".weight") for n in changed} == changed_paths


def refused(
    base: Path, stack: list[LoadedAdapter], out: Path, options: FuseOptions = FOLDER32
) -> str:
    before = sorted(path.name for path in out.parent.iterdir())
    with pytest.raises((ToolError, AdapterMismatchError)) as caught:
        fuse_adapters(base, stack, out, options, base_name="“tiny”")
    assert sorted(path.name for path in out.parent.iterdir()) == before
    return str(caught.value)


def test_an_adapter_for_another_base_is_refused_before_anything_is_written(
    smallest_sd15_folder: Path, smallest_sdxl_folder: Path, tmp_path: Path
) -> None:
    sentence = refused(smallest_sd15_folder, stack_for(smallest_sdxl_folder)[:1], tmp_path / "out")
    assert sentence.startswith(
        f"This adapter was made for a base with cross-attention width {2 * WIDTH}; "
        f"“tiny” has {WIDTH}."
    )


def test_a_base_whose_autoencoder_fits_no_single_file_is_refused(tmp_path: Path) -> None:
    base = worker.core.starter.PATH
    stack = [LoadedAdapter("one", random_adapter(base_shapes(load_base(base))))]
    sentence = refused(base, stack, tmp_path / "out.safetensors", SINGLE32)
    assert "AutoencoderTiny" in sentence
    assert "Choose a diffusers folder." in sentence


def test_a_tensor_that_single_files_have_no_name_for_is_refused() -> None:
    names = LdmNames(True, vae_levels=4, open_clip=frozenset(), prefixes={})
    assert names.of("unet", "mid_block.resnets.0.norm1.bias").name.endswith("0.in_layers.0.bias")
    with pytest.raises(BaseModelError, match=r"cannot contain the tensor .*spatial"):
        names.of("unet", "mid_block.resnets.0.spatial.weight")


def test_an_existing_file_is_not_overwritten(smallest_sd15_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert "out already exists" in refused(
        smallest_sd15_folder, stack_for(smallest_sd15_folder), tmp_path / "out"
    )


def test_too_little_disk_space_is_reported_before_anything_is_written(
    sd15_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=30_000_000)
    monkeypatch.setattr(stream.shutil, "disk_usage", lambda _: usage)
    sentence = refused(sd15_folder, stack_for(sd15_folder), tmp_path / "out")
    assert "only 30 MB are free" in sentence


@pytest.mark.parametrize("options", [FOLDER32, SINGLE32])
def test_a_disk_that_becomes_full_leaves_nothing(
    options: FuseOptions,
    smallest_sd15_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real: Callable[[stream.TensorItem], memoryview] = stream._tensor_bytes
    written: list[str] = []

    def full(item: stream.TensorItem) -> memoryview:
        written.append(item.name)
        if len(written) > 20:
            raise OSError(28, "No space left on device")
        return real(item)

    monkeypatch.setattr(stream, "_tensor_bytes", full)
    sentence = refused(
        smallest_sd15_folder, stack_for(smallest_sd15_folder), tmp_path / "out", options
    )
    assert sentence.startswith("The disk is full")


@pytest.mark.parametrize("options", [FOLDER32, SINGLE32])
def test_a_stop_leaves_nothing_and_the_next_attempt_clears_up_after_a_killed_one(
    options: FuseOptions, smallest_sd15_folder: Path, tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 9:
            raise Stopped

    out = tmp_path / "out"
    with pytest.raises(Stopped):
        fuse_adapters(
            smallest_sd15_folder, stack_for(smallest_sd15_folder), out, options, on_tensor=stop
        )
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.12ab.part").mkdir()
    (tmp_path / ".out.12ab.part" / "half").write_bytes(b"half")
    (tmp_path / ".out.x.part").write_bytes(b"half")
    (tmp_path / ".other.x.part").write_bytes(b"not ours")
    fuse_adapters(smallest_sd15_folder, stack_for(smallest_sd15_folder), out, options)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.x.part", "out"]


def test_a_weight_that_leaves_fp16_is_refused(smallest_sd15_folder: Path, tmp_path: Path) -> None:
    key, shape = next(iter(base_shapes(load_base(smallest_sd15_folder)).items()))
    component, _, path = key.partition(".")
    down = torch.full((1, *shape[1:]), 1e4)
    up = torch.full((shape[0], 1, *[1] * (len(shape) - 2)), 1e4)
    huge = LoraAdapter((LoraModule(Component(component), path, down, up, 1.0),))
    options = FuseOptions(FuseLayout.DIFFUSERS, FusedDtype.FP16)
    sentence = refused(
        smallest_sd15_folder, [LoadedAdapter("huge", huge)], tmp_path / "out", options
    )
    assert "too large for f16. Choose bf16 or fp32" in sentence

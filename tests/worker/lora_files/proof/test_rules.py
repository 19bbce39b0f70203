"""Results of the rules other than counts: the detected family and unsupported layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.worker.lora_files.proof.files import (
    attention,
    module,
    renamed,
    results,
    thin_adapter,
    util_file,
    without,
)
from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.proof.check import compare_changes
from worker.core.lora_files.proof.content import FileContent
from worker.core.lora_files.proof.layout import BaseLayout

SD1, SD2, SDXL = BaseFamily.SD1, BaseFamily.SD2, BaseFamily.SDXL
MIDDLE = ("lora_unet_mid_block_attentions_0_", "lora_unet_middle_block_1_")
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


def file_of(adapter: LoraAdapter, metadata: dict[str, str] | None = None) -> FileContent:
    """A correct SD file with alphas, with names written here."""
    content = renamed(util_file(adapter), "lora_te1_", "lora_te_text_model_")
    tensors = {
        name: torch.tensor(8.0) if name.endswith(".alpha") else tensor
        for name, tensor in content.tensors.items()
    }
    return FileContent(tensors, metadata or {})


@pytest.mark.parametrize(
    ("metadata", "a1111", "forge"),
    [
        ({}, "", ""),
        ({"format": "pt"}, "SD 1.x", "SD 1.x"),
        ({"ss_v2": "True", "ss_base_model_version": "sd_v2"}, "SD 2.x", "SD 2.x"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "SDXL", "SDXL"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "SD 1.x", "SDXL"),
    ],
)
def test_the_web_uis_rely_on_the_header(metadata: dict[str, str], a1111: str, forge: str) -> None:
    adapter = thin_adapter(SD1, attention)
    found = results(file_of(adapter, metadata), adapter, SD1)
    assert (found["a1111"].seen_as, found["forge"].seen_as) == (a1111, forge)
    assert found["invokeai"].seen_as == "SD 1.x"
    wrong = a1111 not in ("", "SD 1.x")
    assert (found["a1111"].verdict == "wrong") is wrong
    assert ("mistaken for" in found["a1111"].sentence) is wrong


def test_a_right_file_is_described_in_one_sentence() -> None:
    adapter = thin_adapter(SD1, attention)
    found = results(file_of(adapter, {"ss_v2": "False"}), adapter, SD1)
    assert found["a1111"].sentence == "528 of 528 tensors used, alpha correct, detected as SD 1.x"
    assert found["comfyui"].sentence == "528 of 528 tensors used, alpha correct"
    assert found["a1111"].worst_error == 0


@pytest.mark.parametrize(("family", "part"), [(SD2, "text_encoder."), (SDXL, "text_encoder_2.")])
def test_a1111_patches_open_clips_attention_only_whole(family: BaseFamily, part: str) -> None:
    adapter = thin_adapter(family, attention)
    half = replace(
        adapter,
        modules=tuple(
            m
            for m in adapter.modules
            if not (m.key.startswith(part) and m.key.endswith("out_proj"))
        ),
    )
    prefix = "lora_te_" if family is SD2 else "lora_te1_"
    content = renamed(util_file(half), "lora_te1_", f"{prefix}text_model_")
    tensors = {n: t * 2.0 if n.endswith(".alpha") else t for n, t in content.tensors.items()}
    found = results(FileContent(tensors), half, family)["a1111"]
    lost = sum(m.key.startswith(part) for m in half.modules)
    assert (found.beyond, found.missed, found.verdict) == (lost, 0, "limited")
    assert found.used == found.tensors - 3 * lost
    assert f"{lost} modules of a layer type that is not supported" in found.sentence
    # the file is wrong if the fourth projection was trained but is missing in it
    found = results(FileContent(tensors), adapter, family)["a1111"]
    assert found.verdict == "partly"


def test_layers_outside_the_blocks_are_beyond_some_programs() -> None:
    adapter = LoraAdapter((module(LAYER, size=768), module("unet.time_embedding.linear_1")))
    tensors = dict(file_of(adapter).tensors)
    found = results(FileContent(tensors), adapter, SD1)
    assert {name for name, result in found.items() if result.verdict == "limited"} == {
        "kohya",
        "cpp",
    }
    assert found["comfyui"].verdict == found["a1111"].verdict == "right"


def test_invokeai_cannot_place_a_file_without_attention_on_text() -> None:
    adapter = LoraAdapter((module("unet.mid_block.resnets.0.time_emb_proj", size=1280),))
    mistaken = results(file_of(adapter), adapter, SD1)["invokeai"]
    assert (mistaken.seen_as, mistaken.verdict, mistaken.needed) == ("SDXL", "wrong", False)
    adapter = LoraAdapter((module("unet.mid_block.resnets.0.conv1"),))
    unknown = results(file_of(adapter), adapter, SD1)["invokeai"]
    assert (unknown.verdict, unknown.needed) == ("unread", False)
    assert "no layer has its text width" in unknown.sentence


def test_a_base_that_other_programs_cannot_load_differs_from_a_wrong_file() -> None:
    adapter = LoraAdapter((module(LAYER, size=192),))
    found = results(file_of(adapter), adapter, SD1)
    assert {name for name, result in found.items() if result.verdict != "foreign"} == {"diffusers"}
    assert found["comfyui"].sentence == "3 of 3 tensors used, alpha correct"
    assert "No base model of this size is supported (text width 192)." in found["invokeai"].sentence
    bad = results(renamed(file_of(adapter), "attn2", "attn3"), adapter, SD1)
    assert bad["comfyui"].verdict == "unread"


def test_sdxl_with_both_namings_is_refused_or_loses_a_half() -> None:
    adapter = thin_adapter(SDXL, attention)
    content = renamed(util_file(adapter), "lora_te1_", "lora_te1_text_model_")
    mixed = renamed(content, "lora_unet_mid_block_attentions_0_", "lora_unet_middle_block_1_")
    found = results(mixed, adapter, SDXL)
    assert "mix both block namings" in found["invokeai"].sentence
    middle = sum("mid_block" in m.path for m in adapter.modules)
    assert found["diffusers"].missed == middle


def test_diffusers_refuses_what_it_cannot_place() -> None:
    adapter = thin_adapter(SD1, attention)
    content = file_of(adapter)
    ldm = renamed(content, *MIDDLE)
    assert results(ldm, adapter, SD1)["diffusers"].missed == 8  # the middle block, without an error
    ldm = without(ldm, lambda name: "down_blocks" in name or "up_blocks" in name)
    assert "only converted for SDXL pipelines" in results(ldm, adapter, SD1)["diffusers"].sentence
    both = FileContent(content.tensors, {"lora_adapter_metadata": "{}"})
    assert "both alphas and adapter settings" in results(both, adapter, SD1)["diffusers"].sentence
    strange = FileContent({**content.tensors, "bundle_emb.x": torch.zeros(1)})
    assert "invalid LoRA" in results(strange, adapter, SD1)["diffusers"].sentence


def test_alphas_that_are_missing_on_some_modules_are_guessed_by_diffusers() -> None:
    adapter = thin_adapter(SD1, attention)
    halved = tuple(
        replace(m, alpha=float(m.rank)) if index % 2 else m
        for index, m in enumerate(adapter.modules)
    )
    gone = {m.path.replace(".", "_") for m in halved if m.alpha == m.rank}

    def is_gone(name: str) -> bool:
        stem = name.removeprefix("lora_unet_").removeprefix("lora_te_")
        return stem.removesuffix(".alpha") in gone and name.endswith(".alpha")

    content = without(file_of(adapter), is_gone)
    found = results(content, LoraAdapter(halved), SD1)
    assert found["kohya"].wrong == found["comfyui"].wrong == 0
    assert found["diffusers"].wrong > 0
    assert found["diffusers"].strength == pytest.approx(2, abs=1e-3)


def test_an_alpha_of_0_counts_as_the_rank_in_kohya_alone() -> None:
    adapter = LoraAdapter((replace(module(LAYER, size=768), alpha=4.0),))
    content = file_of(adapter)
    for name in content.tensors:
        if name.endswith(".alpha"):
            content.tensors[name] = torch.tensor(0.0)
    found = results(content, adapter, SD1)
    assert found["kohya"].verdict == "right"
    assert (found["comfyui"].verdict, found["comfyui"].strength) == ("wrong", 0)


def test_the_layout_gives_each_layer_of_the_unet_a_distinct_ldm_path() -> None:
    for family in (SD1, SD2, SDXL):
        layout = BaseLayout(family, family_shapes(family))
        unet = [key for key in layout.shapes if key.startswith("unet.")]
        assert len(layout.ldm) == len(unet) == len(set(layout.ldm.values()))
        assert layout.is_standard
    sdxl = BaseLayout(SDXL, family_shapes(SDXL)).ldm
    assert sdxl["unet.up_blocks.0.upsamplers.0.conv"] == "output_blocks.2.2.conv"
    sd1 = BaseLayout(SD1, family_shapes(SD1)).ldm
    assert sd1["unet.up_blocks.0.upsamplers.0.conv"] == "output_blocks.2.1.conv"
    assert sd1["unet.down_blocks.2.downsamplers.0.conv"] == "input_blocks.9.0.op"


def test_the_similarity_is_that_of_the_full_matrices() -> None:
    torch.manual_seed(0)
    down, up, other_down, other_up = (torch.randn(*size) for size in ((3, 5), (7, 3)) * 2)
    found, exact = other_up @ other_down, 0.5 * up @ down
    similarity = compare_changes((other_down, other_up), (down, up), 0.5)
    expected = (2 * found - exact).norm() / exact.norm()
    assert similarity.error(2.0) == pytest.approx(expected.item(), rel=1e-5)
    same = compare_changes((down, up), (down, up), 0.5)
    assert (same.error(0.5), same.strength(1.0)) == (0.0, pytest.approx(2.0))
    nothing = compare_changes((down, up), (down, torch.zeros(7, 3)), 0.5)
    assert nothing.error(1.0) == float("inf")
    assert nothing.error(0.0) == 0

"""The rules agree with the measured behavior of the programs (adapter formats, section 6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker.lora_files.proof.files import (
    attention,
    cell,
    everything,
    mixed,
    peft_file,
    renamed,
    results,
    script_file,
    thin_adapter,
    util_file,
)
from tests.worker.lora_files.random_adapters import metadata
from worker.core.families.family import BaseFamily
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.export import export
from worker.core.lora_files.proof.content import FileContent
from worker.core.words import FileFormat, WeightDtype

SD1, SD2, SDXL = BaseFamily.SD1, BaseFamily.SD2, BaseFamily.SDXL
KOHYA, PEFT = FileFormat.KOHYA, FileFormat.PEFT


@pytest.fixture
def golden(tmp_path: Path):
    """A function that exports an adapter and returns the content of the file."""

    def write(adapter: LoraAdapter, family: BaseFamily, form: FileFormat = KOHYA) -> FileContent:
        path = tmp_path / "file.safetensors"
        export(adapter, path, format=form, dtype=WeightDtype.FP32, metadata=metadata(family=family))
        return FileContent.read(path)

    return write


@pytest.mark.parametrize(
    ("family", "choose", "tensors", "modules"),
    [
        pytest.param(SD1, attention, 528, 176, marks=pytest.mark.wide),
        (SD1, everything, 1050, 350),
        pytest.param(SDXL, attention, 2208, 736, marks=pytest.mark.wide),
        (SDXL, everything, 3156, 1052),
        (SD2, everything, None, None),
    ],
)
def test_the_main_download_is_right_in_every_program(
    golden, family, choose, tensors, modules
) -> None:
    adapter = thin_adapter(family, choose)
    content = golden(adapter, family)
    if tensors:
        assert (len(content.tensors), len(adapter.modules)) == (tensors, modules)
    whole = (len(adapter.modules), 0, 0, 0)
    found = results(content, adapter, family)
    assert {name: cell(result) for name, result in found.items()} == dict.fromkeys(found, whole)
    assert all(result.verdict == "right" for result in found.values()), found


UTIL = (0, 128, 48, 144)
NOTHING = (0, 0, 176, 352)


def test_diffusers_own_conversion_to_kohya_comes_out_at_half_strength_without_the_encoder() -> None:
    adapter = thin_adapter(SD1, attention)
    found = results(util_file(adapter), adapter, SD1)
    for name in ("comfyui", "kohya", "a1111"):
        assert cell(found[name]) == UTIL, name
        assert found[name].strength == pytest.approx(0.5, abs=1e-3)
    assert cell(found["diffusers"])[:3] == (0, 176, 0)
    assert cell(found["forge"]) == (0, 0, 176, 528)
    assert found["forge"].verdict == "unread"
    assert found["cpp"].used == 384


def test_the_peft_file_is_read_by_diffusers_alone() -> None:
    adapter = thin_adapter(SD1, attention)
    content = peft_file(adapter, text_model=False)
    found = results(content, adapter, SD1)
    for name in ("comfyui", "kohya", "a1111", "forge", "invokeai"):
        assert cell(found[name]) == NOTHING, name
        assert found[name].verdict == "unread"
    assert found["cpp"].used == 256
    # without settings alpha is the rank, which gives half the trained strength
    assert cell(found["diffusers"]) == (0, 176, 0, 0)
    assert found["diffusers"].strength == pytest.approx(0.5, abs=1e-3)


def test_comfyui_reads_a_part_of_a_peft_file_without_an_error(golden) -> None:
    adapter = thin_adapter(SD1, everything)
    found = results(peft_file(adapter, text_model=False), adapter, SD1)
    assert found["comfyui"].tensors - found["comfyui"].used == 400
    assert found["comfyui"].verdict == "wrong"
    assert found["comfyui"].strength == pytest.approx(0.5, abs=1e-3)
    ours = golden(thin_adapter(SD1, attention), SD1, PEFT)
    read = results(ours, thin_adapter(SD1, attention), SD1)
    assert cell(read["diffusers"]) == (176, 0, 0, 0)
    assert read["comfyui"].tensors - read["comfyui"].used == 256


def test_the_file_of_the_example_scripts_is_read_nowhere_as_trained() -> None:
    adapter = thin_adapter(SD1, attention)
    found = results(script_file(adapter), adapter, SD1)
    for name in ("kohya", "a1111", "forge", "invokeai"):
        assert cell(found[name]) == NOTHING, name
    assert cell(found["comfyui"]) == NOTHING
    assert cell(found["diffusers"]) == (0, 176, 0, 0)


def test_an_sd_file_with_a_numbered_encoder_loses_it_in_some_programs(golden) -> None:
    adapter = thin_adapter(SD1, attention)
    found = results(renamed(golden(adapter, SD1), "lora_te_", "lora_te1_"), adapter, SD1)
    for name in ("comfyui", "a1111", "forge", "diffusers", "cpp"):
        assert cell(found[name]) == (176, 0, 0, 0), name
    for name in ("kohya", "invokeai"):
        assert cell(found[name]) == (128, 0, 48, 144), name
        assert found[name].verdict == "partly"


def test_mixed_alphas_go_wrong_in_diffusers_unless_folded(golden) -> None:
    adapter = mixed(thin_adapter(SD1, attention))
    folded = golden(adapter, SD1)
    assert not any(name.endswith(".alpha") for name in folded.tensors)
    for name, result in results(folded, adapter, SD1).items():
        assert cell(result) == (176, 0, 0, 0), name
        assert "strength correct" in result.sentence
    alphas = with_alphas(adapter)
    found = results(alphas, adapter, SD1)
    for name in ("comfyui", "kohya", "a1111", "forge", "invokeai", "cpp"):
        assert cell(found[name]) == (176, 0, 0, 0), name
    strong = sum(module.alpha == 1 for module in adapter.modules)
    assert cell(found["diffusers"]) == (176 - strong, strong, 0, 0)
    assert found["diffusers"].strength == pytest.approx(8, abs=1e-3)


def with_alphas(adapter: LoraAdapter) -> FileContent:
    import torch

    found = util_file(adapter)
    fixed = renamed(found, "lora_te1_", "lora_te_text_model_")
    for module in adapter.modules:
        prefix = "lora_unet_" if module.component == "unet" else "lora_te_"
        fixed.tensors[f"{prefix}{module.path.replace('.', '_')}.alpha"] = torch.tensor(module.alpha)
    return fixed


def test_sdxl_in_diffusers_names_misses_one_layer_in_a1111() -> None:
    adapter = thin_adapter(SDXL, everything)
    content = util_file(adapter)
    for name, tensor in list(content.tensors.items()):
        if name.endswith(".alpha"):
            content.tensors[name] = tensor.float() * 2
    content = renamed(content, "lora_te1_", "lora_te1_text_model_")
    found = results(content, adapter, SDXL)
    for name in ("comfyui", "kohya", "forge", "invokeai", "diffusers", "cpp"):
        assert cell(found[name]) == (1052, 0, 0, 0), name
    assert cell(found["a1111"]) == (1051, 0, 1, 3)


def test_diffusers_own_conversion_of_sdxl(golden) -> None:
    adapter = thin_adapter(SDXL, attention)
    found = results(util_file(adapter), adapter, SDXL)
    for name in ("comfyui", "kohya", "a1111"):
        assert cell(found[name]) == (0, 688, 48, 144), name
    assert found["cpp"].used == 2064
    adapter = thin_adapter(SDXL, everything)
    found = results(util_file(adapter), adapter, SDXL)
    for name, ignored in {"kohya": 216, "a1111": 219, "comfyui": 216}.items():
        assert found[name].tensors - found[name].used == ignored, name


def test_the_peft_file_of_sdxl_is_refused_or_read_in_part() -> None:
    adapter = thin_adapter(SDXL, attention)
    found = results(peft_file(adapter, text_model=False), adapter, SDXL)
    assert found["comfyui"].tensors - found["comfyui"].used == 1216
    assert found["comfyui"].strength == pytest.approx(0.5, abs=1e-3)
    for name in ("kohya", "a1111", "forge", "invokeai"):
        assert cell(found[name]) == (0, 0, 736, 1472), name
    assert found["cpp"].used == 1120

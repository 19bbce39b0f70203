"""Downloads are complete, faithful, the same each time, and say what they are."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialize

from tests.worker.base_shapes import base_shapes
from tests.worker.lora_files.random_adapters import metadata, random_adapter
from worker.core.bases.load import load_base
from worker.core.families.family import BaseFamily
from worker.core.lora_files.canonical import LoraAdapter, load_adapter, save_adapter
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.export import ExportError, export
from worker.core.lora_files.proof.result import Proof
from worker.core.lora_files.reading import read_adapter
from worker.core.torch_dtypes import TORCH_DTYPES
from worker.core.words import FileFormat, WeightDtype

FORMATS, DTYPES = list(FileFormat), list(WeightDtype)


@pytest.fixture(scope="module")
def adapter(shallow_sd15_folder: Path) -> LoraAdapter:
    return random_adapter(base_shapes(load_base(shallow_sd15_folder)))


@pytest.fixture
def cover(tmp_path: Path) -> Path:
    private = PngInfo()
    private.add_text("parameters", "a secret prompt")
    Image.effect_noise((512, 320), 60).convert("RGB").save(tmp_path / "c.png", pnginfo=private)
    return tmp_path / "c.png"


def write(adapter: LoraAdapter, path: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "format": FileFormat.KOHYA,
        "dtype": WeightDtype.FP16,
        "metadata": metadata(),
    }
    export(adapter, path, **(settings | changes))
    return path


def write_proved(adapter: LoraAdapter, path: Path, *, format: FileFormat) -> Proof:
    dtype, family = WeightDtype.FP16, BaseFamily.SD1
    return export(adapter, path, format=format, dtype=dtype, metadata=metadata(family=family))


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


def weights_file(path: Path, format: FileFormat) -> Path:
    if format is not FileFormat.BUNDLE:
        return path
    with zipfile.ZipFile(path) as archive:
        return Path(archive.extract("my-chalk-final.safetensors", path.parent / "unpacked"))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_download_holds_the_canonical_weights(
    adapter: LoraAdapter, format: FileFormat, dtype: WeightDtype, tmp_path: Path
) -> None:
    path = write(adapter, tmp_path / "download", format=format, dtype=dtype)
    found = {module.key: module for module in read_adapter(weights_file(path, format)).modules}
    assert found.keys() == {module.key for module in adapter.modules}
    rounding = {"fp16": 2**-11, "bf16": 2**-8, "fp32": 0.0}[dtype]
    for module in adapter.modules:
        other = found[module.key]
        assert other.alpha == module.alpha
        assert torch.allclose(other.down, module.down, rtol=rounding, atol=2**-25)
        assert torch.allclose(other.up, module.up, rtol=rounding, atol=2**-25)
    assert all(
        t.dtype is TORCH_DTYPES[dtype] for t in load_file(weights_file(path, format)).values()
    )


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_input_gives_the_same_bytes(
    adapter: LoraAdapter, format: FileFormat, cover: Path, tmp_path: Path
) -> None:
    shuffled = replace(adapter, modules=tuple(reversed(adapter.modules)))
    one = write(adapter, tmp_path / "one", format=format, metadata=metadata(cover=cover))
    two = write(shuffled, tmp_path / "two", format=format, metadata=metadata(cover=cover))
    assert one.read_bytes() == two.read_bytes()


def test_a_file_says_when_its_training_began_and_ended_if_that_is_known(
    adapter: LoraAdapter, tmp_path: Path
) -> None:
    known, unknown = metadata(training_seconds=90.0), metadata()
    told = metadata_of(write(adapter, tmp_path / "trained", metadata=known))
    end = known.created.timestamp()
    assert float(told["ss_training_started_at"]) == end - 90
    assert float(told["ss_training_finished_at"]) == end
    told = metadata_of(write(adapter, tmp_path / "imported", metadata=unknown))
    assert not [key for key in told if key.startswith("ss_training")]


def test_kohya_names_and_alphas_are_those_that_every_loader_reads(
    adapter: LoraAdapter, tmp_path: Path
) -> None:
    tensors = load_file(write(adapter, tmp_path / "a"))
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert tensors[f"{stem}.alpha"].item() == 8.0
    assert tensors[f"{stem}.alpha"].is_floating_point()
    assert tensors[f"{stem}.lora_down.weight"].shape[0] == 4
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight" in tensors
    conv = tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight"]
    assert conv.shape[2:] == (1, 1)


def test_an_alpha_that_half_precision_would_round_stays_exact(
    adapter: LoraAdapter, tmp_path: Path
) -> None:
    uneven = replace(adapter, modules=tuple(replace(m, alpha=8.123) for m in adapter.modules))
    tensors = load_file(write(uneven, tmp_path / "a", dtype=WeightDtype.BF16))
    alphas = {t.item() for name, t in tensors.items() if name.endswith("alpha")}
    assert alphas == {torch.tensor(8.123).item()}


def test_metadata_names_base_trigger_and_architecture(
    adapter: LoraAdapter, cover: Path, tmp_path: Path
) -> None:
    path = write(adapter, tmp_path / "a", metadata=metadata(cover=cover))
    found = metadata_of(path)
    expected = {
        "ss_base_model_version": "sd_1.5",
        "ss_v2": "False",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "8",
        "ss_output_name": "my-chalk-final",
        "ss_sd_model_name": "starter",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "Chalkboard",
        "modelspec.resolution": "64x64",
        "modelspec.date": "2026-03-04T05:06:07+00:00",
        "modelspec.trigger_phrase": "chalkboard, board style",
    }
    assert {key: found.get(key) for key in expected} == expected
    assert json.loads(found["ss_network_args"]) == {"conv_alpha": "8", "conv_dim": "4"}
    assert json.loads(found["ss_tag_frequency"])["my-chalk-final"]["chalkboard"] == 24
    head, _, content = found["modelspec.thumbnail"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (256, 160)


def test_hashes_are_those_of_the_bytes_after_the_header(
    adapter: LoraAdapter, tmp_path: Path
) -> None:
    path = write(adapter, tmp_path / "a")
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert length < 2**20
    digest = hashlib.sha256(content[8 + length :]).hexdigest()
    assert metadata_of(path)["sshs_model_hash"] == digest
    assert metadata_of(path)["modelspec.hash_sha256"] == f"0x{digest}"


def test_kohyas_hashes_are_those_of_its_own_recipe(
    shallow_sd15_folder: Path, tmp_path: Path
) -> None:
    adapter = random_adapter(base_shapes(load_base(shallow_sd15_folder)), rank=24)
    path = write(adapter, tmp_path / "a", dtype=WeightDtype.FP32)
    assert path.stat().st_size > 0x110000  # so that the older hash is of something
    found = metadata_of(path)
    older = {key: value for key, value in found.items() if key.startswith("ss_")}
    again = serialize(load_file(path), older)  # as sd-scripts serializes before it hashes
    legacy = hashlib.sha256(again[0x100000:0x110000]).hexdigest()[:8]
    assert found["sshs_legacy_hash"] == legacy
    (length,) = struct.unpack("<Q", again[:8])
    assert found["sshs_model_hash"] == hashlib.sha256(again[8 + length :]).hexdigest()
    assert "sshs_model_hash" not in metadata_of(
        write(adapter, tmp_path / "p", format=FileFormat.PEFT)
    )


def test_numbers_too_small_for_half_precision_are_shared_by_both_halves(
    adapter: LoraAdapter, tmp_path: Path
) -> None:
    faint = tuple(replace(m, up=m.up * 1e-5, down=m.down * 8) for m in adapter.modules)
    young = replace(adapter, modules=faint)  # as after a few steps: up begins at zero
    for format in (FileFormat.KOHYA, FileFormat.PEFT):
        proof = write_proved(young, tmp_path / format, format=format)
        assert proof.read_back.worst_error < 5e-4
    plain = faint[0].up.half().float() @ faint[0].down.half().float()
    wanted = faint[0].up @ faint[0].down
    assert (plain - wanted).norm() / wanted.norm() > 2e-3


def test_tags_of_the_captions_are_written_only_when_they_are_given(
    adapter: LoraAdapter, tmp_path: Path
) -> None:
    counts = {"chalkboard": 24, "red apple": 3, **{f"tag {n}": 1 for n in range(3_000)}}
    open_path = write(adapter, tmp_path / "open", metadata=metadata(tag_counts=counts))
    written = json.loads(metadata_of(open_path)["ss_tag_frequency"])
    assert list(written) == ["my-chalk-final"]  # the adapter's name, never a folder's
    assert written["my-chalk-final"]["red apple"] == 3
    assert len(written["my-chalk-final"]) == 2_001
    closed = metadata_of(write(adapter, tmp_path / "closed"))
    assert set(json.loads(closed["ss_tag_frequency"])["my-chalk-final"]) == {
        "chalkboard",
        "board style",
    }


@pytest.mark.parametrize(
    ("prediction", "architecture"),
    [
        ("epsilon", "stable-diffusion-v2-512/lora"),
        ("v_prediction", "stable-diffusion-v2-768-v/lora"),
    ],
)
def test_sd2_files_say_what_the_base_predicts(
    adapter: LoraAdapter, prediction: str, architecture: str, tmp_path: Path
) -> None:
    told = metadata(family=BaseFamily.SD2, prediction_type=prediction)
    found = metadata_of(write(adapter, tmp_path / "a", metadata=told))
    assert found["modelspec.architecture"] == architecture
    assert (found["ss_v2"], found["ss_base_model_version"]) == ("True", "sd_v2")


def test_nothing_private_is_written(adapter: LoraAdapter, cover: Path, tmp_path: Path) -> None:
    for format in FORMATS:
        content = write(
            adapter,
            tmp_path / format,
            format=format,
            metadata=metadata(cover=cover, base_name=str(tmp_path / "base")),
        ).read_bytes()
        assert b"secret prompt" not in content
        assert str(tmp_path).encode() not in content
        assert b"brushwork.train_config" in content


def test_an_overlong_header_loses_what_can_be_missed(
    adapter: LoraAdapter, cover: Path, tmp_path: Path
) -> None:
    config = {"notes": "x" * 2**20}
    path = write(adapter, tmp_path / "a", metadata=metadata(train_config=config, cover=cover))
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    assert length < 2**20
    found = metadata_of(path)
    assert "brushwork.train_config" not in found
    assert "modelspec.thumbnail" in found


def test_sdxl_files_use_ldm_names_and_numbered_encoders(sdxl_folder: Path, tmp_path: Path) -> None:
    adapter = random_adapter(base_shapes(load_base(sdxl_folder)))
    path = write(adapter, tmp_path / "a", metadata=metadata(family=BaseFamily.SDXL))
    stems = {name.split(".")[0] for name in load_file(path)}
    assert "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k" in stems
    assert "lora_unet_output_blocks_2_2_conv" in stems
    assert "lora_te1_text_model_encoder_layers_0_self_attn_q_proj" in stems
    assert "lora_te2_text_model_encoder_layers_2_mlp_fc2" in stems
    assert not any("down_blocks" in stem or stem.startswith("lora_te_") for stem in stems)
    assert len(stems) == len(adapter.modules)
    found = metadata_of(path)
    assert found["ss_base_model_version"] == "sdxl_base_v1-0"
    assert found["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"


def test_peft_files_carry_the_alpha_in_their_metadata(adapter: LoraAdapter, tmp_path: Path) -> None:
    path = write(adapter, tmp_path / "a", format=FileFormat.PEFT)
    tensors = load_file(path)
    assert "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight" in tensors
    settings = json.loads(metadata_of(path)["lora_adapter_metadata"])
    assert (settings["unet.r"], settings["unet.lora_alpha"]) == (4, 8)
    assert settings["text_encoder.lora_alpha"] == 8
    kohya = write(adapter, tmp_path / "k")
    assert "lora_adapter_metadata" not in metadata_of(kohya)  # diffusers refuses both at once


def test_uneven_scales_are_folded_into_the_weights(adapter: LoraAdapter, tmp_path: Path) -> None:
    modules = [replace(m, alpha=2.0 + i % 3) for i, m in enumerate(adapter.modules)]
    uneven = replace(adapter, modules=tuple(modules))
    path = write(uneven, tmp_path / "a", dtype=WeightDtype.FP32)
    assert not any(name.endswith("alpha") for name in load_file(path))
    found = {module.key: module for module in read_adapter(path).modules}
    for module in uneven.modules:
        assert torch.allclose(found[module.key].delta(), module.delta(), atol=1e-6)
    peft = write(uneven, tmp_path / "p", format=FileFormat.PEFT, dtype=WeightDtype.FP32)
    found = {module.key: module for module in read_adapter(peft).modules}
    assert all(found[module.key].alpha == module.alpha for module in uneven.modules)


def test_a_bundle_holds_file_sidecar_and_preview(
    adapter: LoraAdapter, cover: Path, tmp_path: Path
) -> None:
    path = write(adapter, tmp_path / "b", format=FileFormat.BUNDLE, metadata=metadata(cover=cover))
    alone = write(adapter, tmp_path / "k", metadata=metadata(cover=cover))
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        stem = "my-chalk-final"
        assert archive.namelist() == [f"{stem}.safetensors", f"{stem}.json", f"{stem}.png"]
        assert archive.read(f"{stem}.safetensors") == alone.read_bytes()
        sidecar = json.loads(archive.read(f"{stem}.json"))
        assert sidecar["activation text"] == "chalkboard, board style"
        assert sidecar["sd version"] == "SD1"
        with Image.open(io.BytesIO(archive.read(f"{stem}.png"))) as preview:
            assert (preview.format, preview.size, preview.info) == ("PNG", (512, 320), {})


@pytest.mark.parametrize("format", FORMATS)
def test_weights_that_do_not_survive_are_never_handed_out(
    adapter: LoraAdapter, format: FileFormat, tmp_path: Path
) -> None:
    first = replace(adapter.modules[0], up=adapter.modules[0].up * 1e7)
    huge = replace(adapter, modules=(first, *adapter.modules[1:]))
    with pytest.raises(ExportError, match="Choose fp32"):
        write(huge, tmp_path / "a", format=format)
    assert list(tmp_path.iterdir()) == []
    write(huge, tmp_path / "a", format=format, dtype=WeightDtype.FP32)


def test_all_namings_are_read_alike(adapter: LoraAdapter, tmp_path: Path) -> None:
    save_adapter(adapter, tmp_path / "c")
    canonical = {module.key: module for module in load_adapter(tmp_path / "c").modules}
    for module in read_adapter(tmp_path / "c").modules:
        assert torch.equal(module.up, canonical[module.key].up)


def test_a_naming_that_is_no_plain_lora_is_reported(tmp_path: Path) -> None:
    save_file({"lora_unet_mid_block_resnets_0_conv1.hada_w1_a": torch.ones(2, 2)}, tmp_path / "a")
    with pytest.raises(AdapterError, match=r"incomplete: .* has no hada_w1_b"):
        read_adapter(tmp_path / "a")

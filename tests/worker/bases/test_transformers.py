"""Parts of transformer bases load as their own libraries load them."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Qwen3Model

from tests.worker.bases.tiny_zimage import CHAT, qwen3_config, save_zimage
from worker.core.bases.family import BaseModelError
from worker.core.bases.folder import FolderSource
from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import load_base
from worker.core.bases.weights import build_module, fill_weights
from worker.core.families.family import BaseFamily
from worker.core.families.variants import Variant
from worker.core.int8_linear import quantize_linears

GONE = "gone"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_zimage(tmp_path_factory.mktemp("base") / "z-image", causal=False)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """One that a test may change."""
    return shutil.copytree(folder, tmp_path / "z-image")


def change(file: Path, **values: object) -> None:
    content = json.loads(file.read_text())
    content |= values
    file.write_text(json.dumps({name: value for name, value in content.items() if value != GONE}))


def test_a_folder_is_described_without_loading_it(folder: Path) -> None:
    info = inspect_base(folder)
    assert (info.family, info.variant) == (BaseFamily.ZIMAGE, Variant.BASE)
    assert (info.layout, info.prediction_type) == ("diffusers", "flow")
    assert (info.resolution, info.cross_attention_dim) == (64, 16)
    assert list(info.parameters) == ["unet", "vae", "text_encoder"]
    whole = ZImageTransformer2DModel.from_pretrained(folder / "transformer")
    assert info.parameters["unet"] == sum(weight.numel() for weight in whole.parameters())
    assert not info.zero_empty_negative


@pytest.mark.parametrize("causal", [False, True])
def test_a_folder_loads_as_its_own_libraries_load_it(
    folder: Path, tmp_path: Path, causal: bool
) -> None:
    path = save_zimage(tmp_path / "causal") if causal else folder
    base = load_base(path)
    expected = ZImageTransformer2DModel.from_pretrained(path / "transformer").state_dict()
    found = base.denoiser.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    encoder = Qwen3Model.from_pretrained(path / "text_encoder")
    ids = torch.arange(40)[None]
    assert torch.equal(base.text_encoders[0](ids).last_hidden_state, encoder(ids).last_hidden_state)
    (tokenizer,) = base.tokenizers
    message = [{"role": "user", "content": "a fox"}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\na fox<|im_end|>\n<|im_start|>assistant\n"
    short = load_base(path, dtype=torch.bfloat16, components=["text_encoder"])
    assert short.denoiser is None
    assert short.text_encoders[0].dtype is torch.bfloat16
    assert short.text_encoders[0].rotary_emb.inv_freq.dtype is torch.float32
    assert base.scheduler_config["shift"] == 6.0


def test_layers_become_int8_rows_while_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_chosen(path: str) -> bool:
        return path.startswith("layers.") and ".adaLN" not in path

    usual = load_base(folder, components=["unet"]).denoiser
    assert quantize_linears(usual, is_chosen) == 14
    monkeypatch.setattr(FolderSource, "weights", None)  # which reads all before any is rounded
    rows = load_base(folder, components=["unet"], int8=is_chosen).denoiser
    expected, found = usual.state_dict(), rows.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(found[name], tensor)
    assert not any(weight.requires_grad or weight.is_meta for weight in rows.parameters())


@pytest.mark.parametrize(
    ("name", "shift", "variant"),
    [
        ("z-image", 6.0, Variant.BASE),
        ("my-style", 3.0, Variant.TURBO),
        ("Z-Image-Turbo", 6.0, Variant.TURBO),
        ("Z-Image-De-Turbo", 3.0, Variant.DEDISTILLED),
        (f"Tongyi-MAI--Z-Image-Turbo/{40 * 'a'}", 6.0, Variant.TURBO),
        ("turbo/z-image", 6.0, Variant.BASE),
    ],
)
def test_the_variant_is_read_from_name_and_shift(
    folder: Path, tmp_path: Path, name: str, shift: float, variant: Variant
) -> None:
    path = shutil.copytree(folder, tmp_path / name)
    change(path / "scheduler/scheduler_config.json", shift=shift)
    assert inspect_base(path).variant is variant


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("scheduler/scheduler_config.json", {"shift": GONE}, "has no shift: Z-Image has 6.0"),
        ("scheduler/scheduler_config.json", {"use_dynamic_shifting": True}, "fixed shift"),
        ("transformer/config.json", {"_class_name": "Other"}, "transformer is a Other, not a Z"),
        ("transformer/config.json", {"siglip_feat_dim": 8}, "for editing"),
        ("transformer/config.json", {"in_channels": 4}, "reads 4 channels, .* has 16"),
        ("text_encoder/config.json", {"hidden_size": 8}, "states 16 wide, .* states 8 wide"),
        ("text_encoder/config.json", {"architectures": ["GemmaModel"]}, "is a GemmaModel"),
    ],
)
def test_what_does_not_fit_together_is_named(
    copied: Path, file: str, values: dict[str, object], message: str
) -> None:
    change(copied / file, **values)
    with pytest.raises(BaseModelError, match=message):
        inspect_base(copied)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("transformer", r"it has no transformer/config\.json"),
        ("tokenizer", r"it has no tokenizer/tokenizer_config\.json"),
        ("tokenizer/tokenizer.json", "has no vocabulary"),
        ("tokenizer/chat_template.jinja", "has no chat template"),
        ("text_encoder/model.safetensors", "text_encoder/ has no weights"),
        ("scheduler", "it has no scheduler/scheduler_config"),
    ],
)
def test_a_missing_part_is_named(copied: Path, gone: str, message: str) -> None:
    path = copied / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(BaseModelError, match=message):
        inspect_base(copied)


def test_a_folder_with_weights_as_gguf_asks_for_safetensors(copied: Path) -> None:
    weights = copied / "transformer/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".gguf"))
    with pytest.raises(BaseModelError, match=r"only a GGUF file, .* with \.safetensors files"):
        inspect_base(copied)


def test_a_chat_template_may_stand_in_the_config_of_the_tokenizer(copied: Path) -> None:
    template = copied / "tokenizer/chat_template.jinja"
    change(copied / "tokenizer/tokenizer_config.json", chat_template=template.read_text())
    template.unlink()
    (tokenizer,) = load_base(copied, components=["text_encoder"]).tokenizers
    assert tokenizer.chat_template == CHAT


def test_weights_in_8_bits_ask_for_the_folder(copied: Path) -> None:
    file = copied / "transformer/diffusion_pytorch_model.safetensors"
    save_file({name: t.to(torch.float8_e4m3fn) for name, t in load_file(file).items()}, file)
    with pytest.raises(BaseModelError, match=r"stored in F8_E4M3, .* its diffusers folder"):
        inspect_base(copied)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_single_file_asks_for_the_folder(folder: Path, tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "z.safetensors"
    weights = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
    save_file({f"{prefix}{name}": tensor for name, tensor in weights.items()}, file)
    with pytest.raises(BaseModelError, match=r"single file of Z-Image, .* a diffusers folder"):
        inspect_base(file)
    for tensors in (1, 123):  # whose byte is a brace, with which a header of safetensors begins
        file.write_bytes(b"GGUF" + struct.pack("<IQ", 3, tensors) + bytes(60))
        with pytest.raises(BaseModelError, match=r"a GGUF file, .* diffusers folder"):
            inspect_base(file)


def test_a_text_encoder_computes_its_rotary_positions(folder: Path) -> None:
    expected = Qwen3Model.from_pretrained(folder / "text_encoder")
    module = build_module("Qwen3Model", qwen3_config().to_dict())
    fill_weights(module, expected.state_dict(), "text_encoder")
    found = dict(module.named_buffers())
    assert found.keys() == dict(expected.named_buffers()).keys()
    assert all(torch.equal(found[name], buffer) for name, buffer in expected.named_buffers())
    ids = torch.arange(40)[None]
    states = [model(ids, output_hidden_states=True).hidden_states for model in (module, expected)]
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def test_a_buffer_without_values_is_an_error() -> None:
    module = nn.Linear(2, 2)
    weights = module.state_dict()
    module.register_buffer("scale", torch.ones(2, device="meta"), persistent=False)
    with pytest.raises(BaseModelError, match=r"The values of scale .* text_encoder are unknown"):
        fill_weights(module, weights, "text_encoder")

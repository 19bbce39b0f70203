"""Small adapter files of every naming and type, and seeded ways to damage them."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

Tensors = dict[str, Tensor]
Mutation = Callable[[bytearray, random.Random], bytes]

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = f"lora_unet_{QUERY.replace('.', '_')}"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
LDM = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_k"


def corpus() -> dict[str, bytes]:
    """Name and content of readable files of a few kilobytes, the same in every run."""
    generator = torch.Generator().manual_seed(11)

    def random_tensor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def pair(stem: str, down: str, up: str, *, out: int = 12, given: int = 8) -> Tensors:
        return {
            f"{stem}.{down}": random_tensor(2, given),
            f"{stem}.{up}": random_tensor(out, 2),
        }

    kohya = pair(KOHYA, "lora_down.weight", "lora_up.weight")
    alpha = {f"{KOHYA}.alpha": torch.tensor(1.0)}
    peft = pair(f"unet.{QUERY}", "lora_A.weight", "lora_B.weight")
    settings = {"unet.r": 2, "unet.lora_alpha": 4, "unet.alpha_pattern": {"attn1.to_q": 3}}
    loha = {
        f"{CONV}.hada_{name}": random_tensor(*shape)
        for name, shape in (
            ("w1_a", (6, 2)), ("w1_b", (2, 36)), ("w2_a", (6, 2)), ("w2_b", (2, 36)),
        )
    }  # fmt: skip
    tucker = {
        f"{CONV}.hada_{name}": random_tensor(*shape)
        for name, shape in (
            ("t1", (2, 2, 3, 3)), ("w1_a", (2, 6)), ("w1_b", (2, 4)),
            ("t2", (2, 2, 3, 3)), ("w2_a", (2, 6)), ("w2_b", (2, 4)),
        )
    }  # fmt: skip
    lokr = {
        f"{KOHYA}.lokr_w1": random_tensor(4, 2),
        f"{KOHYA}.lokr_w2_a": random_tensor(3, 2),
        f"{KOHYA}.lokr_w2_b": random_tensor(2, 4),
    }
    locon = {
        f"{CONV}.lora_down.weight": random_tensor(2, 4, 1, 1),
        f"{CONV}.lora_mid.weight": random_tensor(2, 2, 3, 3),
        f"{CONV}.lora_up.weight": random_tensor(6, 2, 1, 1),
    }
    files: dict[str, tuple[Tensors, dict[str, str] | None]] = {
        "kohya": (kohya | alpha, {"ss_output_name": "x", "modelspec.title": "<b>x</b>"}),
        "half": ({n: t.half() for n, t in (kohya | alpha).items()}, None),
        "peft": (peft, {"lora_adapter_metadata": json.dumps(settings)}),
        "script": (pair(f"unet.{QUERY}", "lora.down.weight", "lora.up.weight"), None),
        "old": (
            pair(
                f"unet.{QUERY.replace('to_q', 'processor')}",
                "to_q_lora.down.weight",
                "to_q_lora.up.weight",
            ),
            None,
        ),
        "mixed": (
            kohya
            | pair(TEXT, "lora_down.weight", "lora_up.weight")
            | pair(LDM, "lora_down.weight", "lora_up.weight"),
            None,
        ),
        "locon": (locon, None),
        "loha": (loha | {f"{CONV}.alpha": torch.tensor(2)}, None),
        "tucker": (tucker, None),
        "lokr": (lokr | alpha, None),
        "diff": ({f"{KOHYA}.diff": random_tensor(12, 8)}, None),
        "extras": (
            {f"{KOHYA}.diff_b": random_tensor(12) / 1000, "bundle_emb.x.y": random_tensor(2, 4)}
            | kohya,
            None,
        ),
        "dora": (kohya | {f"{KOHYA}.dora_scale": random_tensor(12, 1)}, None),
    }
    return {name: save(tensors, metadata) for name, (tensors, metadata) in files.items()}


def mutated(content: bytes, seed: int) -> bytes:
    """A damaged copy; the same for the same seed."""
    chooser = random.Random(seed)
    damaged = content
    for _ in range(chooser.choice((1, 1, 1, 2, 3))):
        damaged = chooser.choice(MUTATIONS)(bytearray(damaged), chooser)
    return damaged


def _flip(content: bytearray, chooser: random.Random) -> bytes:
    for _ in range(chooser.randint(1, 8)):
        if content:
            content[chooser.randrange(len(content))] = chooser.randrange(256)
    return bytes(content)


def _flip_in_header(content: bytearray, chooser: random.Random) -> bytes:
    end = _header_end(content)
    for _ in range(chooser.randint(1, 4)):
        if end > 9:
            content[chooser.randrange(8, end)] = chooser.choice(b'0123456789-.,:[]{}"abeE \\')
    return bytes(content)


def _cut(content: bytearray, chooser: random.Random) -> bytes:
    return bytes(content[: chooser.randint(0, len(content))])


def _lengthen(content: bytearray, chooser: random.Random) -> bytes:
    return bytes(content) + chooser.randbytes(chooser.randint(1, 64))


def _lie_about_header(content: bytearray, chooser: random.Random) -> bytes:
    lie = chooser.choice((0, 1, 2, 200 * 2**20, 2**31, 2**63 - 1, 2**64 - 1, len(content)))
    return struct.pack("<Q", lie) + bytes(content[8:])


def _damage_numbers(content: bytearray, chooser: random.Random) -> bytes:
    """NaN, infinity and denormals among the weights."""
    end = _header_end(content)
    if len(content) > end + 4:
        at = chooser.randrange(end, len(content) - 3)
        content[at : at + 4] = struct.pack(
            "<f", chooser.choice((float("nan"), float("inf"), 1e-45, 3.4e38, -3.4e38))
        )
    return bytes(content)


def _rewrite(content: bytearray, chooser: random.Random) -> bytes:
    """A different header that is valid JSON but does not describe the same bytes."""
    end = _header_end(content)
    try:
        header = json.loads(bytes(content[8:end]))
    except ValueError:
        return bytes(content)
    if not isinstance(header, dict) or not header:
        return bytes(content)
    name = chooser.choice(sorted(header))
    chooser.choice(_REWRITES)(header, name, chooser)
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(content[end:])


def _odd_shape(header: dict[str, Any], name: str, chooser: random.Random) -> None:
    if isinstance(header[name], dict) and "shape" in header[name]:
        header[name]["shape"] = chooser.choice(
            ([2**40, 0], [0], [], [-1, 8], [2**62, 2**62], [1] * 70, [2.5], "8", None, [16, 1])
        )


def _transposed(header: dict[str, Any], name: str, chooser: random.Random) -> None:
    if isinstance(header[name], dict) and isinstance(header[name].get("shape"), list):
        chooser.shuffle(header[name]["shape"])


def _odd_offsets(header: dict[str, Any], name: str, chooser: random.Random) -> None:
    if isinstance(header[name], dict):
        header[name]["data_offsets"] = chooser.choice(
            ([0, 2**63], [8, 0], [0], [-8, 8], ["0", "8"], [0, 10**400], None)
        )


def _odd_dtype(header: dict[str, Any], name: str, chooser: random.Random) -> None:
    if isinstance(header[name], dict):
        header[name]["dtype"] = chooser.choice(("F64", "I64", "BF16", "BOOL", "X", 7, None, "F16"))


def _renamed(header: dict[str, Any], name: str, chooser: random.Random) -> None:
    stem, _, leaf = name.partition(".")
    header[
        chooser.choice(
            (
                "../../etc/x", f"../{name}", "", "a" * 5_000, "\x00\x1b[2J", f"{stem}.diff",
                f"{stem}.alpha", f"{stem}.lora_mid.weight", f"lora_unet_{'_' * 500}.{leaf}",
                f"unet.{'x.' * 2000}lora_A.weight", f"{stem}.dora_scale", f"{stem}.hada_t1",
                "lora_unet_input_blocks_999999999999999999999_1_proj_in.alpha", f"{stem}.lokr_t2",
                f"lora_te_{'9' * 5000}.alpha", "bundle_emb.", f"{stem}.w_norm",
            )
        )
    ] = header.pop(name)  # fmt: skip


def _odd_metadata(header: dict[str, Any], name: str, chooser: random.Random) -> None:
    header["__metadata__"] = chooser.choice(
        (
            [], {"a": 1}, {"a": None}, "x", {"a": "<script>" * 10_000},
            {"lora_adapter_metadata": "[" * 50_000}, {"lora_adapter_metadata": "7"},
            {"lora_adapter_metadata": '{"unet.lora_alpha": 1e400, "unet.alpha_pattern": [1]}'},
            {"lora_adapter_metadata": '{"unet.lora_alpha": NaN, "unet.use_rslora": true}'},
            {"lora_adapter_metadata": '{"unet.lora_alpha": 1, "unet.alpha_pattern": {"": "x"}}'},
        )
    )  # fmt: skip


def _header_end(content: bytearray) -> int:
    if len(content) < 8:
        return len(content)
    (length,) = struct.unpack("<Q", bytes(content[:8]))
    return int(min(8 + length, len(content)))


_REWRITES = (_odd_shape, _transposed, _odd_offsets, _odd_dtype, _renamed, _odd_metadata)
MUTATIONS: tuple[Mutation, ...] = (
    _flip, _flip_in_header, _cut, _lengthen, _lie_about_header, _damage_numbers,
    _rewrite, _rewrite, _rewrite,
)  # fmt: skip

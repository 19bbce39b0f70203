"""Files that LyCORIS writes are read with the weight change that LyCORIS itself applies."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.worker.lora_files.programs.networks import (
    LAYERS,
    NORMS,
    effect_of,
    largest_error,
    randomize,
    read,
    tiny_unet,
)
from worker.core.lora_files.errors import AdapterError

EXACT = 1e-5


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """LyCORIS logs every step of making a network."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def wrapped(network: nn.Module, *, prefix: str = "lora_unet", **options: Any) -> Any:
    """LyCORIS' network around ours, filled with random numbers."""
    from lycoris.wrapper import LycorisNetwork, create_lycoris

    LycorisNetwork.LORA_PREFIX = prefix
    options = {"linear_dim": 2, "linear_alpha": 1, "conv_dim": 2, "conv_alpha": 1} | options
    lycoris = create_lycoris(network, 1.0, **options)
    lycoris.apply_to()
    randomize(lycoris.parameters())
    return lycoris.eval()


def saved(lycoris: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    lycoris.save_weights(str(folder / "lycoris.safetensors"), dtype, {})
    return folder / "lycoris.safetensors"


@pytest.mark.parametrize(
    "options",
    [
        {"algo": "lora"},
        {"algo": "lora", "use_tucker": True},
        {"algo": "lora", "rs_lora": True},
        {"algo": "lora", "use_scalar": True},
        {"algo": "loha"},
        {"algo": "loha", "use_tucker": True},
        {"algo": "lokr"},
        {"algo": "lokr", "decompose_both": True, "factor": 2},
        {"algo": "lokr", "full_matrix": True},
        {"algo": "lokr", "use_tucker": True, "factor": 4},
        {"algo": "lora", "prefix": "lycoris"},
        {"algo": "loha", "prefix": "lycoris"},
        {"algo": "lora", "dora_wd": True},
        {"algo": "lora", "dora_wd": True, "wd_on_output": False},
        {"algo": "loha", "dora_wd": True},
    ],
    ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()),
)
def test_a_saved_network_has_the_effect_that_lycoris_gives_it(
    options: dict[str, Any], tmp_path: Path
) -> None:
    network = tiny_unet()
    lycoris = wrapped(network, **options)
    path = saved(lycoris, tmp_path)
    found = read(path, network=tiny_unet())
    limit = 1e-4 if "dora_wd" in options else EXACT  # dense, in fp32
    assert largest_error(found, effect_of(network)) < limit


def test_full_differences_have_the_effect_that_lycoris_gives_them(tmp_path: Path) -> None:
    network = tiny_unet()
    before = {path: network.get_submodule(path).weight.detach().clone() for path in LAYERS}
    lycoris = wrapped(network, algo="full")
    meant = {}
    generator = torch.Generator().manual_seed(8)
    for module in lycoris.loras:
        path = next(p for p in LAYERS if module.lora_name.endswith(p.replace(".", "_")))
        meant[path] = torch.randn(before[path].shape, generator=generator) / 8
        with torch.no_grad():
            module.weight.copy_(before[path] + meant[path])
            module.bias.copy_(module._org_bias_tensor() + 1e-3)
    found = read(saved(lycoris, tmp_path))
    assert largest_error(found, meant) < EXACT
    assert "biases were left out" in " ".join(found.notes)


def test_norms_are_left_out_and_measured(tmp_path: Path) -> None:
    network = tiny_unet()
    lycoris = wrapped(network, algo="lora", train_norm=True)
    with torch.no_grad():
        for name, parameter in lycoris.named_parameters():
            if name.endswith(("w_norm", "b_norm")):
                parameter.mul_(1e-2)
    found = read(saved(lycoris, tmp_path))
    assert largest_error(found, effect_of(network)) < EXACT
    assert f"Changes of {2 * len(NORMS)} norms were left out" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("algo", "name"), [("ia3", r"\(IA\)³"), ("glora", "GLoRA"), ("diag-oft", "OFT")]
)
def test_other_algorithms_are_refused_by_name(algo: str, name: str, tmp_path: Path) -> None:
    path = saved(wrapped(tiny_unet(), algo=algo), tmp_path)
    with pytest.raises(AdapterError, match=f"Adapters of the type {name} are not supported"):
        read(path)


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [
        (torch.float64, EXACT),
        (torch.float16, 2e-3),
        (torch.bfloat16, 2e-2),
        (torch.float8_e4m3fn, 0.2),
        (torch.float8_e5m2, 0.4),
    ],
)
def test_every_number_type_is_read(dtype: torch.dtype, limit: float, tmp_path: Path) -> None:
    network = tiny_unet()
    lycoris = wrapped(network, algo="lora")
    found = read(saved(lycoris, tmp_path, dtype))
    assert largest_error(found, effect_of(network)) < limit

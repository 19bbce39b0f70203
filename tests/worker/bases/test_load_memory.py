"""Loading a base takes the memory of its weights in the type that was asked for, and no more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.base_load import measure
from bench.checkpoints import SD15, Components, write_folder, write_single_file
from worker.core import starter

NARROW = {"block_out_channels": (64, 128, 320, 320), "cross_attention_dim": 64}
MOST_OVER_WEIGHTS = 80 * 2**20  # the tokenizer, a piece of a file, the modules themselves

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def components() -> Components:
    """A base with 50 M parameters, nearly all of them in the UNet."""
    (unet, vae, text) = (dict(SD15[name][1]) for name in ("unet", "vae", "text_encoder"))
    narrow: dict[str, dict[str, Any]] = {
        "unet": unet | NARROW,
        "vae": vae | {"block_out_channels": (32,) * 4},
        "text_encoder": text
        | {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 1},
    }
    return {name: (kind, narrow[name], stem) for name, (kind, _, stem) in SD15.items()}


@needs_linux
@pytest.mark.wide
def test_a_base_is_never_in_memory_twice(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "base", torch.float32, components())
    file = write_single_file(tmp_path / "base.safetensors", torch.float32, components())
    cases = [(starter.PATH, "fp32", "ours")]  # the first load imports what it needs
    cases += [(folder, "bf16", "ours"), (file, "bf16", "ours"), (file, "fp32", "ours")]
    cases += [(file, "bf16", "mapped")]
    _, *ours, mapped = measure(
        [
            {"way": way, "path": str(path), "dtype": dtype, "work": "load"}
            for path, dtype, way in cases
        ]
    )
    for found in ours:
        assert found["peak"] - found["before"] < found["weights"] + MOST_OVER_WEIGHTS
    assert mapped["peak"] - mapped["before"] > mapped["weights"] + file.stat().st_size / 2

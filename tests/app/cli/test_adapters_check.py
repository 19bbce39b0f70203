"""`brushwork adapters check` tells what programs make of any LoRA file.

The cores are imported where they are used: collecting this file loads no torch.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli.main import main

STEM = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    tensors = {
        f"{STEM}.lora_down.weight": torch.randn(2, 768),
        f"{STEM}.lora_up.weight": torch.randn(320, 2),
        f"{STEM}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, tmp_path / "a.safetensors", {"ss_v2": "False"})
    return tmp_path / "a.safetensors"


def check(*words: str) -> int:
    return main(["adapters", "check", *words])


def test_a_right_file_is_right_everywhere(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(str(file)) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "3 tensors of 1 layers, for sd1"
    sentence = "3 of 3 tensors used, alpha correct, detected as SD 1.x"
    assert " ".join(told[2].split()) == f"A1111 right {sentence}"
    assert len(told) == 8


def test_a_file_that_a_program_gets_wrong_ends_with_1(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(str(file), "--base", "sdxl") == 1
    assert "mistaken for SD 1.x" in capsys.readouterr().out


def test_what_is_no_plain_lora_is_refused(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    other = load_file(file) | {f"{STEM}.dora_scale": torch.ones(320, 1)}
    save_file(other, file)
    assert check(str(file)) == 1
    assert "Only plain LoRA files can be checked" in capsys.readouterr().err

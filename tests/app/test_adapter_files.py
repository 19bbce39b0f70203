"""`brushwork adapters TOOL`: files in, files out, no registry anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from app.__main__ import build_parser, main
from app.commands.adapter_files import TOOLS
from worker.adapters.reading import read_any

ROOT = Path(__file__).parents[2]
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A PEFT-named file of one module."""
    path = tmp_path / "in.safetensors"
    tensors = {
        f"unet.{QUERY}.lora_A.weight": torch.randn(4, 1280),
        f"unet.{QUERY}.lora_B.weight": torch.randn(1280, 4),
    }
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_has_a_parser_and_help(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["adapters", tool, "--help"])
    assert ended.value.code == 0
    assert f"brushwork adapters {tool}" in capsys.readouterr().out


def test_words_that_name_no_tool_still_search_the_registry() -> None:
    arguments = build_parser().parse_args(["adapters", "ink"])
    assert (arguments.module, arguments.words) == ("adapters", "ink")
    assert build_parser().parse_args(["adapters"]).words is None


def test_a_file_is_converted_without_a_data_folder(lora: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    command = [sys.executable, "-m", "app", "adapters", "convert", str(lora), str(target)]
    done = subprocess.run(
        [*command, "--dtype", "fp32"],
        cwd=ROOT,
        env={"PATH": "/usr/bin", "BRUSHWORK_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (module,), (before,) = read_any(target).modules, read_any(lora).modules
    assert torch.equal(module.delta(), before.delta())
    assert not (tmp_path / "data").exists()


def test_a_file_that_cannot_be_read_is_a_sentence_and_a_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"PK\x03\x04" + bytes(20))
    assert main(["adapters", "convert", str(bad), str(tmp_path / "out")]) == 1
    assert "pickle" in capsys.readouterr().err
    assert main(["adapters", "convert", str(tmp_path / "none"), str(tmp_path / "out")]) == 1

"""`brushwork adapters TOOL`: files in, files out, no registry anywhere.

The cores are imported where they are used: collecting this file loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.adapter_files.arguments import TOOLS
from app.cli.main import build_parser, main

ROOT = Path(__file__).parents[3]
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A PEFT-named file of one module."""
    import torch
    from safetensors.torch import save_file

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


@pytest.mark.process
def test_a_file_is_converted_without_a_data_folder(lora: Path, tmp_path: Path) -> None:
    import torch

    from worker.core.lora_files.reading import read_adapter

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
    (module,), (before,) = read_adapter(target).modules, read_adapter(lora).modules
    assert torch.equal(module.delta(), before.delta())
    assert not (tmp_path / "data").exists()


def test_a_file_that_cannot_be_read_is_a_sentence_and_a_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"PK\x03\x04" + bytes(20))
    assert main(["adapters", "convert", str(bad), str(tmp_path / "out.safetensors")]) == 1
    assert "pickle" in capsys.readouterr().err
    none, out = str(tmp_path / "none"), str(tmp_path / "out.safetensors")
    assert main(["adapters", "convert", none, out]) == 1


def test_a_file_that_is_read_is_never_written_over(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lora.read_bytes()
    other = tmp_path / "other.safetensors"
    other.write_bytes(before)
    odd_way = str(tmp_path / "." / ".." / tmp_path.name / lora.name)
    assert main(["adapters", "convert", str(lora), odd_way]) == 1
    assert main(["adapters", "resize", str(lora), str(lora), "--rank", "2"]) == 1
    assert main(["adapters", "merge", str(other), str(lora), "--out", str(lora)]) == 1
    assert capsys.readouterr().err.count("Choose another name.") == 3
    assert lora.read_bytes() == before


def test_a_lora_file_is_not_named_like_a_pickle(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "style.pt"
    assert main(["adapters", "convert", str(lora), str(out)]) == 1
    assert "ends in .safetensors" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow  # loads the base with diffusers
def test_the_base_of_a_file_may_be_the_starter(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.safetensors")
    assert main(["adapters", "convert", str(lora), out, "--base", "starter"]) == 0
    assert "Wrote" in capsys.readouterr().out


def inspected(path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["adapters", "inspect", str(path), *flags]) == 0
    return capsys.readouterr().out


def test_inspect_tells_base_rank_norms_and_hashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import save_file

    key = QUERY.replace("to_q", "to_k").replace("attn1", "attn2").replace(".", "_")
    stems = {f"lora_unet_{key}": 768, f"lora_unet_{key}".replace("to_k", "to_v"): 768}
    tensors = {}
    for number, (stem, width) in enumerate(stems.items()):
        tensors[f"{stem}.lora_down.weight"] = torch.randn(4, width)
        tensors[f"{stem}.lora_up.weight"] = torch.randn(1280, 4) * (1 - number)
        tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    path = tmp_path / "x.safetensors"
    metadata = {"ss_output_name": "Ink", "modelspec.license": "MIT", "sshs_model_hash": "0" * 64}
    save_file(tensors, path, metadata)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    found = json.loads(inspected(path, capsys, "--json"))
    sha256, after = (hashlib.sha256(part).hexdigest() for part in (content, content[8 + length :]))
    assert found["bases"] == ["SD 1.x"]
    assert (found["told"]["license"], found["told"]["picture"]) == ("MIT", False)
    assert found["ranks"] == {"4": 2}
    assert found["alphas"] == {"2.0": 2}
    assert found["strengths"] == {"0.5": 2}
    assert found["targets"] == {"attention": 2}
    assert found["hashes"] == {
        "sha256": sha256,
        "autov2": sha256[:10],
        "tensors": after,
        "autov3": after[:12],
    }
    (block,) = found["blocks"]
    change = (
        tensors[f"lora_unet_{key}.lora_up.weight"] @ tensors[f"lora_unet_{key}.lora_down.weight"]
    )
    assert block["norm"] == pytest.approx(float(change.norm()) / 2, rel=1e-4)
    assert (block["name"], block["modules"]) == ("unet.mid_block", 2)
    assert found["dead"] == [f"unet.{QUERY}".replace("attn1.to_q", "attn2.to_v")]
    assert any("sshs_model_hash does not match" in note for note in found["notes"])
    text = inspected(path, capsys)
    assert "base        SD 1.x" in text
    assert "dead layers (without effect): unet.mid_block" in text


def test_inspect_tells_what_it_can_of_a_dora(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(lora) | {f"unet.{QUERY}.lora_magnitude_vector": torch.ones(1280)}
    save_file(tensors, tmp_path / "dora")
    text = inspected(tmp_path / "dora", capsys)
    assert "DoRA (LoRA) in all 1 modules, named as PEFT" in text
    assert "Note: This is a DoRA" in text


def test_hostile_metadata_cannot_move_the_cursor(
    lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    save_file(load_file(lora), tmp_path / "x", {"a\x1b[2J": "\x1b]0;owned\x07" + "y" * 5_000_000})
    text = inspected(tmp_path / "x", capsys)
    assert "\x1b" not in text
    assert len(text) < 5_000


def test_a_conversion_that_loses_much_writes_nothing_without_consent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import save_file

    source, target = tmp_path / "diff.safetensors", tmp_path / "out.safetensors"
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file({f"{stem}.diff": torch.randn(640, 640)}, source)
    words = ["adapters", "convert", str(source), str(target)]
    assert main(words) == 1
    told = capsys.readouterr()
    assert " % of its change would be lost" in told.err
    assert "add --allow-loss" in told.err
    assert not target.exists()
    assert main([*words, "--allow-loss"]) == 0
    assert "truncated to LoRA (rank 256" in capsys.readouterr().out
    assert target.exists()
    assert main(["adapters", "resize", str(source), str(target), "--rank", "8"]) == 1
    assert "Convert the file first" in capsys.readouterr().err

"""Alphas and ranks of PEFT files are those of their settings, whatever patterns these contain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from worker.core.lora_files import peft_settings
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.peft_settings import PatternTable
from worker.core.lora_files.reading import AdapterReading, read_with_notes

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
LAYERS = tuple(
    f"{BLOCK}.{attention}.{name}"
    for attention in ("attn1", "attn2")
    for name in ("to_q", "to_k", "to_v", "to_out.0")
)
NO_ALPHA = "because PEFT stores it in adapter_config.json"


def peft_tensors(prefix: str = "base_model.model.", rank: int = 4) -> dict[str, torch.Tensor]:
    tensors = {}
    for layer in LAYERS:
        tensors[f"{prefix}{layer}.lora_A.weight"] = torch.randn(rank, 8)
        tensors[f"{prefix}{layer}.lora_B.weight"] = torch.randn(6, rank)
    return tensors


def read(
    folder: Path,
    *,
    header: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    name: str = "adapter_model.safetensors",
    prefix: str = "base_model.model.",
) -> AdapterReading:
    metadata = {"lora_adapter_metadata": json.dumps(header)} if header is not None else None
    save_file(peft_tensors(prefix), folder / name, metadata)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return read_with_notes(folder / name)


def scales(reading: AdapterReading) -> dict[str, float]:
    return {module.path: module.scale for module in reading.adapter.modules}


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("attn1.to_q", {f"{BLOCK}.attn1.to_q"}),
        ("to_q", {f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_q"}),
        ("o_q", set()),  # a whole part of the name, after a dot
        (r"attn1\.to_[qk]", {f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn1.to_k"}),
        (r".*\.attn2\.to_(q|v)", {f"{BLOCK}.attn2.to_q", f"{BLOCK}.attn2.to_v"}),
        (f"^{BLOCK}.attn1.to_q", {f"{BLOCK}.attn1.to_q"}),
        ("^attn1.to_q", set()),
        ("attn..to_v", {f"{BLOCK}.attn1.to_v", f"{BLOCK}.attn2.to_v"}),
        (r"(?:\w+|.)*attn1\.to_[^q]", {f"{BLOCK}.attn1.to_k", f"{BLOCK}.attn1.to_v"}),
        ("to_out.0|to_k", {layer for layer in LAYERS if layer.endswith(("to_out.0", "to_k"))}),
        ("down_blocks", set()),  # from a dot to the end, not only the beginning
        (r"down_blocks\..*", set(LAYERS)),
    ],
)
@pytest.mark.parametrize("place", ["header", "config"])
def test_an_alpha_pattern_is_a_regular_expression(
    pattern: str, matched: set[str], place: str, tmp_path: Path
) -> None:
    settings = {"r": 4, "lora_alpha": 4, "alpha_pattern": {pattern: 32}}
    if place == "header":
        found = read(tmp_path, header={f"unet.{k}": v for k, v in settings.items()}, prefix="unet.")
    else:
        found = read(tmp_path, config={"peft_type": "LORA", **settings})
    assert scales(found) == {layer: 8.0 if layer in matched else 1.0 for layer in LAYERS}
    assert found.notes == ()


def test_the_first_pattern_that_matches_decides(tmp_path: Path) -> None:
    patterns = {r".*attn1\..*": 8, "to_q": 2}
    found = scales(
        read(
            tmp_path,
            config={"peft_type": "LORA", "r": 4, "lora_alpha": 4, "alpha_pattern": patterns},
        )
    )
    assert (found[f"{BLOCK}.attn1.to_q"], found[f"{BLOCK}.attn2.to_q"]) == (2.0, 0.5)


def test_rslora_divides_by_the_root_of_the_rank(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": True}
    assert set(scales(read(tmp_path, config=config)).values()) == {4.0}


def test_without_any_settings_the_strength_is_assumed_with_a_note(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert set(scales(found).values()) == {1.0}
    (note,) = found.notes
    assert NO_ALPHA in note
    assert "8 modules" in note


def test_the_config_beside_another_file_is_not_taken_for_its_own(tmp_path: Path) -> None:
    save_file(peft_tensors(), tmp_path / "other.safetensors")
    found = read(
        tmp_path, config={"peft_type": "LORA", "r": 4, "lora_alpha": 16}, name="ink.safetensors"
    )
    assert set(scales(found).values()) == {1.0}
    assert NO_ALPHA in found.notes[0]


def test_the_config_beside_the_only_file_is_its_own(tmp_path: Path) -> None:
    found = read(
        tmp_path, config={"peft_type": "LORA", "r": 4, "lora_alpha": 16}, name="ink.safetensors"
    )
    assert set(scales(found).values()) == {4.0}
    assert found.notes == ()


def test_the_header_goes_before_the_config(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        header={"unet.lora_alpha": 8},
        config={"peft_type": "LORA", "r": 4, "lora_alpha": 16},
        prefix="unet.",
    )
    assert set(scales(found).values()) == {2.0}


def test_a_rank_that_the_tensors_contradict_is_reported(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "rank_pattern": {"attn1.to_[qk]": 16}}
    found = read(tmp_path, config=config)
    assert set(scales(found).values()) == {1.0}
    (note,) = found.notes
    assert "2 modules another rank" in note
    assert "such as 16 for" in note


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"peft_type": "IA3"}, "PEFT type IA3 are not supported"),
        ({"init_lora_weights": "pissa_niter_4"}, "also changes the base model"),
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "repeats layers"),
        ({"alpha_pattern": {"to_q": "much"}}, "is not a usable number"),
        ({"alpha_pattern": {"(to_q": 8}}, "cannot be used as a regular expression"),
        ({"alpha_pattern": {r"attn1(?!\.to_q).*": 8}}, "has a syntax that is not supported"),
        ({"alpha_pattern": {"(?i)to_q.*": 8}}, "has a syntax that is not supported"),
        ({"alpha_pattern": {"(?:to_q){e<=3}.*": 8}}, "has a syntax that is not supported"),
        ({"alpha_pattern": {r"\p{L}+": 8}}, "has a syntax that is not supported"),
        ({"alpha_pattern": {"(" * 500: 8}}, "is longer than 400 characters"),
        ({"alpha_pattern": {"(?:(?:a{999}){999}){999}": 8}}, "cannot be used as a regular"),
        ({"alpha_pattern": {f"(?:{'a' * 380}){{999}}": 8}}, "cannot be used as a regular"),
        ({"alpha_pattern": dict.fromkeys(map(str, range(10_001)), 8)}, "10,001 entries"),
    ],
)
def test_settings_that_cannot_be_honored_are_a_sentence(
    setting: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 16} | setting
    with pytest.raises(AdapterError, match=sentence):
        read(tmp_path, config=config)


@pytest.mark.parametrize(
    "pattern",
    [r"(\w|\.|_|.)*[A-Z]", "(((a{1,9}|.){1,9}){1,9})*[A-Z]"],
)
def test_a_pattern_that_would_never_end_in_other_engines_ends(pattern: str) -> None:
    table = PatternTable("alpha_pattern", {pattern: 8.0, "to_q": 4.0})
    assert table.find([f"{BLOCK}.{BLOCK}.attn1.to_q"]) == 4.0


def test_patterns_that_take_too_long_together_are_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peft_settings, "TOTAL_SECONDS", 0.05)
    table = PatternTable("alpha_pattern", {rf".*\.blocks\.{n}\.\w+": 8.0 for n in range(50)})
    with pytest.raises(AdapterError, match="takes too long to match, with the others"):
        [table.find([LAYERS[0]]) for _ in range(500)]


def test_a_config_that_is_damaged_or_none_is_a_sentence(tmp_path: Path) -> None:
    save_file(peft_tensors(), tmp_path / "adapter_model.safetensors")
    config = tmp_path / "adapter_config.json"
    for content, sentence in (
        ("{", "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        ('{"name": "ink"}', "not a settings file of PEFT"),
        ('{"x": "' + "x" * 1_000_000 + '"}', "are too long"),
    ):
        config.write_text(content)
        with pytest.raises(AdapterError, match=sentence):
            read_with_notes(tmp_path / "adapter_model.safetensors")
    config.write_bytes(b"\xff\xfe")
    with pytest.raises(AdapterError, match="cannot be read"):
        read_with_notes(tmp_path / "adapter_model.safetensors")


def test_a_dora_without_magnitudes_is_reported(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "use_dora": True}
    assert "no magnitudes" in " ".join(read(tmp_path, config=config).notes)


def test_whole_layers_of_the_base_are_refused_by_name(tmp_path: Path) -> None:
    whole = {"base_model.model.conv_in.weight": torch.ones(4, 4, 3, 3)}
    save_file(peft_tensors() | whole, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"'base_model\.model\.conv_in\.weight' \(PEFT's modul"):
        read_with_notes(tmp_path / "adapter_model.safetensors")

"""Malicious files, and files damaged in thousands of ways, give a sentence and nothing else.

All limits on files are tested here: none of these files makes the reader crash, use more memory
than its size explains, or accept tensors that are not there.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.lora_files.corpus import KOHYA, corpus, mutated
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.file_layout import read_layout
from worker.core.lora_files.reading import read_with_notes

DAMAGED_COPIES = 250  # of each file of the corpus
MEMORY = 200 * 2**20  # bytes that reading may add; the files have only a few kilobytes


def peak() -> int:
    """The peak memory of this process, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


@pytest.mark.parametrize("name", sorted(corpus()))
def test_every_file_of_the_corpus_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(corpus()[name])
    if name == "dora":
        with pytest.raises(AdapterError, match="DoRA"):
            read_with_notes(path)
        return
    assert read_with_notes(path).adapter.modules


@pytest.mark.parametrize("name", sorted(corpus()))
def test_damaged_files_are_read_or_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    content = corpus()[name]
    path = tmp_path / "x.safetensors"
    read_well, sentences = 0, set()
    before = peak()
    for seed in range(DAMAGED_COPIES):
        path.write_bytes(mutated(content, seed))
        try:
            found = read_with_notes(path)
        except AdapterError as error:
            sentence = str(error)
            assert sentence.endswith(".")
            assert len(sentence) < 1_000
            sentences.add(sentence[:25])
        else:
            assert all(bool(m.delta().isfinite().all()) for m in found.adapter.modules)
            read_well += 1
    assert peak() - before < MEMORY
    assert read_well + (name == "dora") > 0  # some damage passes the first checks
    assert len(sentences) > 8


def written(path: Path, header: Any, data: bytes = b"") -> Path:
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def entry(shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def test_a_header_of_200_megabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 200 * 2**20) + b'{"')
        file.truncate(201 * 2**20)
    before = peak()
    with pytest.raises(AdapterError, match=r"210 MB; at most 9 MB are accepted"):
        read_with_notes(path)
    assert peak() - before < MEMORY


def test_fifty_thousand_tensors_are_too_many(tmp_path: Path) -> None:
    header = {f"{KOHYA}{n}.alpha": entry([], 4 * n, 4 * n + 4) for n in range(50_000)}
    path = written(tmp_path / "many", header, bytes(200_000))
    with pytest.raises(AdapterError, match="50,000 tensors; at most 10,000 are supported"):
        read_with_notes(path)


def test_a_tiny_file_cannot_ask_for_a_giant_matrix(tmp_path: Path) -> None:
    stem = "lora_unet_up_blocks_{}_attentions_{}_transformer_blocks_{}_attn1_to_q"
    tensors = {}
    for number in range(400):  # 2 KB each, but 67 million numbers once multiplied
        name = stem.format(number // 100, number // 10 % 10, number % 10)
        tensors[f"{name}.lokr_w1"] = torch.ones(64, 1)
        tensors[f"{name}.lokr_w2_a"] = torch.ones(128, 1)
        tensors[f"{name}.lokr_w2_b"] = torch.ones(1, 8000)
    save_file(tensors, tmp_path / "bomb")
    before = peak()
    with pytest.raises(AdapterError, match="would take hours"):
        read_with_notes(tmp_path / "bomb")
    assert peak() - before < MEMORY


def test_an_infinite_alpha_is_refused(tmp_path: Path) -> None:
    tensors = {
        f"{KOHYA}.lora_down.weight": torch.ones(2, 8),
        f"{KOHYA}.lora_up.weight": torch.ones(8, 2),
        f"{KOHYA}.alpha": torch.tensor(float("-inf")),
    }
    save_file(tensors, tmp_path / "x")
    with pytest.raises(AdapterError, match="contain NaN or infinity"):
        read_with_notes(tmp_path / "x")


def test_weights_whose_product_overflows_are_refused(tmp_path: Path) -> None:
    stem = KOHYA
    tensors = {f"{stem}.hada_w{n}_{half}": torch.full((64, 64), 9e4) for n in "12" for half in "ab"}
    save_file(tensors, tmp_path / "x")
    with pytest.raises(AdapterError, match="overflow when they are multiplied"):
        read_with_notes(tmp_path / "x")
    save_file({f"{stem}.diff": torch.full((8, 8), 3e38)}, tmp_path / "y")
    with pytest.raises(AdapterError, match=r"as large as 3\.0e\+38; at most 1,000,000,000 is"):
        read_with_notes(tmp_path / "y")


def test_what_would_be_too_large_in_full_precision_is_refused_unread(tmp_path: Path) -> None:
    header, end = {}, 0
    for number in range(10):  # 1.2 GB in fp16, 2.5 GB in fp32; sparse on disk
        stem = f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_{number}_ff_net_0_proj"
        for leaf, shape in (("lora_down", [1024, 60_000]), ("lora_up", [1_000, 1024])):
            size = 2 * shape[0] * shape[1]
            header[f"{stem}.{leaf}.weight"] = entry(shape, end, end + size) | {"dtype": "F16"}
            end += size
    raw = json.dumps(header).encode()
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    before = peak()
    with pytest.raises(AdapterError, match=r"needs 2\.5 GB in fp32; at most 2\.2 GB"):
        read_with_notes(path)
    assert peak() - before < MEMORY


def test_the_layout_is_read_from_the_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    rank, width = 64, 65_536
    size = 4 * rank * width
    header = {
        f"{KOHYA}.lora_down.weight": entry([rank, width], 0, size),
        f"{KOHYA}.lora_up.weight": entry([640, rank], size, size + 4 * 640 * rank),
    }
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + size + 4 * 640 * rank)
    before = peak()
    assert read_layout(path).modules[0].weight_shape == (640, width)
    assert peak() - before < 8 * 2**20

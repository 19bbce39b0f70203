"""The canonical file keeps every value; invalid files give a sentence."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_bytes
from safetensors.torch import save_file

from worker.core.families.family import Component
from worker.core.lora_files.canonical import LoraAdapter, LoraModule, load_adapter, save_adapter
from worker.core.lora_files.errors import AdapterError
from worker.core.safetensors_header import with_metadata

DOWN = "unet.mid_block.attentions.0.proj_in.down"


def module(**changes: Any) -> LoraModule:
    settings: dict[str, Any] = {
        "component": Component.DENOISER,
        "path": "mid_block.attentions.0.proj_in",
        "down": torch.randn(4, 8, 1, 1),
        "up": torch.randn(6, 4, 1, 1),
        "alpha": 8.5,
    }
    return LoraModule(**(settings | changes))


def written(path: Path, header: object, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    text = module(
        component=Component.TEXT_ENCODER_2,
        path="text_model.encoder.layers.0.mlp.fc1",
        down=torch.randn(2, 8),
        up=torch.randn(5, 2),
        alpha=1 / 3,
    )
    save_adapter(LoraAdapter((text, module()), {"name": "ä"}), tmp_path / "a.safetensors")
    loaded = load_adapter(tmp_path / "a.safetensors")
    assert loaded.metadata == {"name": "ä"}
    by_key = {found.key: found for found in loaded.modules}
    assert torch.equal(by_key[text.key].up, text.up)
    assert by_key[text.key].alpha == pytest.approx(1 / 3)
    assert by_key["unet.mid_block.attentions.0.proj_in"].scale == 8.5 / 4
    assert loaded.components == {Component.DENOISER, Component.TEXT_ENCODER_2}


def test_the_same_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    metadata = {f"key{number}": str(number) for number in range(20)}
    adapter = LoraAdapter((module(),), metadata)
    save_adapter(adapter, tmp_path / "one")
    save_adapter(LoraAdapter(adapter.modules, dict(reversed(metadata.items()))), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes()[8:10] == b'{"'  # A1111 needs this beginning


def test_the_bytes_are_those_that_the_library_would_write(tmp_path: Path) -> None:
    second = module(path="mid_block.attentions.0.proj_out", down=torch.randn(3, 8, 1, 1))
    adapter = LoraAdapter((module(), replace(second, up=torch.randn(6, 3, 1, 1))), {"ä": "ö"})
    save_adapter(adapter, tmp_path / "a")
    tensors = {}
    for m in adapter.modules:
        tensors |= {f"{m.key}.down": m.down, f"{m.key}.up": m.up}
        tensors[f"{m.key}.alpha"] = torch.tensor(m.alpha)
    assert (tmp_path / "a").read_bytes() == b"".join(with_metadata(save_bytes(tensors), {"ä": "ö"}))


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    save_adapter(LoraAdapter((module(),)), tmp_path / "a")
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(AdapterError, match="NaN or infinity"):
        save_adapter(LoraAdapter((module(up=torch.full((6, 4, 1, 1), torch.nan)),)), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"up": torch.randn(6, 3, 1, 1)}, "do not match"),
        ({"up": torch.randn(6, 4)}, "do not match"),
        ({"up": torch.randn(6, 4, 3, 3)}, "do not match"),
        ({"alpha": float("inf")}, "NaN or infinity"),
    ],
)
def test_invalid_modules_are_refused(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=sentence):
        save_adapter(LoraAdapter((module(**changes),)), tmp_path / "a")


def test_an_adapter_without_modules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="not an adapter: it contains no LoRA modules"):
        load_adapter(written(tmp_path / "a", {"__metadata__": {"x": "y"}}))


def test_not_a_number_in_a_file_is_refused(tmp_path: Path) -> None:
    tensors = {DOWN: torch.ones(2, 3), DOWN[:-4] + "up": torch.full((4, 2), torch.nan)}
    save_file(tensors, tmp_path / "a")
    with pytest.raises(AdapterError, match="contain NaN or infinity"):
        load_adapter(tmp_path / "a")


def test_finite_values_whose_sum_is_not_are_accepted(tmp_path: Path) -> None:
    large = module(down=torch.full((4, 8, 1, 1), 3e38))
    save_adapter(LoraAdapter((large,)), tmp_path / "a")
    assert torch.equal(load_adapter(tmp_path / "a").modules[0].down, large.down)
    large.down[0, 0], large.down[0, 1] = torch.inf, -torch.inf
    with pytest.raises(AdapterError, match="contain NaN or infinity"):
        save_adapter(LoraAdapter((large,)), tmp_path / "b")


def test_tensors_in_any_order_and_type_are_read(tmp_path: Path) -> None:
    tensors = {DOWN: torch.randn(2, 3), DOWN[:-4] + "up": torch.randn(4, 2)}
    data = b"".join(tensor.numpy().tobytes() for tensor in tensors.values())
    header = {
        DOWN[:-4] + "up": {"dtype": "F32", "shape": [4, 2], "data_offsets": [24, 56]},
        DOWN: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    }
    (found,) = load_adapter(written(tmp_path / "a", header, data)).modules
    assert torch.equal(found.down, tensors[DOWN])
    assert torch.equal(found.up, tensors[DOWN[:-4] + "up"])
    save_file({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "b")
    (half,) = load_adapter(tmp_path / "b").modules
    assert torch.equal(half.down, tensors[DOWN].half().float())


def test_a_pickle_is_refused_by_content_whatever_its_name(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "zip.safetensors")
    torch.save(
        {"a": torch.zeros(2)}, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False
    )
    for name in ("zip", "old"):
        with pytest.raises(AdapterError, match="pickle"):
            load_adapter(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("start", [b"PK", b"\x80\x4b"])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, start: bytes) -> None:
    tensors = {DOWN: torch.ones(2, 3), DOWN[:-4] + "up": torch.ones(4, 2)}
    content = save_bytes(tensors)
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header = content[8:end].ljust(int.from_bytes(start, "little"))
    file = tmp_path / "a.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + content[end:])
    assert file.read_bytes().startswith(start)
    assert len(load_adapter(file).modules) == 1


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "data", "sentence"),
    [
        ({"a": entry([4], 0, 8)}, b"x" * 8, "another size than its shape"),
        ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, b"x" * 12, "overlap"),
        ({"a": entry([2], 4, 12)}, b"x" * 12, "holes"),
        ({"a": entry([2], 0, 8)}, b"x" * 4, "cut off"),
        ({"a": entry([2], 0, 8)}, b"x" * 9, "more in it"),
        ({"a": entry([2**40, 0], 0, 0)}, b"", "has the shape"),
        ({"a": entry([2], 0, 8, "C64")}, b"x" * 8, "unknown number type"),
        ({"a.down": entry([1], 0, 8, "I64")}, b"x" * 8, "number type I64"),
        ({"a": entry([-2], 0, 8)}, b"x" * 8, "not a tensor"),
        ({"a": [1]}, b"", "not a tensor"),
        ({"__metadata__": {"a": 1}}, b"", "map of strings"),
        (b'{"a": 1, "a": 2}', b"", "not readable"),
        (b"{" * 200_000, b"", "not readable"),
        ({"../../etc/x.down": entry([1, 1], 0, 4)}, b"\0" * 4, "not a Brushwork adapter"),
        ({DOWN: entry([1, 1], 0, 4)}, b"\0" * 4, "one of the two matrices of .* is missing"),
    ],
)
def test_lying_headers_are_refused(
    header: object, data: bytes, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=sentence):
        load_adapter(written(tmp_path / "a", header, data))


def test_an_empty_and_a_strange_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(AdapterError, match="empty"):
        load_adapter(tmp_path / "empty")
    (tmp_path / "text").write_text("hello, I am a poem, not an adapter")
    with pytest.raises(AdapterError, match="not a safetensors file"):
        load_adapter(tmp_path / "text")


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    save_adapter(LoraAdapter((module(),)), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for length in (1, 8, 20, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(AdapterError):
            load_adapter(tmp_path / "cut")


def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "huge"
    with file.open("wb") as out:  # sparse, with a real header of 9 MiB
        out.write(struct.pack("<Q", 9 * 2**20) + b"{")
        out.truncate(10 * 2**20)
    with pytest.raises(AdapterError, match=r"9\.4 MB; at most 9 MB"):
        load_adapter(file)
    file.write_bytes(struct.pack("<Q", 2**62) + b'{"a"')
    with pytest.raises(AdapterError, match="longer than the file"):
        load_adapter(file)

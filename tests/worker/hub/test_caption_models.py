"""Caption models from the Hub: the files of the root that are read, and no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fake_hub import Hub
from worker.core.hub.errors import Access, HubError
from worker.core.hub.models import HubReference, download_caption_model

REPO = "acme/blip"
CONFIG = json.dumps({"model_type": "blip"}).encode()


def blip(**more: bytes) -> dict[str, bytes]:
    """The files of a repository as published ones look."""
    files = {
        "README.md": b"# BLIP\n",
        "config.json": CONFIG,
        "preprocessor_config.json": b"{}",
        "tokenizer.json": b"{}",
        "vocab.txt": b"a\n",
        "model.safetensors": b"s" * 500,
        "pytorch_model.bin": b"pickle" * 100,
        "tf_model.h5": b"h" * 500,
        "onnx/model.onnx": b"o" * 500,
        "modeling_blip.py": b"import os",
        "onnx/config.json": b"{}",
    }
    return files | more


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_read_is_fetched(hub: Hub, access: Access, tmp_path: Path) -> None:
    repo = hub.add(REPO, blip())
    told: list[tuple[str, int, int]] = []
    found = download_caption_model(
        HubReference(REPO), tmp_path, access, on_progress=lambda *row: told.append(row)
    )
    assert (found.path, found.commit) == (tmp_path / repo.commit, repo.commit)
    assert names(found.path) == {
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "vocab.txt",
        "model.safetensors",
    }
    whole = sum(path.stat().st_size for path in found.path.iterdir())
    assert told[0] == ("", 0, whole)
    assert told[-1] == ("model.safetensors", whole, whole)


def test_weights_in_several_files_come_with_their_index(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    files = blip()
    del files["model.safetensors"]
    shards = {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    }
    hub.add(REPO, files | {name: name.encode() for name in shards})
    found = download_caption_model(HubReference(REPO), tmp_path, access)
    assert shards < names(found.path)
    assert "pytorch_model.bin" not in names(found.path)


def test_a_tagger_is_its_network_and_its_tags(hub: Hub, access: Access, tmp_path: Path) -> None:
    hub.add(
        "acme/tagger",
        {
            "model.onnx": b"o" * 500,
            "selected_tags.csv": b"tag_id,name,category,count\n",
            "config.json": b"{}",
            "model.safetensors": b"s" * 500,
            "model.msgpack": b"m" * 500,
        },
    )
    found = download_caption_model(HubReference("acme/tagger"), tmp_path, access)
    assert names(found.path) == {"model.onnx", "selected_tags.csv", "config.json"}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.json": b'{"model_type": "llama"}'}, "type “llama” cannot caption images here"),
        ({"config.json": b"no JSON"}, "type “None”"),
        (
            {"config.json": b'{"model_type": "florence2", "auto_map": {"a": "b"}}'},
            "florence-community/Florence-2-base",
        ),
        ({"config.json": CONFIG, "pytorch_model.bin": b"x"}, "is only a PyTorch pickle"),
        ({"config.json": CONFIG}, "has no model.safetensors"),
        ({"model_index.json": b"{}"}, "so it is no caption model"),
    ],
)
def test_a_repository_that_cannot_be_used_says_why(
    hub: Hub, access: Access, tmp_path: Path, files: dict[str, bytes], sentence: str
) -> None:
    hub.add(REPO, files)
    with pytest.raises(HubError, match=sentence) as refused:
        download_caption_model(HubReference(REPO), tmp_path, access)
    assert refused.value.code == "hub_unusable"

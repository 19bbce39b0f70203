"""What must never change for the bases of earlier releases: bytes of files, names in the cache.

The values are those of commit d68703b1, before families had a package of their own.
"""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from worker.core import starter
from worker.core.bases.load import load_base
from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily, Component
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.export import export
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.training.data.latent_cache import LatentStore
from worker.core.training.data.text import _EmbeddingCache
from worker.core.words import FileFormat, WeightDtype

FILES = {
    ("sd1", "kohya"): ("b4e9d19684b45567", "8af478bdb5be0c49"),
    ("sd1", "peft"): ("362c21465b206a59", "1e8eb6fb246a60fb"),
    ("sd2", "kohya"): ("b4e9d19684b45567", "aa62ece4d687189c"),
    ("sd2", "peft"): ("362c21465b206a59", "be4ad08789962c5f"),
    ("sdxl", "kohya"): ("daf1d85cedff6b7d", "67d2d7b1855c71e1"),
    ("sdxl", "peft"): ("38e491182b09fdef", "78d6d3f7fb6d7603"),
}
"""Of family and format: the hashes of the names and of the bytes of the tensors."""


def _adapter(family: BaseFamily) -> LoraAdapter:
    """Random matrices for the layers in the middle of the UNet and of the text encoders."""
    generator = torch.Generator().manual_seed(5)
    modules = []
    for key, (rows, *columns) in family_shapes(family).items():
        if "mid_block" in key or ".layers.3." in key:
            component, _, path = key.partition(".")
            down = torch.randn(2, *columns, generator=generator)
            up = torch.randn(rows, 2, *[1] * (len(columns) - 1), generator=generator)
            modules.append(LoraModule(Component(component), path, down, up, alpha=1.0))
    return LoraAdapter(tuple(modules))


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_files_of_the_same_adapter_have_the_same_bytes(family: str, tmp_path: Path) -> None:
    adapter = _adapter(BaseFamily(family))
    metadata = AdapterMetadata(
        title="Ink",
        slug="ink",
        family=BaseFamily(family),
        base_name="base",
        resolution=512,
        created=datetime(2026, 1, 2, tzinfo=UTC),
    )
    for chosen in (FileFormat.KOHYA, FileFormat.PEFT):
        file = tmp_path / f"{chosen}.safetensors"
        export(adapter, file, format=chosen, dtype=WeightDtype.FP16, metadata=metadata)
        content = file.read_bytes()
        end = 8 + struct.unpack("<Q", content[:8])[0]
        names = sorted(json.loads(content[8:end]).keys() - {"__metadata__"})
        found = ("\n".join(names).encode(), content[end:])
        hashes = tuple(hashlib.sha256(part).hexdigest()[:16] for part in found)
        assert hashes == FILES[family, chosen]


def test_the_cache_of_starter_keeps_its_names() -> None:
    """They also change with the weights of `starter`, and only then."""
    base = load_base(starter.PATH, components=["vae"])
    assert str(LatentStore(Path("c"), base.vae)._folder) == "c/vae-43f8160ec81a32b7"
    name = "5ebbe2a2650a5e157c4f8e6720167485236ce883498722718171efe14efab41c"
    caption = _EmbeddingCache(Path("c"), base, 2)._embedding_path("a fox")
    assert str(caption) == f"c/text-9de193275cab6da3-2-1/5e/{name}.safetensors"

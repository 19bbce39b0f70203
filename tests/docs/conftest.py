"""A stack for the examples of the documentation, with a stand-in for the Hub and some files."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fake_hub import WRITE, open_hub
from tests.stack.conftest import Stack, start_stack, stop_stack
from worker.core import starter
from worker.core.starter.examples import CHALKBOARD

QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture(scope="module")
def documented_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack on an empty data folder, whose Hub has what the pages name."""
    with open_hub() as hub:
        hub.tokens["good"] = WRITE
        hub.add_folder("stable-diffusion-v1-5/stable-diffusion-v1-5", starter.PATH)
        hub.add("ada/woodcut-lora", {"woodcut.safetensors": lora_file(seed=2)})
        running = start_stack(
            [sys.executable, "-m", "app"],
            tmp_path_factory.mktemp("documented"),
            BRUSHWORK_HUB_ENDPOINT=hub.url,
            BRUSHWORK_HUB_TOKEN="good",
            HF_HOME=str(tmp_path_factory.mktemp("hf")),
        )
        yield running
        assert stop_stack(running) == 0, running.logs()


@pytest.fixture(scope="module")
def folder_of_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples upload."""
    folder = tmp_path_factory.mktemp("files")
    first, *others = sorted(CHALKBOARD.folder.glob("*.webp"))[:6]
    Image.open(first).convert("RGB").save(folder / "fox.png")
    (folder / "fox.txt").write_text("fox, ink")
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        for picture in others:
            archive.write(picture, picture.name)
            archive.writestr(f"{picture.stem}.txt", f"{picture.stem}, ink")
    (folder / "charcoal.safetensors").write_bytes(lora_file(seed=1))
    (folder / "charcoal.json").write_text(
        json.dumps({"name": "Charcoal", "activation text": "charcoal"})
    )
    return folder


def lora_file(seed: int) -> bytes:
    """A LoRA of one layer of the embedded base, in kohya's naming."""
    from safetensors.numpy import save

    from worker.core.lora_files.adaptable_shapes import adaptable_shapes

    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    out, width = adaptable_shapes(starter.PATH)[path]
    random = np.random.default_rng(seed)
    return save(
        {
            f"{QUERY}.lora_down.weight": random.normal(size=(4, width)).astype(np.float32),
            f"{QUERY}.lora_up.weight": random.normal(size=(out, 4)).astype(np.float32),
            f"{QUERY}.alpha": np.array(4.0, dtype=np.float32),
        }
    )

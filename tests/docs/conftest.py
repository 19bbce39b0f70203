"""Files for the examples of the documentation."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.stack.conftest import lora_file
from worker.core.starter.examples import CHALKBOARD


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

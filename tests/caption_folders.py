"""Folders that are taken for caption models: small files that the check reads, and no model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def blip_folder(parent: Path, name: str = "blip") -> Path:
    """A folder that says it holds a BLIP."""
    folder = parent / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "blip"}))
    save_file({"weight": np.zeros(4, np.float32)}, folder / "model.safetensors")
    return folder

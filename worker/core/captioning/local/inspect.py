"""Says what model a folder holds; reads its small files only and loads nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from worker.core.captioning.interface import CaptionError
from worker.core.captioning.words import CaptionFamily
from worker.core.safetensors_header import HeaderError, read_header

CONFIG = "config.json"
TAGS = "selected_tags.csv"
ONNX = "model.onnx"
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"
MAX_HEADER_BYTES = 40_000_000  # many times what models of a thousand layers need
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
INSTALL_TAGGER = "Taggers need onnxruntime: install it with `pip install 'brushwork[tagger]'`."


class UnusableModel(CaptionError):
    """The model cannot be used; the message says why and which can."""


@dataclass(frozen=True)
class CaptionModelInfo:
    """The caption model in a folder."""

    family: CaptionFamily
    size_bytes: int


def inspect_caption_model(folder: Path) -> CaptionModelInfo:
    """The model in a folder. Raises UnusableModel."""
    if (folder / TAGS).is_file() and (folder / ONNX).is_file():
        if find_spec("onnxruntime") is None:
            raise UnusableModel(f"{INSTALL_TAGGER} Then check the model again.")
        family = CaptionFamily.WD_TAGGER
    else:
        family = family_of_config(_read_config(folder))
        for path in _weights(folder):
            _require_whole(path)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return CaptionModelInfo(family, size)


def _weights(folder: Path) -> list[Path]:
    """The files with the weights. Raises UnusableModel."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / SHARDS).is_file():
        index = _read_json(folder / SHARDS)
        shards = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(shards, dict) or not shards:
            raise UnusableModel(f"{SHARDS} of {folder} names no files. Get the model again.")
        return [folder / name for name in sorted({Path(str(one)).name for one in shards.values()})]
    if any((folder / name).is_file() for name in PICKLES):
        raise UnusableModel(
            "The folder has only PyTorch pickles, which can run code when they are opened. Choose "
            "a model with .safetensors files."
        )
    raise UnusableModel(
        f"The folder has no {WEIGHTS}. Other formats can run code when they are opened; choose a "
        "model with safetensors weights."
    )


def _require_whole(path: Path) -> None:
    """Raise UnusableModel unless the header of this file fits its size."""
    try:
        read_header(path, limit=MAX_HEADER_BYTES)
    except HeaderError as error:
        raise UnusableModel(f"{path.name}: {error} Get the model again.") from error


def family_of_config(config: Any) -> CaptionFamily:
    """The family that a config.json names. Raises UnusableModel."""
    found = config.get("model_type") if isinstance(config, dict) else None
    if isinstance(config, dict) and config.get("auto_map"):
        raise UnusableModel(
            "This model runs code of its own repository, which Brushwork does not. Of Florence-2, "
            "choose florence-community/Florence-2-base or -large."
        )
    if found in (CaptionFamily.BLIP, CaptionFamily.FLORENCE2):
        return CaptionFamily(found)
    raise UnusableModel(
        f"A model of the type “{str(found)[:40]}” cannot caption images here. Choose a BLIP or "
        "Florence-2 model, or a WD tagger."
    )


def _read_config(folder: Path) -> Any:
    if not (folder / CONFIG).is_file():
        raise UnusableModel(
            f"{folder} has no {CONFIG}. Choose the folder of a BLIP or Florence-2 model, or of a "
            f"WD tagger with {ONNX} and {TAGS}."
        )
    return _read_json(folder / CONFIG)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnusableModel(f"{path.name} of {path.parent} cannot be read: {error}.") from error

"""Says what model a folder holds; reads its small files only and loads nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from worker.core.captioning.interface import CaptionError

CONFIG = "config.json"
TAGS = "selected_tags.csv"
ONNX = "model.onnx"
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
INSTALL_TAGGER = "Taggers need onnxruntime: install it with `pip install 'brushwork[tagger]'`."


class CaptionFamily(StrEnum):
    """A kind of model that captions images."""

    BLIP = "blip"
    FLORENCE2 = "florence2"
    WD_TAGGER = "wd_tagger"


class UnusableModel(CaptionError):
    """The model cannot be used; the message says why and which can."""


@dataclass(frozen=True)
class CaptionModelInfo:
    """What a folder holds."""

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
        if not any((folder / name).is_file() for name in SAFETENSORS):
            raise UnusableModel(
                "The folder has no model.safetensors. Other formats can run code when they are "
                "opened; choose a model with safetensors weights."
            )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return CaptionModelInfo(family, size)


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
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnusableModel(
            f"{folder} has no {CONFIG}. Choose the folder of a BLIP or Florence-2 model, or of a "
            f"WD tagger with {ONNX} and {TAGS}."
        ) from None
    except (OSError, ValueError) as error:
        raise UnusableModel(f"{CONFIG} of {folder} cannot be read: {error}.") from error

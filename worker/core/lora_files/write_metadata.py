"""What an exported file says about itself: header metadata and the sidecar beside it.

Keys and their readers: kohya's `ss_*` (A1111, Forge, ComfyUI's Lora Manager, Civitai) and
Stability-AI/ModelSpec 1.0.1. Neither captions nor file paths are ever written.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.canonical import AdapterError, Component, LoraAdapter

THUMBNAIL_SIDE = 256
MAX_TEXT_CHARACTERS = 10_000
MAX_TAGS = 2_000
MAX_TAG_CHARACTERS = 200
MAX_COVER_SIDE = 8_192
PRIVATE_SETTINGS = ("sample_prompts", "sample_negative_prompt")

_SDXL_NAMES = "https://github.com/Stability-AI/generative-models"  # whose names the keys have


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """What the registry knows of an adapter; `created` is aware, `resolution` in pixels.

    `training_seconds`: how long it was trained until `created`; None for one that came from
    elsewhere.
    `train_config` is the run's TrainConfig as JSON; `images` how many pictures it saw; `cover` a
    picture that shows the adapter. `description` and `tags`, a person's own words in the registry,
    and `tag_counts`, how often a tag stood in the captions, are given only when the user wants them
    in the file.
    """

    title: str
    slug: str
    base_name: str
    resolution: int
    created: datetime
    training_seconds: float | None = None
    trigger_words: tuple[str, ...] = ()
    description: str = ""
    author: str = ""
    license: str = ""
    tags: tuple[str, ...] = ()
    prediction_type: str = "epsilon"
    images: int | None = None
    cover: Path | None = None
    train_config: str | None = None
    preferred_weight: float = 1.0
    tag_counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The base's name without a folder or an owner before it."""
        return PurePath(self.base_name).name

    @property
    def stem(self) -> str:
        """A file name and alias that every loader and Civitai's parser can read."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", self.slug).strip("-.") or "adapter"


def model_metadata(facts: ExportFacts, family: BaseFamily) -> dict[str, str]:
    """The `modelspec.*` entries of a file in kohya naming or, for SDXL too, in diffusers'."""
    entries = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": _architecture(facts, family),
        "modelspec.implementation": "diffusers",
        "modelspec.title": facts.title,
        "modelspec.resolution": f"{facts.resolution}x{facts.resolution}",
        "modelspec.date": facts.created.astimezone(UTC).isoformat(timespec="seconds"),
        "modelspec.prediction_type": "v" if facts.prediction_type == "v_prediction" else "epsilon",
        "modelspec.description": facts.description,
        "modelspec.author": facts.author,
        "modelspec.license": facts.license,
        "modelspec.tags": ", ".join(facts.tags),
        "modelspec.trigger_phrase": ", ".join(facts.trigger_words),
    }
    if facts.cover is not None:
        entries["modelspec.thumbnail"] = thumbnail(facts.cover)
    if facts.train_config:
        entries["brushwork.train_config"] = public_settings(facts.train_config)
    return _written(entries)


def _architecture(facts: ExportFacts, family: BaseFamily) -> str:
    is_v = facts.prediction_type == "v_prediction"
    return f"{family.facts.architecture_v if is_v else family.facts.architecture}/lora"


def kohya_metadata(adapter: LoraAdapter, facts: ExportFacts, family: BaseFamily) -> dict[str, str]:
    """All entries of a kohya-named file but its hashes."""
    rank, alpha = common_rank_and_alpha(adapter)
    dim = str(rank) if rank is not None else "Dynamic"
    strength = f"{alpha:g}" if alpha is not None else "Dynamic"
    entries = model_metadata(facts, family)
    if family is BaseFamily.SDXL:
        entries["modelspec.implementation"] = _SDXL_NAMES
    convolutions = any(
        module.component is Component.UNET and module.down.dim() == 4 and module.down.shape[-1] > 1
        for module in adapter.modules
    )
    settings = {"conv_dim": dim, "conv_alpha": strength} if convolutions else {}
    tags = dict.fromkeys(facts.trigger_words, facts.images or 1) | _most_frequent(facts)
    return entries | _written(
        {
            "ss_base_model_version": family.facts.kohya_version,
            "ss_v2": str(family is BaseFamily.SD2),
            "ss_network_module": "networks.lora",
            "ss_network_dim": dim,
            "ss_network_alpha": strength,
            "ss_network_args": _json(settings),
            "ss_output_name": facts.stem,
            "ss_sd_model_name": facts.base,
            "ss_resolution": f"({facts.resolution}, {facts.resolution})",
            **_times(facts),
            "ss_num_train_images": "" if facts.images is None else str(facts.images),
            "ss_tag_frequency": _json({facts.stem: tags}) if tags else "",
        }
    )


def _times(facts: ExportFacts) -> dict[str, str]:
    """When the training began and ended, as unix times; nothing where nobody knows."""
    if facts.training_seconds is None:
        return {}
    end = facts.created.timestamp()
    return {
        "ss_training_started_at": f"{end - facts.training_seconds:.1f}",
        "ss_training_finished_at": f"{end:.1f}",
    }


def _most_frequent(facts: ExportFacts) -> dict[str, int]:
    often = sorted(facts.tag_counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return {tag[:MAX_TAG_CHARACTERS]: count for tag, count in often[:MAX_TAGS]}


def sidecar(facts: ExportFacts, family: BaseFamily) -> bytes:
    """The JSON beside a file in the form that A1111, Forge and InvokeAI read."""
    content = {
        "description": facts.description,
        "sd version": family.facts.sidecar_version,
        "activation text": ", ".join(facts.trigger_words),
        "preferred weight": facts.preferred_weight,
        "negative text": "",
        "notes": f"Made for {facts.base} with Brushwork.",
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def common_rank_and_alpha(adapter: LoraAdapter) -> tuple[int | None, float | None]:
    """(rank, alpha) that all modules share; None for what they do not."""
    ranks = {module.rank for module in adapter.modules}
    alphas = {module.alpha for module in adapter.modules}
    return (
        ranks.pop() if len(ranks) == 1 else None,
        alphas.pop() if len(alphas) == 1 else None,
    )


def public_settings(train_config: str) -> str:
    """The training settings without what a person wrote for their own eyes, in a fixed order."""
    settings: dict[str, Any] = json.loads(train_config)
    return _json({name: v for name, v in settings.items() if name not in PRIVATE_SETTINGS})


def thumbnail(cover: Path) -> str:
    """The cover as a data URL: JPEG within 256 × 256 px."""
    picture = open_cover(cover)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def preview(cover: Path) -> bytes:
    """The cover as a PNG without any text chunks."""
    content = io.BytesIO()
    open_cover(cover).save(content, "PNG")
    return content.getvalue()


def open_cover(cover: Path) -> Image.Image:
    """The decoded cover in RGB; AdapterError when it is not a usable picture."""
    try:
        with Image.open(cover, formats=["PNG", "JPEG", "WEBP"]) as picture:
            if max(picture.size) > MAX_COVER_SIDE:
                raise AdapterError("The cover picture is too large.")
            pixels = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise AdapterError("The cover picture cannot be read.") from error
    pixels.info.clear()
    return pixels


def _written(entries: dict[str, str]) -> dict[str, str]:
    """The entries that say something, none longer than a header can bear."""
    return {
        key: value
        if key.endswith((".thumbnail", ".train_config", "_tag_frequency"))
        else value[:MAX_TEXT_CHARACTERS]
        for key, value in entries.items()
        if value
    }


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(", ", ": "), ensure_ascii=False)

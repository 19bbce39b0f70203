"""Header metadata of exported files, and their sidecar files.

Keys and their readers: kohya's `ss_*` (A1111, Forge, ComfyUI's Lora Manager, Civitai) and
Stability-AI/ModelSpec 1.0.1. Neither captions nor file paths are ever written.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, replace
from datetime import UTC
from pathlib import Path, PurePath

from PIL import Image

from worker.core.families.adapter_files import files_of
from worker.core.families.family import Component
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.metadata import CARDS_KEY, WEIGHT_KEY, AdapterMetadata
from worker.core.lora_files.weights import USUAL_WEIGHT

THUMBNAIL_SIDE = 256
MAX_TEXT_CHARACTERS = 10_000
MAX_TAGS = 2_000
MAX_TAG_CHARACTERS = 200
MAX_COVER_SIDE = 8_192
USUAL_NOTE = "Made with Brushwork."
PRIVATE_SETTINGS = ("sample_prompts", "sample_negative_prompt")


def model_metadata(metadata: AdapterMetadata) -> dict[str, str]:
    """The `modelspec.*` entries of a file in kohya or diffusers naming."""
    side, facts = metadata.file_resolution, metadata.family.facts
    architecture = facts.architecture_v if metadata.predicts_v else facts.architecture
    entries = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": metadata.title,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.date": metadata.created.astimezone(UTC).isoformat(timespec="seconds"),
        "modelspec.prediction_type": "v" if metadata.predicts_v else "epsilon",
        "modelspec.description": metadata.description,
        "modelspec.author": metadata.author,
        "modelspec.license": metadata.license,
        "modelspec.tags": ", ".join(metadata.tags),
        "modelspec.trigger_phrase": ", ".join(metadata.trigger_words),
    }
    entries |= _weight_entries(metadata)
    if metadata.cover is not None:
        entries["modelspec.thumbnail"] = thumbnail(metadata.cover)
    if metadata.train_config:
        entries["brushwork.train_config"] = _public_settings(metadata)
    return _without_empty(entries)


def _weight_entries(metadata: AdapterMetadata) -> dict[str, str]:
    """The usual weight, for people and for the import, unless it is 1, and the weight cards."""
    words, entries = list(metadata.card_words), dict[str, str]()
    if metadata.usual_weight != USUAL_WEIGHT:
        words.insert(0, f"Usual weight: {metadata.usual_weight:g}.")
        entries[WEIGHT_KEY] = f"{metadata.usual_weight:g}"
    if metadata.weight_cards:
        cards = [
            asdict(replace(one, base=PurePath(one.base).name)) for one in metadata.weight_cards
        ]
        entries[CARDS_KEY] = _to_json(cards)
    return {"modelspec.usage_hint": " ".join(words)} | entries


def kohya_metadata(adapter: LoraAdapter, metadata: AdapterMetadata) -> dict[str, str]:
    """All entries of a kohya file except its hashes."""
    rank, alpha = common_rank_and_alpha(adapter)
    dim = str(rank) if rank is not None else "Dynamic"
    strength = f"{alpha:g}" if alpha is not None else "Dynamic"
    header = files_of(metadata.family).header
    own = {name: value for name, value in header.items() if name.startswith("ss_")}
    entries = model_metadata(metadata) | {k: v for k, v in header.items() if k not in own}
    convolutions = any(
        module.component is Component.DENOISER
        and module.down.dim() == 4
        and module.down.shape[-1] > 1
        for module in adapter.modules
    )
    settings = {"conv_dim": dim, "conv_alpha": strength} if convolutions else {}
    tags = dict.fromkeys(metadata.trigger_words, metadata.images or 1) | _most_frequent(metadata)
    return entries | _without_empty(
        {
            "ss_base_model_version": metadata.family.facts.kohya_version,
            **own,
            "ss_network_module": "networks.lora",
            "ss_network_dim": dim,
            "ss_network_alpha": strength,
            "ss_network_args": _to_json(settings),
            "ss_output_name": metadata.stem,
            "ss_sd_model_name": metadata.base,
            "ss_resolution": f"({metadata.file_resolution}, {metadata.file_resolution})",
            **_training_times(metadata),
            "ss_num_train_images": "" if metadata.images is None else str(metadata.images),
            "ss_tag_frequency": _to_json({metadata.stem: tags}) if tags else "",
        }
    )


def _training_times(metadata: AdapterMetadata) -> dict[str, str]:
    """Start and end of the training as Unix times; empty if unknown."""
    if metadata.training_seconds is None:
        return {}
    end = metadata.created.timestamp()
    return {
        "ss_training_started_at": f"{end - metadata.training_seconds:.1f}",
        "ss_training_finished_at": f"{end:.1f}",
    }


def _most_frequent(metadata: AdapterMetadata) -> dict[str, int]:
    often = sorted(metadata.tag_counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return {tag[:MAX_TAG_CHARACTERS]: count for tag, count in often[:MAX_TAGS]}


def sidecar(metadata: AdapterMetadata) -> bytes:
    """The JSON sidecar of a file, as A1111, Forge and InvokeAI read it."""
    made = f"Made for {metadata.base} with Brushwork." if metadata.base else USUAL_NOTE
    content = {
        "description": metadata.description,
        "sd version": metadata.family.facts.sidecar_version,
        "activation text": ", ".join(metadata.trigger_words),
        "preferred weight": metadata.usual_weight,
        "negative text": "",
        "notes": " ".join([made, *metadata.card_words]),
    }
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def common_rank_and_alpha(adapter: LoraAdapter) -> tuple[int | None, float | None]:
    """(rank, alpha) of all modules; None where they differ."""
    ranks = {module.rank for module in adapter.modules}
    alphas = {module.alpha for module in adapter.modules}
    return (
        ranks.pop() if len(ranks) == 1 else None,
        alphas.pop() if len(alphas) == 1 else None,
    )


def _public_settings(metadata: AdapterMetadata) -> str:
    """The training settings as sorted JSON, without private ones such as sample prompts, and
    without those that mean nothing for the family."""
    left_out = {*PRIVATE_SETTINGS} | metadata.family.facts.options.hidden
    return _to_json({name: v for name, v in metadata.train_config.items() if name not in left_out})


def thumbnail(cover: Path) -> str:
    """The cover as a data URL: JPEG within 256 × 256 px."""
    image = open_cover(cover)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def preview(cover: Path) -> bytes:
    """The cover as a PNG without any text chunks."""
    content = io.BytesIO()
    open_cover(cover).save(content, "PNG")
    return content.getvalue()


def open_cover(cover: Path) -> Image.Image:
    """The decoded cover in RGB; raises AdapterError for an unusable image."""
    try:
        with Image.open(cover, formats=["PNG", "JPEG", "WEBP"]) as image:
            if max(image.size) > MAX_COVER_SIDE:
                raise AdapterError("The cover image is too large.")
            pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise AdapterError("The cover image cannot be read.") from error
    pixels.info.clear()
    return pixels


def _without_empty(entries: dict[str, str]) -> dict[str, str]:
    """The entries that are not empty, with long ones shortened."""
    return {
        key: value
        if key.endswith((".thumbnail", ".train_config", "_tag_frequency"))
        else value[:MAX_TEXT_CHARACTERS]
        for key, value in entries.items()
        if value
    }


def _to_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(", ", ": "), ensure_ascii=False)

"""The generation parameters inside a PNG, in the format that other programs read.

The chunk `parameters` follows `create_infotext` in AUTOMATIC1111's `modules/processing.py`; the
chunk `brushwork` holds the whole request as JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from worker.core.inference.config import ImageSettings
from worker.core.inference.read_infotext import BLOCK_WEIGHTS
from worker.core.words import KARRAS

HASH_DIGITS = 12
MODEL_HASH_DIGITS = 10
NEEDS_QUOTES = frozenset(',:"\n')


@dataclass(frozen=True)
class UsedAdapter:
    """An adapter used for an image; other programs identify its file by `tensor_hash`.

    `block_factors`: those of the input, middle and output blocks of the UNet; None: 1 in all.
    """

    name: str
    weight: float
    text_encoder_weight: float
    tensor_hash: str | None
    block_factors: tuple[float, float, float] | None = None

    @property
    def tag(self) -> str:
        """`<lora:name:weight>`, with both weights when they differ."""
        if self.weight == self.text_encoder_weight:
            return f"<lora:{self.name}:{self.weight:g}>"
        return f"<lora:{self.name}:{self.text_encoder_weight:g}:{self.weight:g}>"


@dataclass(frozen=True)
class ImageParameters:
    """The generation parameters of one image, whose sides are set."""

    settings: ImageSettings
    model: str
    model_hash: str | None = None
    precision: str | None = None
    source_sha256: str | None = None
    adapters: Sequence[UsedAdapter] = ()


def make_infotext(image_parameters: ImageParameters) -> str:
    """The infotext of an image."""
    settings, sampler = image_parameters.settings, image_parameters.settings.sampler
    lines = [" ".join([settings.prompt, *(adapter.tag for adapter in image_parameters.adapters)])]
    if settings.negative_prompt:
        lines.append(f"Negative prompt: {settings.negative_prompt}")
    pairs: dict[str, Any] = {
        "Steps": settings.steps,
        "Sampler": sampler.label.removesuffix(f" {KARRAS}"),
        **({"Schedule type": KARRAS} if sampler.is_karras else {}),
        "CFG scale": settings.guidance,
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
    }
    if image_parameters.model_hash:
        pairs["Model hash"] = image_parameters.model_hash[:MODEL_HASH_DIGITS]
    pairs["Model"] = image_parameters.model
    if settings.strength is not None:
        pairs["Denoising strength"] = f"{settings.strength:g}"
    if image_parameters.source_sha256:
        pairs["Source SHA256"] = image_parameters.source_sha256
    if settings.clip_skip > 1:
        pairs["Clip skip"] = settings.clip_skip
    if image_parameters.precision:
        pairs["Precision"] = image_parameters.precision
    hashes = [
        f"{adapter.name}: {adapter.tensor_hash[:HASH_DIGITS]}"
        for adapter in image_parameters.adapters
        if adapter.tensor_hash
    ]
    if hashes:
        pairs["Lora hashes"] = ", ".join(hashes)
    blocks = [
        f"{adapter.name}: {' '.join(f'{factor:g}' for factor in adapter.block_factors)}"
        for adapter in image_parameters.adapters
        if adapter.block_factors
    ]
    if blocks:
        pairs[BLOCK_WEIGHTS] = ", ".join(blocks)
    pairs["Version"] = "Brushwork"
    lines.append(", ".join(f"{key}: {_quote_value(value)}" for key, value in pairs.items()))
    return "\n".join(lines)


def encode_png(
    image: Image.Image, image_parameters: ImageParameters, request: Mapping[str, Any]
) -> bytes:
    """The image as a PNG with its infotext and the request as JSON for Brushwork."""
    info = PngInfo()
    info.add_text("parameters", make_infotext(image_parameters))
    info.add_text("brushwork", json.dumps(dict(request), ensure_ascii=False, sort_keys=True))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _quote_value(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if NEEDS_QUOTES & set(text) else text

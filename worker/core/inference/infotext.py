"""The text inside a PNG that says how it was drawn, in the form other programs read.

The chunk `parameters` follows AUTOMATIC1111's `modules/processing.py` `create_infotext`; the chunk
`brushwork` holds the same and more as JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

HASH_DIGITS = 12
MODEL_HASH_DIGITS = 10
NEEDS_QUOTES = frozenset(',:"\n')


@dataclass(frozen=True)
class UsedAdapter:
    """An adapter in a picture; `tensor_hash` is what other programs know the file by."""

    name: str
    weight: float
    text_encoder_weight: float
    tensor_hash: str | None

    @property
    def tag(self) -> str:
        """`<lora:name:weight>`, with both weights when they differ."""
        if self.weight == self.text_encoder_weight:
            return f"<lora:{self.name}:{self.weight:g}>"
        return f"<lora:{self.name}:{self.text_encoder_weight:g}:{self.weight:g}>"


@dataclass(frozen=True)
class Drawn:
    """How one picture was drawn."""

    prompt: str
    negative_prompt: str
    steps: int
    guidance: float
    seed: int
    width: int
    height: int
    model: str
    model_hash: str | None
    clip_skip: int = 1
    adapters: Sequence[UsedAdapter] = ()


def parameters(drawn: Drawn) -> str:
    """The infotext of a picture."""
    prompt = " ".join([drawn.prompt, *(adapter.tag for adapter in drawn.adapters)])
    lines = [prompt]
    if drawn.negative_prompt:
        lines.append(f"Negative prompt: {drawn.negative_prompt}")
    pairs: dict[str, Any] = {
        "Steps": drawn.steps,
        "Sampler": "DDIM",
        "CFG scale": drawn.guidance,
        "Seed": drawn.seed,
        "Size": f"{drawn.width}x{drawn.height}",
    }
    if drawn.model_hash:
        pairs["Model hash"] = drawn.model_hash[:MODEL_HASH_DIGITS]
    pairs["Model"] = drawn.model
    if drawn.clip_skip > 1:
        pairs["Clip skip"] = drawn.clip_skip
    hashes = [
        f"{adapter.name}: {adapter.tensor_hash[:HASH_DIGITS]}"
        for adapter in drawn.adapters
        if adapter.tensor_hash
    ]
    if hashes:
        pairs["Lora hashes"] = ", ".join(hashes)
    pairs["Version"] = "Brushwork"
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items()))
    return "\n".join(lines)


def png(image: Image.Image, drawn: Drawn, request: Mapping[str, Any]) -> bytes:
    """The picture as a PNG with its infotext and, for Brushwork itself, the request as JSON."""
    info = PngInfo()
    info.add_text("parameters", parameters(drawn))
    info.add_text("brushwork", json.dumps(dict(request), ensure_ascii=False, sort_keys=True))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if NEEDS_QUOTES & set(text) else text

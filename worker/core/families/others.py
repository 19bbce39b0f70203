"""Names of the base models that are not supported, so that they can be refused by name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from worker.core.families.family import BaseFamily, labels
from worker.core.families.folder import BaseModelError

SUPPORTED = labels(BaseFamily, "or")
"""The families that can be trained, in words."""
_PIPELINES = (
    (r"StableDiffusion3", "Stable Diffusion 3"),
    (r"Flux(\d+)", r"FLUX.\1"),
    (r"Flux", "FLUX.1"),
    (r"QwenImage", "Qwen-Image"),
    (r"HunyuanDiT|HunyuanImage|HunyuanVideo", "Hunyuan"),
    (r"StableCascade|Wuerstchen", "Stable Cascade"),
    (r"(AuraFlow|Chroma|CogView|CogVideo|DeepFloyd|HiDream|Kandinsky|Kolors)\w*", r"\1"),
    (r"(LTX|Lumina|OmniGen|Ovis|PixArt|Sana|Wan)\w*", r"\1"),
)
"""The beginning of a pipeline's class in diffusers, and the name of the model."""
_TENSORS = {
    "Z-Image": ("cap_pad_token", "noise_refiner."),
    "FLUX.2": ("double_stream_modulation_img.", "double_blocks."),
    "FLUX.1": ("double_blocks.",),
    "Stable Diffusion 3": ("joint_blocks.", "x_embedder."),
    "Qwen-Image": ("txt_norm.", "transformer_blocks."),
    "Lumina": ("cap_embedder.", "noise_refiner."),
}
"""Names of tensors that the files of a model have, in every layout."""


def refuse_folder(pipeline: str, transformer: str | None) -> None:
    """Raise BaseModelError for the class of a pipeline of another model, or of its transformer."""
    for pattern, name in _PIPELINES:
        if found := re.match(pattern, pipeline):
            raise BaseModelError(_refusal(found.expand(name)))
    if transformer is not None:
        raise BaseModelError(_refusal(f"a model with a {transformer[:60]}"))


def refuse_file(tensors: Iterable[str]) -> None:
    """Raise BaseModelError if a file with tensors of these names is of another model."""
    names = list(tensors)
    for model, marks in _TENSORS.items():
        if all(any(mark in name for name in names) for mark in marks):
            if any(family.label.startswith(model) for family in BaseFamily):
                raise BaseModelError(
                    f"This is a single file of {model}, which lacks other parts. Use the whole "
                    "model: a diffusers folder, or its name on the Hub."
                )
            raise BaseModelError(_refusal(model))


def _refusal(name: str) -> str:
    return f"This is {name}, which cannot be trained here. Use a base model of {SUPPORTED}."

"""What rules of several families share whose denoiser is a row of blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from worker.core.families.family import Component
from worker.core.lora_files.peft_settings import read_settings
from worker.core.lora_files.proof.content import (
    ALPHA,
    KOHYA_PAIR,
    PEFT_PAIR,
    FileContent,
    LayerPatch,
    LeafPair,
    LoaderReading,
)
from worker.core.lora_files.proof.layout import BaseLayout

DOTTED = ("diffusion_model.", "transformer.")
KOHYA = "lora_unet_"
BOTH_PAIRS = (KOHYA_PAIR, PEFT_PAIR)


@dataclass(frozen=True)
class FamilyRules:
    """How each program reads adapters for a family, and which layers were tried with all."""

    read: Mapping[str, Callable[[FileContent, BaseLayout], LoaderReading]]
    can_change: Callable[[str, BaseLayout, Collection[str]], bool]


def flat(path: str) -> str:
    """A path in names with underscores."""
    return path.replace(".", "_")


def use_layer(
    reading: LoaderReading,
    content: FileContent,
    key: str,
    stem: str,
    *,
    pairs: Iterable[LeafPair],
    third: int | None = None,
    has_alpha: bool = True,
) -> None:
    """Add the patch of a layer under this name, if the file has it."""
    for down, up in ((stem + down, stem + up) for down, up in pairs):
        if down in content.tensors and up in content.tensors:
            scale = 1.0
            reading.used |= {down, up}
            if has_alpha and stem + ALPHA in content.tensors:
                reading.used.add(stem + ALPHA)
                scale = float(content.tensors[stem + ALPHA]) / content.tensors[down].shape[0]
            reading.patches[key] = LayerPatch(down, up, scale, third)


def drop_without_query(reading: LoaderReading, query: str, others: Iterable[str]) -> None:
    """Drop keys and values that are joined to the query, where the file does not change that."""
    for key in [key for key in reading.patches if key.rpartition(".")[2] in others]:
        if f"{key.rpartition('.')[0]}.{query}" not in reading.patches:
            patch = reading.patches.pop(key)
            reading.used -= {patch.down, patch.up}
            reading.dropped.add(key)
            reading.remark = "k and v are only used together with q"


def scale_by_settings(reading: LoaderReading, content: FileContent) -> LoaderReading:
    """The reading with the alpha that PEFT's settings in the header give each layer."""
    settings = read_settings(content.metadata).of(Component.DENOISER)
    for key, patch in reading.patches.items():
        rank = int(content.tensors[patch.down].shape[0])
        paths = (key.partition(".")[2],)
        if settings is not None and (alpha := settings.alpha(paths, rank)) is not None:
            reading.patches[key] = replace(patch, scale=patch.scale * alpha / rank)
    return reading

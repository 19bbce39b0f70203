"""What rules of several families share whose denoiser is a row of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from worker.core.families.family import BaseFamily, Component
from worker.core.lora_files.peft_settings import PeftSettings, SettingsOfFile, read_settings
from worker.core.lora_files.proof.content import KOHYA_PAIR, PEFT_PAIR, FileContent, LoaderReading
from worker.core.lora_files.proof.layout import BaseLayout

DOTTED = ("diffusion_model.", "transformer.")
KOHYA = "lora_unet_"
BOTH_PAIRS = (KOHYA_PAIR, PEFT_PAIR)
NOT_DETECTED = "The base model cannot be detected by the names of the layers."


@dataclass(frozen=True)
class FamilyRules:
    """How each program reads adapters for a family.

    `tried`: what the keys of layers contain that were tried with every program.
    """

    family: BaseFamily
    read: Mapping[str, Callable[[FileContent, BaseLayout], LoaderReading]]
    tried: tuple[str, ...]

    def can_change(self, key: str, *_: object) -> bool:
        """True for attention and feed-forward of all blocks: what was tried."""
        return any(part in key for part in self.tried)


def flat(path: str) -> str:
    """A path in names with underscores."""
    return path.replace(".", "_")


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
    settings = read_settings(content.metadata)
    for key, patch in reading.patches.items():
        rank = int(content.tensors[patch.down].shape[0])
        own, paths = settings_for(key, settings)
        if own is not None and (alpha := own.alpha(paths, rank)) is not None:
            reading.patches[key] = replace(patch, scale=patch.scale * alpha / rank)
    return reading


def settings_for(key: str, settings: SettingsOfFile) -> tuple[PeftSettings | None, tuple[str]]:
    """(settings of its component, the layer's name in diffusers, which their patterns match).

    The modules of the first encoder no longer have `text_model.`.
    """
    component, _, path = key.partition(".")
    if component == Component.TEXT_ENCODER:
        path = path.removeprefix("text_model.")
    return settings.of(Component(component)), (path,)

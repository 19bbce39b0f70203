"""Closed sets and their labels, without torch: what forms, files, and the command line share."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class FileFormat(StrEnum):
    """KOHYA: every common loader. PEFT: diffusers. BUNDLE: zip of kohya file, sidecar, preview."""

    KOHYA = "kohya"
    PEFT = "peft"
    BUNDLE = "bundle"

    @property
    def label(self) -> str:
        """The format as pages name it."""
        return _FORMAT_LABELS[self]

    @property
    def suffix(self) -> str:
        """How the name of such a file ends."""
        return ".zip" if self is FileFormat.BUNDLE else ".safetensors"


_FORMAT_LABELS = {
    FileFormat.KOHYA: "kohya",
    FileFormat.PEFT: "diffusers / PEFT",
    FileFormat.BUNDLE: "Bundle",
}
LORA_FORMATS = (FileFormat.KOHYA, FileFormat.PEFT)
"""The formats that are one LoRA file."""


class WeightDtype(StrEnum):
    """The number type of the weights in an adapter file; the first is the usual one."""

    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"

    @property
    def label(self) -> str:
        """The number type as pages name it."""
        return self.value


class FusedDtype(StrEnum):
    """The number type of all weights of a fused base model; KEEP: each as the base has it."""

    FP16 = WeightDtype.FP16
    BF16 = WeightDtype.BF16
    FP32 = WeightDtype.FP32
    KEEP = "keep"

    @property
    def label(self) -> str:
        """The number type as pages name it."""
        return "same as the base model" if self is FusedDtype.KEEP else self.value


class MergeMethod(StrEnum):
    """How several adapters are made into one."""

    LINEAR = "linear"
    SVD = "svd"
    TIES = "ties"
    DARE = "dare"

    @property
    def label(self) -> str:
        """The method as pages name it."""
        return _METHOD_LABELS[self]


_METHOD_LABELS = {
    MergeMethod.LINEAR: "Exact sum (the ranks add up)",
    MergeMethod.SVD: "SVD: sum at a rank you choose",
    MergeMethod.TIES: "TIES: only where the signs agree",
    MergeMethod.DARE: "DARE: a random share of each",
}


class FuseLayout(StrEnum):
    """DIFFUSERS: a folder. SINGLE: one file with the original names, for all other programs."""

    DIFFUSERS = "diffusers"
    SINGLE = "single"

    @property
    def label(self) -> str:
        """The layout as pages name it."""
        return _LAYOUT_LABELS[self]


_LAYOUT_LABELS = {
    FuseLayout.DIFFUSERS: "diffusers folder",
    FuseLayout.SINGLE: "single file",
}


def values(words: Iterable[StrEnum]) -> tuple[str, ...]:
    """The values of a closed set as plain texts, as the choices of a flag are given."""
    return tuple(word.value for word in words)


ENUM_LABELS = {
    "lora": "LoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "adamw": "AdamW",
    "adamw_8bit": "AdamW, 8-bit",
    "adamw_schedule_free": "AdamW, schedule-free",
    "cosine_restarts": "Cosine with restarts",
    "v_prediction": "v-prediction",
    "mse": "MSE",
    "huber": "Pseudo-Huber",
    "min_snr": "Min-SNR",
    "fp32": "fp32",
    "bf16": "bf16",
    "fp16": "fp16",
}

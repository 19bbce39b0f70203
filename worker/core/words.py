"""Closed sets and their labels, shared by forms, files and the command line, without torch."""

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
        """The label of the format on pages."""
        return _FORMAT_LABELS[self]

    @property
    def suffix(self) -> str:
        """The end of the file name."""
        return ".zip" if self is FileFormat.BUNDLE else ".safetensors"


_FORMAT_LABELS = {
    FileFormat.KOHYA: "kohya",
    FileFormat.PEFT: "diffusers / PEFT",
    FileFormat.BUNDLE: "Bundle",
}
LORA_FORMATS = (FileFormat.KOHYA, FileFormat.PEFT)
"""The formats that are one LoRA file."""


class WeightDtype(StrEnum):
    """The number type of the weights in an adapter file; the first is the default."""

    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"

    @property
    def label(self) -> str:
        """The label of the number type on pages."""
        return self.value


class RenderPrecision(StrEnum):
    """The number type of the UNet when images are generated."""

    FP32 = WeightDtype.FP32
    BF16 = WeightDtype.BF16
    FP16 = WeightDtype.FP16


class CaptionKind(StrEnum):
    """The form of a caption, where an image has several."""

    LONG = "long"
    SHORT = "short"
    TAGS = "tags"


class SamplerName(StrEnum):
    """The sampler of an image; the first is the default, and that of training samples.

    Labels are read as well: `SamplerName("DPM++ 2M Karras")`.
    """

    DDIM = "ddim"
    EULER = "euler"
    EULER_A = "euler_a"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_KARRAS = "dpmpp_2m_karras"
    DPMPP_2M_SDE = "dpmpp_2m_sde"
    DPMPP_2M_SDE_KARRAS = "dpmpp_2m_sde_karras"
    LCM = "lcm"

    @property
    def label(self) -> str:
        """The label of the sampler on pages, as A1111 writes it."""
        return _SAMPLER_LABELS[self]

    @classmethod
    def _missing_(cls, value: object) -> SamplerName | None:
        labels = {label.casefold(): name for name, label in _SAMPLER_LABELS.items()}
        return labels.get(value.strip().casefold()) if isinstance(value, str) else None

    @property
    def is_sde(self) -> bool:
        """True for the variants of DPM++ that add noise in each step."""
        return " SDE" in self.label

    @property
    def is_karras(self) -> bool:
        """True for the spacing of noise levels by Karras et al. 2022."""
        return self.label.endswith(KARRAS)


KARRAS = "Karras"
"""The schedule type as A1111 names it."""

_SAMPLER_LABELS = {
    SamplerName.DDIM: "DDIM",
    SamplerName.EULER: "Euler",
    SamplerName.EULER_A: "Euler a",
    SamplerName.DPMPP_2M: "DPM++ 2M",
    SamplerName.DPMPP_2M_KARRAS: f"DPM++ 2M {KARRAS}",
    SamplerName.DPMPP_2M_SDE: "DPM++ 2M SDE",
    SamplerName.DPMPP_2M_SDE_KARRAS: f"DPM++ 2M SDE {KARRAS}",
    SamplerName.LCM: "LCM",
}


class FusedDtype(StrEnum):
    """The number type of a fused base model's weights; KEEP: the type that each has in the base."""

    FP16 = WeightDtype.FP16
    BF16 = WeightDtype.BF16
    FP32 = WeightDtype.FP32
    KEEP = "keep"

    @property
    def label(self) -> str:
        """The label of the number type on pages."""
        return "same as the base model" if self is FusedDtype.KEEP else self.value


class MergeMethod(StrEnum):
    """The method of merging several adapters into one."""

    LINEAR = "linear"
    SVD = "svd"
    TIES = "ties"
    DARE = "dare"

    @property
    def label(self) -> str:
        """The label of the method on pages."""
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
        """The label of the layout on pages."""
        return _LAYOUT_LABELS[self]


_LAYOUT_LABELS = {
    FuseLayout.DIFFUSERS: "diffusers folder",
    FuseLayout.SINGLE: "single file",
}


def values(words: Iterable[StrEnum]) -> tuple[str, ...]:
    """The values of a closed set as text, for the choices of a flag."""
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

"""Closed sets and their labels, shared by forms, files and the command line, without torch."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Self


class Labeled(StrEnum):
    """A closed set whose members are a value and, where it is another text, a label for pages."""

    label: str

    def __new__(cls, value: str, label: str | None = None) -> Self:
        """The member, which is its value with a label beside it."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.label = label or value
        return member


class FileFormat(Labeled):
    """KOHYA: every common loader. PEFT: diffusers. BUNDLE: zip of kohya file, sidecar, preview."""

    KOHYA = "kohya"
    PEFT = "peft", "diffusers / PEFT"
    BUNDLE = "bundle", "Bundle"

    @property
    def suffix(self) -> str:
        """The end of the file name."""
        return ".zip" if self is FileFormat.BUNDLE else ".safetensors"


LORA_FORMATS = (FileFormat.KOHYA, FileFormat.PEFT)
"""The formats that are one LoRA file."""


class WeightDtype(Labeled):
    """The number type of the weights in an adapter file; the first is the default."""

    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"


class RenderPrecision(StrEnum):
    """The number type of the UNet when images are generated."""

    FP32 = WeightDtype.FP32
    BF16 = WeightDtype.BF16
    FP16 = WeightDtype.FP16


class CaptionKind(Labeled):
    """The form of a caption, where an image has several."""

    LONG = "long", "Long"
    SHORT = "short", "Short"
    TAGS = "tags", "Tags"


KARRAS = "Karras"
"""The schedule type as A1111 names it."""


MAX_LCM_STEPS = 50  # LCM takes its timesteps out of the 50 that such models are distilled from


class SamplerName(Labeled):
    """The sampler of an image; the first is the default, and that of training samples.

    Labels are those of A1111, and are read as well: `SamplerName("DPM++ 2M Karras")`.
    """

    DDIM = "ddim", "DDIM"
    EULER = "euler", "Euler"
    EULER_A = "euler_a", "Euler a"
    DPMPP_2M = "dpmpp_2m", "DPM++ 2M"
    DPMPP_2M_KARRAS = "dpmpp_2m_karras", f"DPM++ 2M {KARRAS}"
    DPMPP_2M_SDE = "dpmpp_2m_sde", "DPM++ 2M SDE"
    DPMPP_2M_SDE_KARRAS = "dpmpp_2m_sde_karras", f"DPM++ 2M SDE {KARRAS}"
    LCM = "lcm", "LCM"

    @classmethod
    def _missing_(cls, value: object) -> SamplerName | None:
        labels = {name.label.casefold(): name for name in cls}
        return labels.get(value.strip().casefold()) if isinstance(value, str) else None

    @property
    def is_sde(self) -> bool:
        """True for the variants of DPM++ that add noise in each step."""
        return " SDE" in self.label

    @property
    def is_karras(self) -> bool:
        """True for the spacing of noise levels by Karras et al. 2022."""
        return self.label.endswith(KARRAS)


class FusedDtype(Labeled):
    """The number type of a fused base model's weights; KEEP: the type that each has in the base."""

    FP16 = WeightDtype.FP16.value
    BF16 = WeightDtype.BF16.value
    FP32 = WeightDtype.FP32.value
    KEEP = "keep", "same as the base model"


class MergeMethod(Labeled):
    """The method of merging several adapters into one."""

    LINEAR = "linear", "Exact sum (the ranks add up)"
    SVD = "svd", "SVD: sum at a rank you choose"
    TIES = "ties", "TIES: only where the signs agree"
    DARE = "dare", "DARE: a random share of each"


class FuseLayout(Labeled):
    """DIFFUSERS: a folder. SINGLE: one file with the original names, for all other programs."""

    DIFFUSERS = "diffusers", "diffusers folder"
    SINGLE = "single", "single file"


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
    "int8": "int8 rows",
    "fp32": "fp32",
    "bf16": "bf16",
    "fp16": "fp16",
}


class PredictionType(StrEnum):
    """Quantity that a UNet was trained to predict."""

    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"


class LossWeighting(StrEnum):
    """Weight of each noise level in the loss."""

    NONE = "none"
    MIN_SNR = "min_snr"
    DEBIASED = "debiased"


class LevelDensity(Labeled):
    """Density of noise levels in the training of a flow, before its shift."""

    UNIFORM = "uniform", "Uniform"
    LOGIT_NORMAL = "logit_normal", "Logit-normal"

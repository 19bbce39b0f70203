"""The fixed choices for downloads and tools: formats, number types, merge methods, layouts."""

from __future__ import annotations

from enum import StrEnum


class DownloadFormat(StrEnum):
    """The files an adapter can be downloaded as."""

    KOHYA = "kohya"
    PEFT = "peft"
    BUNDLE = "bundle"


class DownloadDtype(StrEnum):
    """The number format of the tensors in a download."""

    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"


class Method(StrEnum):
    """How adapters are made into one."""

    LINEAR = "linear"
    SVD = "svd"
    TIES = "ties"
    DARE = "dare"


class Layout(StrEnum):
    """What a fused base is written as."""

    DIFFUSERS = "diffusers"
    SINGLE = "single"


class FusedDtype(StrEnum):
    """The number type of a fused base."""

    KEEP = "keep"
    FP16 = "fp16"
    BF16 = "bf16"
    FP32 = "fp32"


class Keep(StrEnum):
    """What becomes of a fused base: another base model here, or a file to download."""

    BASE_MODEL = "base_model"
    DOWNLOAD = "download"

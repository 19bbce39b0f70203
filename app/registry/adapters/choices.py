"""The fixed choices of the tools that only the registry makes."""

from __future__ import annotations

from enum import StrEnum


class Keep(StrEnum):
    """What becomes of a fused base: another base model here, or a file to download."""

    BASE_MODEL = "base_model"
    DOWNLOAD = "download"

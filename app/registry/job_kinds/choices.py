"""Fixed choices of the tools that only the registry uses."""

from __future__ import annotations

from enum import StrEnum


class FuseOutput(StrEnum):
    """The output of a fusion: another base model here, or a file to download."""

    BASE_MODEL = "base_model"
    DOWNLOAD = "download"

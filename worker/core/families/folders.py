"""The kind of folder of each family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.core.families.family import BaseFamily
from worker.core.families.folder import FolderKind
from worker.core.families.stable_diffusion.folder import UNETS

_KINDS = {
    BaseFamily.SD1: UNETS,
    BaseFamily.SD2: UNETS,
    BaseFamily.SDXL: UNETS,
}


def folder_kind(index: Mapping[str, Any]) -> FolderKind:
    """The kind of the folder with this model_index.json. Raises BaseModelError for others."""
    return UNETS


def folder_of(family: BaseFamily) -> FolderKind:
    """The kind of folder that base models of a family lie in."""
    return _KINDS[family]

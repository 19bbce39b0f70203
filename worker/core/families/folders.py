"""The kind of folder of each family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.core.families.family import BaseFamily
from worker.core.families.folder import FolderKind, class_in
from worker.core.families.klein.folder import KLEIN
from worker.core.families.others import refuse_folder
from worker.core.families.stable_diffusion.folder import UNETS
from worker.core.families.zimage.folder import ZIMAGE

_KINDS = {
    BaseFamily.SD1: UNETS,
    BaseFamily.SD2: UNETS,
    BaseFamily.SDXL: UNETS,
    BaseFamily.ZIMAGE: ZIMAGE,
    BaseFamily.KLEIN: KLEIN,
}


def folder_kind(index: Mapping[str, Any]) -> FolderKind:
    """The kind of the folder with this model_index.json. Raises BaseModelError for others."""
    transformer, pipeline = class_in(index, "transformer"), str(index.get("_class_name", ""))
    for kind in (ZIMAGE, KLEIN):
        if transformer in kind.classes["unet"] and pipeline.startswith(kind.pipeline):
            return kind
    refuse_folder(pipeline, transformer)
    return UNETS


def folder_of(family: BaseFamily) -> FolderKind:
    """The kind of folder that base models of a family lie in."""
    return _KINDS[family]

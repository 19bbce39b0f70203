"""The adapter files of each family, and the family of a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from worker.core.families.adapter_file import AdapterFiles, NamedLayers, Shapes
from worker.core.families.family import BaseFamily
from worker.core.families.stable_diffusion import layers
from worker.core.families.stable_diffusion import names as stable_diffusion
from worker.core.families.zimage import names as zimage

_FILES: dict[BaseFamily, AdapterFiles] = {**stable_diffusion.FILES, **zimage.FILES}
FAMILIES_WITH_FILES = tuple(_FILES)
"""The families whose adapter files can be read and written."""


def files_of(family: BaseFamily) -> AdapterFiles:
    """The adapter files of a family."""
    return _FILES[family]


@cache
def family_shapes(family: BaseFamily) -> Shapes:
    """The weight shape of every published layer that adapters change, by `<component>.<path>`."""
    return MappingProxyType(dict(_FILES[family].shapes()))


@cache
def adapted_components(family: BaseFamily) -> frozenset[str]:
    """The components whose layers adapters change."""
    return frozenset(key.partition(".")[0] for key in family_shapes(family))


def family_of_header(metadata: Mapping[str, str]) -> BaseFamily | None:
    """The family named in a file's metadata; its shapes take precedence if they are unambiguous."""
    return zimage.family_of_header(metadata) or stable_diffusion.family_of_header(metadata)


def closest_family(shapes: Shapes) -> BaseFamily:
    """The family whose names layers of these shapes get, if they are of no published base."""
    return zimage.closest_family(shapes) or layers.closest_family(shapes)


def denoiser_of(shapes: Shapes) -> tuple[str, BaseFamily]:
    """(class of the denoiser that has these layers, the closest family)."""
    family = closest_family(shapes)
    return _FILES[family].networks["unet"][0], family


def named_layers(stem: str) -> NamedLayers | None:
    """The layers that a name in a file stands for, in a family with names of its own."""
    found = (files.read(stem) for files in _FILES.values())
    return next((layers for layers in found if layers is not None), None)

"""The adapter files of each family, and the family of a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType

from worker.core.families.adapter_file import AdapterFiles, NamedLayers, Shapes
from worker.core.families.family import BaseFamily
from worker.core.families.klein import names as klein
from worker.core.families.stable_diffusion import layers
from worker.core.families.stable_diffusion import names as stable_diffusion
from worker.core.families.zimage import names as zimage

_FILES: dict[BaseFamily, AdapterFiles] = {
    **stable_diffusion.FILES,
    **zimage.FILES,
    **klein.FILES,
}
_HEADER = ("ss_base_model_version", "modelspec.architecture", "ss_network_module")


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
    words = " ".join(metadata.get(name, "") for name in _HEADER).lower()
    said = re.sub(r"[-_.]", "", words)
    named = (
        family
        for family, files in _FILES.items()
        if files.header_word and files.header_word in said
    )
    return next(named, None) or stable_diffusion.family_of_header(metadata)


def closest_family(shapes: Shapes) -> BaseFamily:
    """The family whose names layers of these shapes get, if they are of no published base."""
    own = (family for family, files in _FILES.items() if any(map(files.is_own, shapes)))
    return next(own, None) or layers.closest_family(shapes)


def denoiser_of(shapes: Shapes) -> tuple[str, BaseFamily]:
    """(class of the denoiser that has these layers, the closest family)."""
    family = closest_family(shapes)
    return _FILES[family].networks["unet"][0], family


def other_model(tensors: Shapes) -> str | None:
    """The model, not supported, that a file with tensors of these shapes is an adapter for."""
    found = (files.other_model(tensors) for files in _FILES.values())
    return next((model for model in found if model), None)


def family_of_names(stems: Iterable[str]) -> BaseFamily | None:
    """The family with names of its own that knows most of these; some names are of several."""
    known = Counter(
        family for stem in stems for family, files in _FILES.items() if files.read(stem)
    )
    return max(known, key=lambda family: known[family]) if known else None


def named_layers(stem: str, family: BaseFamily | None = None) -> NamedLayers | None:
    """The layers that a name in a file stands for, in a family with names of its own.

    `family`: the only one that is asked.
    """
    found = (files.read(stem) for own, files in _FILES.items() if family in (None, own))
    return next((layers for layers in found if layers is not None), None)


def block_place(path: str) -> tuple[int, int] | None:
    """(number, count) of the block of a layer, in a transformer whose blocks are in one row."""
    root, _, rest = path.partition(".")
    number = rest.partition(".")[0]
    for files in _FILES.values():
        if root in files.row and number.isdecimal():
            counts = [files.blocks[each] for each in files.row]
            return sum(counts[: files.row.index(root)]) + int(number), sum(counts)
    return None


def is_last(path: str) -> bool:
    """True for a layer of a denoiser behind all of its blocks."""
    return any(path.startswith(files.last) for files in _FILES.values())

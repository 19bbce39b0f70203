"""How adapters for the base models of a family lie in files: layers, names, header; no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from worker.core.families.family import Component

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Weight shapes of layers by `<component>.<path>`."""


class UnknownNameError(ValueError):
    """A name that no layer has; the message is a sentence for people."""


@dataclass(frozen=True)
class NamedLayers:
    """The layers that a name in a file stands for.

    `path` is that of the layer in the file. `parts` are the canonical paths of its equal parts, of
    which it has its rows in this order.
    """

    component: Component
    path: str
    parts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SingleFileNames:
    """The prefixes of text encoders in the single files of a family.

    `open_clip`: those with OpenCLIP's names. `repeats_last_layer`: programs require a last layer
    that folders omit. `pipeline` is the class in the index of a folder that is made of such a file,
    `index` what else the index has beside its components.
    """

    pipeline: str
    index: Mapping[str, object]
    encoders: Mapping[str, str]
    open_clip: tuple[str, ...] = ()
    repeats_last_layer: bool = False


@dataclass(frozen=True, kw_only=True)
class AdapterFiles:
    """What adapter files of a family have in common.

    `shapes` are those of every published layer that adapters change. `networks`: class and config
    of the published components, for adapters whose own base is missing. `stem` is the name of a
    layer in a file, by its component and path; it raises UnknownNameError. `header`: entries that
    other programs expect. `mixin`: the class of diffusers.loaders that loads a file, `denoiser` the
    name of the denoiser in its pipelines. `leaves`: how the two matrices are named; without
    `has_alpha`, strengths are multiplied in and files have no alpha. `read`: the layers of a name
    in a file, None for a name that it does not know. `whole`: the keys of all layers that a
    training changes which changes these; empty where that is not known. `single_file`: None where
    a base model is a folder only.
    """

    shapes: Callable[[], Shapes]
    networks: Mapping[str, tuple[str, dict[str, Any]]]
    stem: Callable[[Component, str], str]
    mixin: str
    header: Mapping[str, str] = field(default_factory=dict)
    denoiser: str = "unet"
    leaves: tuple[str, str] = ("lora_down.weight", "lora_up.weight")
    has_alpha: bool = True
    read: Callable[[str], NamedLayers | None] = lambda stem: None
    whole: Callable[[Shapes], Set[str]] = lambda shapes: frozenset()
    single_file: SingleFileNames | None = None

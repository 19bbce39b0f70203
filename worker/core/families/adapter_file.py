"""How adapters for the base models of a family lie in files: layers, names, header; no torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.core.families.family import Component

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Weight shapes of layers by `<component>.<path>`."""
PREFIX = "diffusion_model."
# the longer ones first; a path without a prefix is read as well
_PREFIXES = (
    *("base_model.model.transformer.", "base_model.model.", "model.diffusion_model.", PREFIX),
    *("transformer.", "unet.", "lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_"),
)
_IN_A_BLOCK = re.compile(rf"{Component.DENOISER}\.(\w+)\.(\d{{1,4}})\.(.+)", re.ASCII)


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
    layer in a file, by its component and path, or of the layer there that it is a part of; it
    raises UnknownNameError. `header`: entries that other programs expect. `mixin`: the class of
    diffusers.loaders that loads a file, `denoiser` the name of the denoiser in its pipelines.
    `leaves`: how the two matrices are named; without `has_alpha`, strengths are multiplied in and
    files have no alpha. `last`: how the paths of layers behind all blocks begin. `single_file`:
    None where a base model is a folder only.

    Only of a transformer: `names`, the layers by their names in files; `is_own`, true for the key
    of a layer that only the family has; `header_word`, by which headers name it; `blocks`, how many
    it has by the path before their numbers, of which those in `row` are one after another;
    `other_model`, the model that a file with tensors of these shapes is for, if it is one that
    shares names with the family.
    """

    shapes: Callable[[], Shapes]
    networks: Mapping[str, tuple[str, dict[str, Any]]]
    stem: Callable[[Component, str], str]
    mixin: str
    header: Mapping[str, str] = field(default_factory=dict)
    denoiser: str = "unet"
    leaves: tuple[str, str] = ("lora_down.weight", "lora_up.weight")
    has_alpha: bool = True
    last: tuple[str, ...] = ("conv_out",)
    single_file: SingleFileNames | None = None
    names: Callable[[], Mapping[str, NamedLayers]] = dict
    is_own: Callable[[str], bool] = lambda key: False
    header_word: str = ""
    blocks: Mapping[str, int] = field(default_factory=dict)
    row: tuple[str, ...] = ()
    other_model: Callable[[Shapes], str | None] = lambda tensors: None

    def read(self, stem: str) -> NamedLayers | None:
        """The layers that a name in a file stands for, with any prefix; None for other names."""
        prefix = next((prefix for prefix in _PREFIXES if stem.startswith(prefix)), "")
        return self.names().get(stem.removeprefix(prefix))

    def whole(self, shapes: Shapes) -> set[str]:
        """The keys of all layers of the same kinds as those in `shapes`, in all blocks of a base.

        A base of other sizes is taken to have as many blocks as the last number says.
        """
        kinds: dict[str, set[str]] = {}
        numbers: dict[str, int] = {}
        for key in shapes:
            found = _IN_A_BLOCK.fullmatch(key)
            if found and found[1] in self.blocks:
                root, number, kind = found.groups()
                kinds.setdefault(root, set()).add(kind)
                numbers[root] = max(numbers.get(root, 0), int(number) + 1)
        published = self.shapes()
        if all(published.get(key) == shape for key, shape in shapes.items()):
            numbers = dict(self.blocks)
        return {
            f"{Component.DENOISER}.{root}.{number}.{kind}"
            for root, own in kinds.items()
            for number in range(numbers[root])
            for kind in own
        }


def denoiser_path(key: str) -> str:
    """The path of a layer of the denoiser, by its key."""
    return key.removeprefix(f"{Component.DENOISER}.")


def with_spellings(layers: Mapping[str, tuple[str, ...]]) -> Mapping[str, NamedLayers]:
    """The layers by their names with dots and with underscores.

    `layers`: the paths of the parts of each layer by its name without a prefix.
    """
    found = {}
    for name, parts in layers.items():
        path = parts[0] if len(parts) == 1 else name
        found[name] = found[name.replace(".", "_")] = NamedLayers(Component.DENOISER, path, parts)
    return found

"""Input and output of a loader's rule: the content of a file, and how the loader reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from worker.core.lora_files.canonical import read_tensors

ALPHA = ".alpha"
KOHYA_PAIR = (".lora_down.weight", ".lora_up.weight")
PEFT_PAIR = (".lora_A.weight", ".lora_B.weight")
OTHER_CHANGES = (".w_norm", ".b_norm", ".diff", ".diff_b")  # of norms and biases
LeafPair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class FileContent:
    """The tensors by name, in the order of the file, and the header's metadata."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> FileContent:
        """The checked content of a safetensors file; raises AdapterError if it is damaged."""
        header, tensors = read_tensors(path)
        ordered = sorted(tensors, key=lambda name: (header.tensors[name].start, name))
        return cls({name: tensors[name] for name in ordered}, header.metadata)

    @property
    def stems(self) -> list[str]:
        """The distinct parts of the names before the first dot: the modules of kohya's naming."""
        return list(dict.fromkeys(name.split(".")[0] for name in self.tensors))


@dataclass(frozen=True)
class LayerPatch:
    """The names of the tensors that a loader applies to one layer as scale * up @ down.

    `third`: the third of the rows of `up` that are the layer's; None: all.
    """

    down: str
    up: str
    scale: float
    third: int | None = None


@dataclass
class LoaderReading:
    """A loader's view of a file: patches by canonical key, and the family that it detects.

    `used`: the tensors that it uses. `rejection`: why it rejects the file, empty if it does not.
    `seen_as`: the family that it detects, empty if it accepts any base. `inherent`: a rejection or
    a wrong family is caused by the choice of trained layers, so no other file could avoid it.
    `dropped`: layers whose tensors it recognizes and ignores, `remark` why.
    """

    patches: dict[str, LayerPatch] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    rejection: str = ""
    seen_as: str = ""
    inherent: bool = False
    dropped: set[str] = field(default_factory=set)
    remark: str = ""

    def reject(self, reason: str) -> LoaderReading:
        """The reading of the same loader if it rejects the file for this reason."""
        return LoaderReading(rejection=reason, seen_as=self.seen_as, inherent=self.inherent)


def use_layer(
    reading: LoaderReading,
    content: FileContent,
    key: str,
    stem: str,
    *,
    pairs: Iterable[LeafPair] = (KOHYA_PAIR,),
    third: int | None = None,
    has_alpha: bool = True,
    zero_means_rank: bool = False,
) -> None:
    """Add the patch of a layer under this name, if the file has it.

    The scale is alpha / rank, or 1 without an alpha, as in all loaders. `zero_means_rank`: an alpha
    of 0 is ignored.
    """
    for down, up in ((stem + down, stem + up) for down, up in pairs):
        if down in content.tensors and up in content.tensors:
            scale = 1.0
            reading.used |= {down, up}
            if has_alpha and stem + ALPHA in content.tensors:
                reading.used.add(stem + ALPHA)
                alpha = float(content.tensors[stem + ALPHA])
                if alpha or not zero_means_rank:
                    scale = alpha / int(content.tensors[down].shape[0])
            reading.patches[key] = LayerPatch(down, up, scale, third)


def match_layer_names(
    content: FileContent,
    names: Mapping[str, Iterable[str]],
    *,
    pairs: Sequence[LeafPair] = (KOHYA_PAIR,),
    zero_means_rank: bool = False,
) -> LoaderReading:
    """The reading of a loader that searches the file for each layer of its base by name.

    `names`: the accepted names of each layer, by canonical key; the rest see `use_layer`.
    """
    reading = LoaderReading()
    for key, stems in names.items():
        for stem in stems:
            use_layer(reading, content, key, stem, pairs=pairs, zero_means_rank=zero_means_rank)
    return reading


def use_other_changes(
    reading: LoaderReading, content: FileContent, prefixes: tuple[str, ...]
) -> None:
    """Count changes of norms and biases of the UNet as used, in a program that applies them."""
    reading.used |= {
        name
        for name in content.tensors
        if name.startswith(prefixes) and name.endswith(OTHER_CHANGES)
    }

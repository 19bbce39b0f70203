"""What a loader's rule is given of a file, and what it says about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from worker.core.lora_files.canonical import read_tensors

ALPHA = ".alpha"
KOHYA_PAIR = (".lora_down.weight", ".lora_up.weight")
PEFT_PAIR = (".lora_A.weight", ".lora_B.weight")
Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class FileContent:
    """The tensors by their names, in the order of the file, and the header's metadata."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> FileContent:
        """The content of a safetensors file, which has been checked; AdapterError when damaged."""
        header, tensors = read_tensors(path)
        ordered = sorted(tensors, key=lambda name: (header.tensors[name].start, name))
        return cls({name: tensors[name] for name in ordered}, header.metadata)

    @property
    def stems(self) -> list[str]:
        """Everything before the first point of a name, each once: kohya's modules."""
        return list(dict.fromkeys(name.split(".")[0] for name in self.tensors))


@dataclass(frozen=True)
class Patch:
    """The tensors that a loader puts into one layer: scale * up @ down."""

    down: str
    up: str
    scale: float


@dataclass
class Reading:
    """What a loader makes of a file: its patches by canonical key, and what it calls the file.

    `used` are the tensors it takes; `refused` says why it takes none of the file; `seen_as` is the
    family it believes the file to be for, empty when it takes whatever base is loaded.
    `inherent`: that it refuses or mistakes the file lies in what was trained, not in the file.
    """

    patches: dict[str, Patch] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    refused: str = ""
    seen_as: str = ""
    inherent: bool = False

    def refuse(self, reason: str) -> Reading:
        """The same loader taking nothing."""
        return Reading(refused=reason, seen_as=self.seen_as, inherent=self.inherent)


def lookup(
    content: FileContent,
    names: Mapping[str, Iterable[str]],
    *,
    pairs: Sequence[Pair] = (KOHYA_PAIR,),
    zero_means_rank: bool = False,
) -> Reading:
    """The reading of a loader that looks for every layer of its base under some names.

    `names` are those of each layer by canonical key. The scale is alpha / rank, and 1 where the
    file has no alpha, as all loaders have it; `zero_means_rank`: an alpha of 0 counts as none.
    """
    reading = Reading()
    for key, stems in names.items():
        for stem in stems:
            for down_leaf, up_leaf in pairs:
                down, up = stem + down_leaf, stem + up_leaf
                if down not in content.tensors or up not in content.tensors:
                    continue
                rank = int(content.tensors[down].shape[0])
                alpha = float(rank)
                reading.used |= {down, up}
                if stem + ALPHA in content.tensors:
                    reading.used.add(stem + ALPHA)
                    alpha = float(content.tensors[stem + ALPHA])
                    if zero_means_rank and alpha == 0:
                        alpha = float(rank)
                reading.patches[key] = Patch(down, up, alpha / rank)
    return reading

"""Names of Z-Image's layers in adapter files of every program that is known to write them.

Programs use diffusers' paths or the original ones, where the projections of queries, keys and
values are one layer, each with dots or, behind kohya's prefixes, with underscores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from worker.core.families.adapter_file import (
    PREFIX,
    AdapterFiles,
    NamedLayers,
    UnknownNameError,
    denoiser_path,
    with_spellings,
)
from worker.core.families.family import BaseFamily, Component
from worker.core.families.zimage.layers import (
    BLOCKS,
    PUBLISHED,
    QUERY_KEY_VALUE,
    is_layer,
    published_shapes,
)

_ORIGINAL = (
    ("attention.to_out.0", "attention.out"),
    ("all_x_embedder.2-1", "x_embedder"),
    ("all_final_layer.2-1", "final_layer"),
)


def file_stem(component: Component, path: str) -> str:
    """The name of a layer in a file that all programs read."""
    if component is not Component.DENOISER or not is_layer(path):
        raise UnknownNameError(f"The module {path[:80]!r} cannot be named in files for Z-Image.")
    return PREFIX + path


@cache
def _layers_by_name() -> Mapping[str, NamedLayers]:
    paths = list(map(denoiser_path, published_shapes()))
    named = {name: (path,) for path in paths for name in (path, _original(path))}
    return with_spellings(named | dict(_fused_layers(paths)))


def _fused_layers(paths: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for path in paths:
        if path.endswith(f".{QUERY_KEY_VALUE[0]}"):
            block = path.removesuffix(QUERY_KEY_VALUE[0])
            yield f"{block}qkv", tuple(block + name for name in QUERY_KEY_VALUE)


def _original(path: str) -> str:
    for ours, theirs in _ORIGINAL:
        path = path.replace(ours, theirs)
    return path


FILES = {
    BaseFamily.ZIMAGE: AdapterFiles(
        shapes=published_shapes,
        networks=PUBLISHED,
        stem=file_stem,
        mixin="ZImageLoraLoaderMixin",
        denoiser="transformer",
        leaves=("lora_A.weight", "lora_B.weight"),
        has_alpha=False,
        names=_layers_by_name,
        is_own=is_layer,
        header_word="zimage",
        blocks=BLOCKS,
        row=("layers",),
        last=("all_final_layer.",),
    )
}

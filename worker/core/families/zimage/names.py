"""Names of Z-Image's layers in adapter files of every program that is known to write them.

Programs use diffusers' paths or the original ones, where the projections of queries, keys and
values are one layer, each with dots or, behind kohya's prefixes, with underscores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from worker.core.families.adapter_file import (
    AdapterFiles,
    NamedLayers,
    Shapes,
    UnknownNameError,
)
from worker.core.families.family import BaseFamily, Component
from worker.core.families.zimage.layers import (
    PUBLISHED,
    QUERY_KEY_VALUE,
    is_layer,
    published_shapes,
    whole,
)

PREFIX = "diffusion_model."
# the longer ones first; a path without a prefix is read as well
_PREFIXES = (
    *("base_model.model.transformer.", "base_model.model.", "model.diffusion_model.", PREFIX),
    *("transformer.", "unet.", "lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_"),
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


def read_stem(stem: str) -> NamedLayers | None:
    """The layers that a name in a file stands for, with any prefix; None if it is none of them."""
    prefix = next((prefix for prefix in _PREFIXES if stem.startswith(prefix)), "")
    return _layers_by_name().get(stem.removeprefix(prefix))


def family_of_header(metadata: Mapping[str, str]) -> BaseFamily | None:
    """Z-Image if a file's metadata names it."""
    names = ("ss_base_model_version", "modelspec.architecture", "ss_network_module")
    words = " ".join(metadata.get(name, "") for name in names).lower()
    is_named = "zimage" in words.replace("-", "").replace("_", "")
    return BaseFamily.ZIMAGE if is_named else None


def closest_family(shapes: Shapes) -> BaseFamily | None:
    """Z-Image if layers are named as only its are."""
    return BaseFamily.ZIMAGE if any(map(is_layer, shapes)) else None


@cache
def _layers_by_name() -> Mapping[str, NamedLayers]:
    found = {}
    for key in published_shapes():
        path = key.removeprefix(f"{Component.DENOISER}.")
        layers = NamedLayers(Component.DENOISER, path, (path,))
        for name in (path, _original(path)):
            found[name] = found[name.replace(".", "_")] = layers
    for path, layers in _fused_layers():
        found[path] = found[path.replace(".", "_")] = layers
    return found


def _fused_layers() -> Iterator[tuple[str, NamedLayers]]:
    for key in published_shapes():
        path = key.removeprefix(f"{Component.DENOISER}.")
        if path.endswith(f".{QUERY_KEY_VALUE[0]}"):
            block = path.removesuffix(QUERY_KEY_VALUE[0])
            parts = tuple(block + name for name in QUERY_KEY_VALUE)
            yield f"{block}qkv", NamedLayers(Component.DENOISER, f"{block}qkv", parts)


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
        read=read_stem,
        whole=whole,
    )
}

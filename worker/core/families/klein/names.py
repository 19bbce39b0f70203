"""Names of FLUX.2 klein's layers in adapter files of every program that is known to write them.

Programs use diffusers' paths or those of Black Forest Labs, in which queries, keys and values of a
double block are one layer, each with dots or, behind kohya's prefixes, with underscores. Files are
written with the latter: they are the names that all programs read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

from worker.core.families.adapter_file import (
    PREFIX,
    AdapterFiles,
    NamedLayers,
    Shapes,
    UnknownNameError,
    denoiser_path,
    with_spellings,
)
from worker.core.families.family import BaseFamily, Component
from worker.core.families.klein.layers import (
    BLOCKS,
    DOUBLE,
    HIDDEN,
    PUBLISHED,
    QUERY_KEY_VALUE,
    SINGLE,
    WIDTH,
    is_layer,
    published_shapes,
)

_OUTSIDE_BLOCKS = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "proj_out": "final_layer.linear",
}  # but for norm_out, whose halves change places there
_DOUBLE = {
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.linear_in": "img_mlp.0",
    "ff.linear_out": "img_mlp.2",
    "ff_context.linear_in": "txt_mlp.0",
    "ff_context.linear_out": "txt_mlp.2",
}
_IN_A_BLOCK = re.compile(
    r"(double|single)(?:_transformer)?_blocks[._](\d{1,4})[._]"
    r"(?=(?:img|txt)_(?:attn|mlp|mod)[._]|linear[12]|modulation|attn[._]|norm|proj_)(.+)"
)
_FLUX_1 = re.compile(r"(img|txt)_mod|modulation|norm[._]|proj_|attn[._]to_[qkv][._]")
# rows and columns of feed-forward layers, and of those that are one with others
_FLUX_1_SIZES = {"double": {4 * WIDTH}, "single": {5 * WIDTH, 7 * WIDTH}}
_OTHER_WIDTHS = {4096: "FLUX.2 klein 9B", 6144: "FLUX.2 dev"}
_SINGLE = {"attn.to_qkv_mlp_proj": "linear1", "attn.to_out": "linear2"}


def original_names() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each layer by Black Forest Labs: (its name, the paths of its equal parts by diffusers)."""
    for path, name in _OUTSIDE_BLOCKS.items():
        yield name, (path,)
    for number in range(BLOCKS[DOUBLE]):
        block, ours = f"double_blocks.{number}", f"{DOUBLE}.{number}"
        for stream, parts in QUERY_KEY_VALUE.items():
            yield f"{block}.{stream}_attn.qkv", tuple(f"{ours}.attn.{part}" for part in parts)
        for path, name in _DOUBLE.items():
            yield f"{block}.{name}", (f"{ours}.{path}",)
    for number in range(BLOCKS[SINGLE]):
        for path, name in _SINGLE.items():
            yield f"single_blocks.{number}.{name}", (f"{SINGLE}.{number}.{path}",)


def original_layer(path: str) -> tuple[str, int | None]:
    """(name by Black Forest Labs, part) of the layer that one of diffusers is or is a part of.

    The name is empty for a layer that has none; the part is None for the layer itself.
    """
    return _original_layers().get(path, ("", None))


@cache
def _original_layers() -> Mapping[str, tuple[str, int | None]]:
    return {
        path: (name, number if len(parts) > 1 else None)
        for name, parts in original_names()
        for number, path in enumerate(parts)
    }


def file_stem(component: Component, path: str) -> str:
    """The name in a file that all programs read; see AdapterFiles."""
    name, _ = original_layer(path) if component is Component.DENOISER else ("", None)
    if not name:
        raise UnknownNameError(
            f"The module {path[:80]!r} cannot be named in files for FLUX.2 klein."
        )
    return PREFIX + name


def other_model(tensors: Shapes) -> str | None:
    """The other model by Black Forest Labs that a file with tensors of these shapes is for.

    FLUX.1 has the width of FLUX.2 klein 4B and many of its names, but more blocks, a modulation in
    each of them, and narrower feed-forward layers.
    """
    widths, blocks = set(), {"double": -1, "single": -1}
    is_first = False
    for name, shape in tensors.items():
        if (found := _IN_A_BLOCK.search(name)) is None:
            continue
        kind, number, layer = found.groups()
        blocks[kind] = max(blocks[kind], int(number))
        is_first |= bool(_FLUX_1.match(layer) or _FLUX_1_SIZES[kind] & set(shape))
        if ".lora_A." in name or ".lora_down." in name:
            widths.add(shape[-1])
    if others := widths & _OTHER_WIDTHS.keys():
        return _OTHER_WIDTHS[min(others)]
    has_more = blocks["double"] >= BLOCKS[DOUBLE] or blocks["single"] >= BLOCKS[SINGLE]
    is_as_wide = widths <= {WIDTH, HIDDEN, 4 * WIDTH}
    return "FLUX.1" if is_first or (has_more and is_as_wide) else None


@cache
def _layers_by_name() -> Mapping[str, NamedLayers]:
    paths = map(denoiser_path, published_shapes())
    return with_spellings({path: (path,) for path in paths} | dict(original_names()))


FILES = {
    BaseFamily.KLEIN: AdapterFiles(
        shapes=published_shapes,
        networks=PUBLISHED,
        stem=file_stem,
        mixin="Flux2LoraLoaderMixin",
        denoiser="transformer",
        leaves=("lora_A.weight", "lora_B.weight"),
        has_alpha=False,
        names=_layers_by_name,
        is_own=is_layer,
        header_word="flux2klein",
        blocks=BLOCKS,
        row=(DOUBLE, SINGLE),
        last=("norm_out.", "proj_out"),
        other_model=other_model,
    )
}

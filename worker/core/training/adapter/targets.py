"""Selects the layers that get an adapter, by function and by block."""

import re

from torch import nn

from worker.core.bases.family import BaseFamily
from worker.core.training.config import Targets
from worker.core.training.errors import UnsupportedError

EVERY_BLOCK = "all"
# B-LoRA, arXiv 2403.14572: these two SDXL attentions hold an image's style and content; BLOCKS in
# yardenfren1996/B-LoRA, blora_utils.py, has the same.
B_LORA = {"style": "up.0.1", "content": "up.0.0"}

UNET_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET_CONVOLUTIONS = (
    ".conv1",
    ".conv2",
    ".conv_shortcut",
    ".time_emb_proj",
    ".downsamplers.0.conv",
    ".upsamplers.0.conv",
)
TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
TEXT_FEED_FORWARD = ("fc1", "fc2")
_BLOCK_PATH = re.compile(r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)(\.attentions\.\d+)?")


def unet_targets(
    unet: nn.Module, targets: Targets, blocks: str = EVERY_BLOCK, *, family: BaseFamily
) -> list[str]:
    """Paths of the UNet's layers: attention only, whole transformers, or also convolutions.

    `blocks` is `all`, comma-separated names (`down.1` for down_blocks.1, `mid`, `up.0.1` for
    up_blocks.0.attentions.1), or for SDXL `style` or `content`. Raises UnsupportedError for a block
    that this UNet lacks, or that has nothing to train.
    """

    def is_target(path: str) -> bool:
        if ".attentions." in path:
            return targets is not Targets.ATTENTION or path.endswith(UNET_ATTENTION)
        return targets is Targets.ALL and path.endswith(UNET_CONVOLUTIONS)

    paths = [path for path, layer in unet.named_modules() if _is_layer(layer) and is_target(path)]
    if blocks == EVERY_BLOCK:
        return paths
    existing = blocks_of(unet)
    filled = [name for name, block in existing.items() if _paths_inside(paths, block)]
    chosen: set[str] = set()
    for name in _block_names(blocks, family):
        if name not in existing:
            raise UnsupportedError(
                f"This base has no UNet block {name}. Choose from {', '.join(existing)}."
            )
        if name not in filled:
            raise UnsupportedError(
                f"The block {name} has no layers for the target modules “{targets}”. Choose from "
                f"{', '.join(filled)}."
            )
        chosen.update(_paths_inside(paths, existing[name]))
    return [path for path in paths if path in chosen]


def text_targets(encoder: nn.Module, targets: Targets) -> list[str]:
    """Paths of a text encoder's layers: attention only, or also feed-forward."""
    attention_only = targets is Targets.ATTENTION
    leaves = TEXT_ATTENTION if attention_only else (*TEXT_ATTENTION, *TEXT_FEED_FORWARD)
    return [
        path
        for path, layer in encoder.named_modules()
        if _is_layer(layer) and path.endswith(leaves)
    ]


def blocks_of(unet: nn.Module) -> dict[str, str]:
    """The path of every selectable block and attention by its short name, in order."""
    paths = [path for path, _ in unet.named_modules() if _BLOCK_PATH.fullmatch(path)]
    named = {re.sub(r"_blocks?|\.attentions", "", path): path for path in paths}
    return dict(sorted(named.items()))


def _block_names(blocks: str, family: BaseFamily) -> list[str]:
    if blocks not in B_LORA:
        return [name.strip() for name in blocks.split(",")]
    if family is not BaseFamily.SDXL:
        raise UnsupportedError(
            f"The blocks for “{blocks}” are known for SDXL only, and this base is not SDXL. Choose "
            "all blocks, or name some."
        )
    return [B_LORA[blocks]]


def _paths_inside(paths: list[str], block: str) -> list[str]:
    return [path for path in paths if path.startswith(f"{block}.")]


def _is_layer(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.Conv2d)

"""The layers of a base model, and their names in Stability's own layout (LDM).

The LDM names come from walking the blocks in the order in which the LDM UNet is built
(CompVis/stable-diffusion `ldm/modules/diffusionmodules/openaimodel.py`): two residual blocks per
level on the way down, three on the way up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from worker.core.bases.family import BaseFamily

Shape = tuple[int, ...]
LEVELS = 4
# levels on the way up whose blocks have attention, followed by the upsampler
ATTENDED_UP_BLOCKS = {
    BaseFamily.SD1: frozenset({1, 2, 3}),
    BaseFamily.SD2: frozenset({1, 2, 3}),
    BaseFamily.SDXL: frozenset({0, 1}),
}

_INSIDE_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


@dataclass(frozen=True)
class BaseLayout:
    """The weight shapes of the layers that adapters can change, by canonical key."""

    family: BaseFamily
    shapes: Mapping[str, Shape]

    def paths(self, component: str) -> Iterator[tuple[str, str]]:
        """(canonical key, path) of every layer of a component."""
        for key in self.shapes:
            found, _, path = key.partition(".")
            if found == component:
                yield key, path

    @cached_property
    def ldm(self) -> dict[str, str]:
        """The LDM path of every UNet layer that has one, by canonical key."""
        places = dict(_walk_blocks(ATTENDED_UP_BLOCKS[self.family]))
        named: dict[str, str] = {}
        for key, path in self.paths("unet"):
            if path in _OUTSIDE_BLOCKS:
                named[key] = _OUTSIDE_BLOCKS[path]
            elif path in places:  # the samplers
                named[key] = places[path]
            elif (block := _block_of(path)) in places:
                rest = path.removeprefix(f"{block}.")
                named[key] = f"{places[block]}.{_INSIDE_RESNET.get(rest, rest)}"
        return named

    @property
    def text_width(self) -> int | None:
        """The width of the text embeddings that the UNet reads; None if no layer has it."""
        encoders: dict[str, int] = {}
        for key, shape in self.shapes.items():
            if key.startswith("unet.") and key.endswith(("attn2.to_k", "attn2.to_v")):
                return shape[1]
            if not key.startswith("unet.") and key.endswith("q_proj"):
                encoders[key.partition(".")[0]] = shape[1]
        is_complete = len(encoders) == (2 if self.family is BaseFamily.SDXL else 1)
        return sum(encoders.values()) if is_complete else None  # SDXL concatenates its encoders

    @property
    def is_standard(self) -> bool:
        """True if other programs can load such a base: it has the text width of its family."""
        return self.text_width in (None, self.family.facts.text_width)


def _walk_blocks(attended_up_blocks: Collection[int]) -> Iterator[tuple[str, str]]:
    """(diffusers block, LDM block) in the order of construction; samplers with their layer."""
    slot = 1
    for level in range(LEVELS):
        for index in range(2):
            yield f"down_blocks.{level}.resnets.{index}", f"input_blocks.{slot}.0"
            yield f"down_blocks.{level}.attentions.{index}", f"input_blocks.{slot}.1"
            slot += 1
        yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{slot}.0.op"
        slot += 1
    yield "mid_block.resnets.0", "middle_block.0"
    yield "mid_block.attentions.0", "middle_block.1"
    yield "mid_block.resnets.1", "middle_block.2"
    slot = 0
    for level in range(LEVELS):
        for index in range(3):
            yield f"up_blocks.{level}.resnets.{index}", f"output_blocks.{slot}.0"
            yield f"up_blocks.{level}.attentions.{index}", f"output_blocks.{slot}.1"
            slot += 1
        place = 2 if level in attended_up_blocks else 1  # after the attention, if there is one
        yield f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{slot - 1}.{place}.conv"


def _block_of(path: str) -> str:
    """The block of a layer path, such as `mid_block.resnets.0`."""
    parts = path.split(".")
    return ".".join(parts[:3] if parts[0] == "mid_block" else parts[:4])

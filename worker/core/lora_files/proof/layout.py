"""The layers of a base model, and their names in Stability's own layout (LDM).

The LDM names come from walking the blocks in the order in which the LDM UNet is built
(CompVis/stable-diffusion `ldm/modules/diffusionmodules/openaimodel.py`): two residual blocks per
level on the way down, three on the way up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files.proof.content import KOHYA_PAIR, PEFT_PAIR

Shape = tuple[int, ...]
LEVELS = 4
# kohya's names of both namings of blocks, and the prefixes of encoders that most programs accept
STABILITY_BLOCKS = (
    "lora_unet_input_blocks_",
    "lora_unet_middle_block_",
    "lora_unet_output_blocks_",
)
DIFFUSERS_BLOCKS = ("lora_unet_down_blocks_", "lora_unet_mid_block_", "lora_unet_up_blocks_")
FUSED_PARTS = ("q_proj", "k_proj", "v_proj", "out_proj")
ENCODER_LAYERS = (*FUSED_PARTS, "fc1", "fc2")
PAIRS = (
    KOHYA_PAIR,
    PEFT_PAIR,
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
)
ANY_ENCODER = {"text_encoder": ("lora_te_", "lora_te1_"), "text_encoder_2": ("lora_te2_",)}

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

    @property
    def attended_up_blocks(self) -> set[int]:
        """The levels on the way up whose blocks have attention, followed by the upsampler."""
        published = family_shapes(self.family)
        return {
            level
            for level in range(LEVELS)
            if f"unet.up_blocks.{level}.attentions.0.proj_in" in published
        }

    @property
    def _encoders(self) -> int:
        """The number of text encoders of the family."""
        return len({key.partition(".")[0] for key in family_shapes(self.family)}) - 1

    @property
    def encoder_prefixes(self) -> dict[str, tuple[str, ...]]:
        """kohya's prefixes of the encoders, which are numbered in SDXL only."""
        first = "lora_te1_" if self._encoders > 1 else "lora_te_"
        return {"text_encoder": (first,), "text_encoder_2": ("lora_te2_",)}

    def kohya_names(
        self,
        encoders: Mapping[str, tuple[str, ...]],
        *,
        ldm: bool = True,
        has: Callable[[str], bool] = lambda key: True,
    ) -> dict[str, list[str]]:
        """The stems in kohya's naming of all layers that a program has, by canonical key.

        Those of the UNet are made of diffusers' paths and, with `ldm`, of LDM paths.
        """
        names: dict[str, list[str]] = {}
        for component, prefixes in {"unet": ("lora_unet_",), **encoders}.items():
            for key, path in self.paths(component):
                if has(key):
                    paths = [path, self.ldm[key]] if ldm and key in self.ldm else [path]
                    flat = [one.replace(".", "_") for one in paths]
                    names[key] = [prefix + one for one in flat for prefix in prefixes]
        return names

    @cached_property
    def ldm(self) -> dict[str, str]:
        """The LDM path of every UNet layer that has one, by canonical key."""
        places = dict(_walk_blocks(self.attended_up_blocks))
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
        is_complete = len(encoders) == self._encoders
        return sum(encoders.values()) if is_complete else None  # SDXL concatenates its encoders

    @property
    def is_standard(self) -> bool:
        """True if other programs can load such a base: it has the sizes of its family."""
        if self._encoders:
            return self.text_width in (None, self.family.facts.text_width)
        published = family_shapes(self.family)
        return all(published.get(key) == shape for key, shape in self.shapes.items())


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

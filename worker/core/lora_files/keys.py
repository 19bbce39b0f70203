"""Which module and which of its matrices a tensor's name means, in every naming in use.

kohya and LyCORIS (`lora_unet_…`), PEFT and diffusers of three ages (`unet.….lora_A.weight`,
`.lora.down.weight`, `.processor.to_q_lora.down.weight`), ComfyUI's own (`diffusion_model.…`), and
the registry's. One file may mix them: each name is read by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from worker.core.lora_files.canonical import AdapterError, Component
from worker.core.lora_files.naming import from_kohya_stem, from_ldm, with_text


class Leaf(StrEnum):
    """What a tensor is in its module."""

    DOWN = "down"
    UP = "up"
    MID = "mid"
    ALPHA = "alpha"
    MAGNITUDE = "magnitude"  # of DoRA, as PEFT has it: one number per output
    DORA_SCALE = "dora_scale"  # of DoRA, as LyCORIS has it: its shape says which axis
    W1, W1_A, W1_B = "lokr_w1", "lokr_w1_a", "lokr_w1_b"
    W2, W2_A, W2_B, T2 = "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"
    H1_A, H1_B, H2_A, H2_B = "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"
    HT1, HT2 = "hada_t1", "hada_t2"
    DIFF = "diff"
    DIFF_B = "diff_b"
    W_NORM = "w_norm"
    B_NORM = "b_norm"


class Naming(StrEnum):
    """Whose names a tensor has, as people call it."""

    CANONICAL = "Brushwork"
    KOHYA = "kohya"
    PEFT = "PEFT"
    SCRIPT = "diffusers script"
    OLD = "old diffusers"
    COMFY = "ComfyUI"


_LEAVES: dict[str, Leaf] = {str(leaf): leaf for leaf in Leaf if leaf is not Leaf.MAGNITUDE} | {
    "lora_down.weight": Leaf.DOWN,
    "lora_up.weight": Leaf.UP,
    "lora_mid.weight": Leaf.MID,
    "lora_A.weight": Leaf.DOWN,
    "lora_B.weight": Leaf.UP,
    "lora_A.default.weight": Leaf.DOWN,
    "lora_B.default.weight": Leaf.UP,
    "lora.down.weight": Leaf.DOWN,
    "lora.up.weight": Leaf.UP,
    "lora_linear_layer.down.weight": Leaf.DOWN,
    "lora_linear_layer.up.weight": Leaf.UP,
    "lora_magnitude_vector": Leaf.MAGNITUDE,
    "lora_magnitude_vector.weight": Leaf.MAGNITUDE,
    "lora_magnitude_vector.default": Leaf.MAGNITUDE,
    "lora_magnitude_vector.default.weight": Leaf.MAGNITUDE,
}
# Kinds of adapters whose change is not the sum of a base's weight and a matrix we could make.
OTHER_KINDS = {
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
    "oft_R.weight": "OFT",
    "boft_R": "BOFT",
    "on_input": "(IA)³",
    "ia3_l": "(IA)³",
    "a1.weight": "GLoRA",
    "b1.weight": "GLoRA",
}
EMBEDDINGS = "bundle_emb."

_PATH = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_ROOTS = (
    *("down_blocks", "up_blocks", "mid_block", "conv_in", "conv_out", "time_embedding"),
    *("add_embedding", "input_blocks", "middle_block", "output_blocks"),
)
_TEXT_ROOTS = ("text_model.encoder.layers", "text_model.embeddings", "text_model.final_layer_norm")
_DOTTED = {
    "unet.": (Component.UNET, None),
    "text_encoder.": (Component.TEXT_ENCODER, None),
    "text_encoder_2.": (Component.TEXT_ENCODER_2, None),
    "diffusion_model.": (Component.UNET, Naming.COMFY),
    "text_encoders.clip_l.transformer.": (Component.TEXT_ENCODER, Naming.COMFY),
    "text_encoders.clip_g.transformer.": (Component.TEXT_ENCODER_2, Naming.COMFY),
}
_WRAPPER = "base_model.model."  # peft's own files
_OLD = re.compile(r"(\.processor)?\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")
_TEXT_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True)
class Key:
    """A tensor's place: the module by its canonical path, and what the tensor is in it."""

    component: Component
    path: str
    leaf: Leaf
    naming: Naming

    @property
    def module(self) -> tuple[Component, str]:
        """The module without the leaf."""
        return self.component, self.path


def parse(name: str) -> Key | None:
    """What a tensor's name means; None for a name that nobody writes."""
    stem, found = _split_leaf(_modern(name))
    if found is None or not stem:
        return None
    leaf, words = found
    if stem.startswith("lora_"):
        try:
            component, path = from_kohya_stem(stem)
        except AdapterError:
            return None
        return _known(Key(component, path, leaf, Naming.KOHYA))
    return _dotted(stem, leaf, Naming.OLD if _OLD.search(name) else _naming(words))


def other_kind(name: str) -> str | None:
    """What kind of adapter a tensor belongs to that is none of ours, if it is well known."""
    return next((kind for leaf, kind in OTHER_KINDS.items() if name.endswith(f".{leaf}")), None)


def _split_leaf(name: str) -> tuple[str, tuple[Leaf, str] | None]:
    parts = name.split(".")
    for count in (3, 2, 1):
        words = ".".join(parts[-count:])
        if len(parts) > count and words in _LEAVES:
            return ".".join(parts[:-count]), (_LEAVES[words], words)
    return name, None


def _naming(words: str) -> Naming:
    if words in ("down", "up", "alpha"):
        return Naming.CANONICAL
    return Naming.SCRIPT if words.startswith(("lora.", "lora_linear")) else Naming.PEFT


def _modern(name: str) -> str:
    """A name of old diffusers (`attn1.processor.to_out_lora.down`) as it is called today."""
    found = _OLD.search(name)
    if found is None:
        return name
    projection = found[2]
    if name.startswith("text_encoder"):
        today = _TEXT_PROJECTIONS[projection]
    else:
        today = "to_out.0" if projection == "to_out" else projection
    return f"{name[: found.start()]}.{today}.lora.{found[3]}.weight"


def _dotted(stem: str, leaf: Leaf, naming: Naming) -> Key | None:
    stem = stem.removeprefix(_WRAPPER)
    component, path = Component.UNET, stem
    for prefix, (of_prefix, own) in _DOTTED.items():
        if stem.startswith(prefix):
            component, path, naming = of_prefix, stem.removeprefix(prefix), own or naming
            break
    else:
        if stem.partition(".")[0] not in _ROOTS:
            return None
    if _PATH.fullmatch(path) is None:
        return None
    if component is not Component.UNET:
        return _known(Key(component, with_text(path), leaf, naming))
    try:
        return _known(Key(component, from_ldm(path), leaf, naming))
    except AdapterError:
        return None


def _known(key: Key) -> Key | None:
    """The key, if its path begins as those of a Stable Diffusion do; a base tells the rest."""
    roots = _ROOTS if key.component is Component.UNET else _TEXT_ROOTS
    return (
        key
        if key.path.startswith(tuple(f"{root}." for root in roots)) or (key.path in roots)
        else None
    )

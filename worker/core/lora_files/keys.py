"""Parsing tensor names of every known naming into the module and the role of the tensor.

kohya and LyCORIS (`lora_unet_…`, `lycoris_…`), PEFT and three generations of diffusers
(`unet.….lora_A.weight`, `.lora.down.weight`, `.processor.to_q_lora.down.weight`), ComfyUI
(`diffusion_model.…`), OneTrainer (`clip_l.…`), and the registry's canonical names. A file may mix
them: each name is parsed separately.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from worker.core.families.adapter_file import UnknownNameError
from worker.core.families.adapter_files import family_of_names, named_layers
from worker.core.families.family import BaseFamily, Component
from worker.core.families.stable_diffusion.names import (
    LYCORIS_PREFIX,
    from_kohya_stem,
    from_ldm,
    with_text_prefix,
)


class Leaf(StrEnum):
    """The role of a tensor in its module."""

    DOWN = "down"
    UP = "up"
    UP_BIAS = "up_bias"  # of PEFT's lora_bias: a change of the layer's bias
    MID = "mid"
    ALPHA = "alpha"
    MAGNITUDE = "magnitude"  # of DoRA in PEFT: one value per output
    DORA_SCALE = "dora_scale"  # of DoRA in LyCORIS: its shape determines the axis
    W1, W1_A, W1_B = "lokr_w1", "lokr_w1_a", "lokr_w1_b"
    W2, W2_A, W2_B, T2 = "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"
    H1_A, H1_B, H2_A, H2_B = "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"
    HT1, HT2 = "hada_t1", "hada_t2"
    DIFF = "diff"
    DIFF_B = "diff_b"
    W_NORM = "w_norm"
    B_NORM = "b_norm"


class Naming(StrEnum):
    """The program or format whose names a tensor has."""

    CANONICAL = "Brushwork"
    KOHYA = "kohya"
    PEFT = "PEFT"
    SCRIPT = "diffusers script"
    OLD = "old diffusers"
    COMFY = "ComfyUI"
    OMI = "OneTrainer"


_LEAVES: dict[str, Leaf] = {str(leaf): leaf for leaf in Leaf if leaf is not Leaf.MAGNITUDE} | {
    "lora_down.weight": Leaf.DOWN,
    "lora_up.weight": Leaf.UP,
    "lora_mid.weight": Leaf.MID,
    "lora_A.weight": Leaf.DOWN,
    "lora_B.weight": Leaf.UP,
    "lora_B.bias": Leaf.UP_BIAS,
    "lora.down.weight": Leaf.DOWN,
    "lora.up.weight": Leaf.UP,
    "lora_linear_layer.down.weight": Leaf.DOWN,
    "lora_linear_layer.up.weight": Leaf.UP,
    "lora_magnitude_vector": Leaf.MAGNITUDE,
    "lora_magnitude_vector.weight": Leaf.MAGNITUDE,
}
# Adapter types whose change cannot be converted to a matrix that is added to the weight.
UNSUPPORTED_KINDS = {
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
    *("add_embedding", "conv_norm_out", "input_blocks", "middle_block", "output_blocks"),
)
TEXT_PROJECTION = "text_model.text_projection"
_TEXT_ROOTS = (
    *("text_model.encoder.layers", "text_model.embeddings", "text_model.final_layer_norm"),
    TEXT_PROJECTION,
)
BARE_ENCODER = ("text_model.", "encoder.layers.")  # how peft names the layers of an encoder
_DOTTED = {
    "unet.": (Component.DENOISER, None),
    "text_encoder.": (Component.TEXT_ENCODER, None),
    "text_encoder_2.": (Component.TEXT_ENCODER_2, None),
    "diffusion_model.": (Component.DENOISER, Naming.COMFY),
    "text_encoders.clip_l.transformer.": (Component.TEXT_ENCODER, Naming.COMFY),
    "text_encoders.clip_h.transformer.": (Component.TEXT_ENCODER, Naming.COMFY),
    "text_encoders.clip_g.transformer.": (Component.TEXT_ENCODER_2, Naming.COMFY),
    "clip_l.": (Component.TEXT_ENCODER, Naming.OMI),
    "clip_g.": (Component.TEXT_ENCODER_2, Naming.OMI),
}
WRAPPER = "base_model.model."  # files saved by peft itself
# A state dict of peft that was saved as it is has the name of the adapter in every key.
_ADAPTER_NAME = re.compile(
    r"\.(lora_A|lora_B|lora_magnitude_vector|hada_[a-z0-9_]+|lokr_[a-z0-9_]+)"
    r"\.(?!weight$|bias$)[^.]+(\.weight|\.bias)?$"
)
_OLD_ATTENTION = re.compile(r"(\.processor)?\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")
_TEXT_PROJECTIONS = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


@dataclass(frozen=True)
class TensorKey:
    """The module of a tensor by its canonical path, and the role of the tensor in it.

    `parts`: see NamedLayers; empty for a name of Stable Diffusion.
    """

    component: Component
    path: str
    leaf: Leaf
    naming: Naming
    parts: tuple[str, ...] = ()

    @property
    def has_settings(self) -> bool:
        """True if PEFT's settings may say its alpha, because the names have none."""
        is_peft = self.naming in (Naming.PEFT, Naming.SCRIPT, Naming.OLD)
        return is_peft or (bool(self.parts) and self.naming is Naming.COMFY)

    @property
    def module(self) -> tuple[Component, str]:
        """The module without the leaf."""
        return self.component, self.path


def parse_tensor_names(names: Iterable[str]) -> dict[str, TensorKey | None]:
    """The module and role of each tensor of a file; None for an unknown name."""
    stems = {name: _split_leaf(_modern_name(name))[0] for name in names}
    family = family_of_names(set(stems.values()))
    return {name: parse_tensor_name(name, family) for name in stems}


def parse_tensor_name(name: str, family: BaseFamily | None = None) -> TensorKey | None:
    """The module and role that a tensor's name stands for; None for an unknown name.

    `family`: that of the file, if it has names of its own that may be another's as well.
    """
    stem, found = _split_leaf(_modern_name(name))
    if found is None or not stem:
        return None
    leaf, words = found
    if layers := named_layers(stem, family):
        return TensorKey(
            layers.component, layers.path, leaf, _naming_of_stem(stem, words), layers.parts
        )
    if stem.startswith(("lora_", "lycoris_")):
        try:
            component, path = from_kohya_stem(stem)
        except UnknownNameError:
            return None
        return _check_path(TensorKey(component, path, leaf, Naming.KOHYA))
    return _parse_dotted_name(
        stem, leaf, Naming.OLD if _OLD_ATTENTION.search(name) else _naming_of_leaf(words)
    )


def unsupported_kind(name: str) -> str | None:
    """The unsupported adapter type that a tensor belongs to, if it is a known one."""
    return next(
        (kind for leaf, kind in UNSUPPORTED_KINDS.items() if name.endswith(f".{leaf}")), None
    )


def _split_leaf(name: str) -> tuple[str, tuple[Leaf, str] | None]:
    parts = _ADAPTER_NAME.sub(r".\1\2", name).split(".")
    for count in (3, 2, 1):
        words = ".".join(parts[-count:])
        if len(parts) > count and words in _LEAVES:
            return ".".join(parts[:-count]), (_LEAVES[words], words)
    return name, None


def _naming_of_stem(stem: str, words: str) -> Naming:
    if stem.startswith(("lora_", LYCORIS_PREFIX)):
        return Naming.KOHYA
    return Naming.COMFY if stem.startswith("diffusion_model.") else _naming_of_leaf(words)


def _naming_of_leaf(words: str) -> Naming:
    if words in ("down", "up", "alpha"):
        return Naming.CANONICAL
    if words.startswith(("lora_down", "lora_up")):
        return Naming.OMI
    return Naming.SCRIPT if words.startswith(("lora.", "lora_linear")) else Naming.PEFT


def _modern_name(name: str) -> str:
    """A name of old diffusers (`attn1.processor.to_out_lora.down`) in the current form."""
    found = _OLD_ATTENTION.search(name)
    if found is None:
        return name
    projection = found[2]
    if name.startswith("text_encoder"):
        current = _TEXT_PROJECTIONS[projection]
    else:
        current = "to_out.0" if projection == "to_out" else projection
    return f"{name[: found.start()]}.{current}.lora.{found[3]}.weight"


def _parse_dotted_name(stem: str, leaf: Leaf, naming: Naming) -> TensorKey | None:
    is_wrapped, stem = stem.startswith(WRAPPER), stem.removeprefix(WRAPPER)
    component, path = Component.DENOISER, stem
    for prefix, (of_prefix, own) in _DOTTED.items():
        if stem.startswith(prefix):
            path = stem.removeprefix(prefix).removeprefix(WRAPPER)
            component, naming = of_prefix, own or naming
            break
    else:
        if is_wrapped and stem.startswith(BARE_ENCODER):
            component = Component.TEXT_ENCODER
        elif stem.partition(".")[0] not in _ROOTS:
            return None
    if _PATH.fullmatch(path) is None:
        return None
    if component is not Component.DENOISER:
        return _check_path(TensorKey(component, with_text_prefix(path), leaf, naming))
    try:
        return _check_path(TensorKey(component, from_ldm(path), leaf, naming))
    except UnknownNameError:
        return None


def _check_path(key: TensorKey) -> TensorKey | None:
    """The key if its path starts like one of Stable Diffusion, else None."""
    roots = _ROOTS if key.component is Component.DENOISER else _TEXT_ROOTS
    return (
        key
        if key.path.startswith(tuple(f"{root}." for root in roots)) or (key.path in roots)
        else None
    )

"""How the base models of a family lie in a diffusers folder, and what its configs say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from worker.core.families.family import BaseFamily
from worker.core.families.variants import Variant

INDEX, SCHEDULER = "model_index.json", "scheduler"
FLOW = "FlowMatchEulerDiscreteScheduler"
PredictionType = Literal["epsilon", "v_prediction", "flow"]
Configs = Mapping[str, Mapping[str, Any]]
"""Configs by component, with those of the scheduler and of the index under their names."""
ShapesOf = Mapping[str, Mapping[str, tuple[int, ...]]]
"""The shapes of tensors by component and name in the file."""


class BaseModelError(Exception):
    """A base model that cannot be used; the message is a sentence for people."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What configs and shapes say of a base model; see BaseInfo."""

    family: BaseFamily
    prediction_type: PredictionType
    resolution: int
    text_width: int
    zero_empty_negative: bool = False
    variant: Variant | None = None


@dataclass(frozen=True, kw_only=True)
class FolderKind:
    """A kind of diffusers folder, that of one family or of several that their shapes tell apart.

    `pipeline`: how the class of the index begins; `folders`: the folder of each component in the
    order in which they are loaded, where those in `optional` may be missing; `classes`: for
    components that can be of these classes only, the class that is built for each. With `has_chat`
    the tokenizer needs a chat template. `describe` gets the folder as well and raises
    BaseModelError. `tokenizer` is its class in transformers; `family` that of its base models,
    unless their shapes tell.
    """

    pipeline: str = ""
    folders: Mapping[str, str]
    describe: Callable[[Configs, ShapesOf, Path], Description]
    optional: frozenset[str] = frozenset()
    classes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    family: BaseFamily | None = None
    tokenizer: str = "CLIPTokenizer"
    has_chat: bool = False

    def components(self, index: Mapping[str, Any]) -> list[str]:
        """The components of a base model with this index."""
        return [name for name in self.folders if name not in self.optional or class_in(index, name)]


def class_in(index: Mapping[str, Any], name: str) -> str | None:
    """The class of a part in model_index.json; None if the model has no such part."""
    named = index.get(name)
    found = named[-1] if isinstance(named, list) and named else None
    return str(found) if found is not None else None


def stored_class(config: Mapping[str, Any]) -> str:
    """The class of a component by its config; empty if it does not say."""
    of_text = config.get("architectures") or [""]
    return str(config.get("_class_name") or of_text[0])


def weight_stem(folder: str) -> str:
    """The name of weight files in the folder of a component, before variant and suffix."""
    return "model" if folder.startswith("text_encoder") else "diffusion_pytorch_model"


def vae_factor(vae_config: Mapping[str, Any]) -> int:
    """The pixels per latent along a side; 8 for most autoencoders, 16 where latents are packed."""
    blocks = vae_config.get("block_out_channels") or vae_config.get("encoder_block_out_channels")
    packed, *_ = vae_config.get("patch_size") or (1,)
    return int(2 ** (len(blocks) - 1)) * int(packed) if blocks else 8


def chat_folder(
    family: BaseFamily,
    transformer: str,
    autoencoder: Mapping[str, str],
    describe: Callable[[Configs, ShapesOf, Path], Description],
    pipeline: str = "",
) -> FolderKind:
    """The folder of a transformer whose text encoder is Qwen3; the rest see FolderKind."""
    return FolderKind(
        pipeline=pipeline,
        folders={"unet": "transformer", "vae": "vae", "text_encoder": "text_encoder"},
        describe=describe,
        family=family,
        classes={
            "unet": {transformer: transformer},
            "text_encoder": {"Qwen3Model": "Qwen3Model", "Qwen3ForCausalLM": "Qwen3Model"},
            "vae": autoencoder,
        },
        tokenizer="Qwen2Tokenizer",
        has_chat=True,
    )


def require_fit(pairs: Mapping[str, tuple[int | None, int | None]]) -> None:
    """Raise BaseModelError unless a transformer reads of each thing what the other parts give.

    The sentence puts the two numbers into the words for the thing: "{} channels".
    """
    for what, (wanted, given) in pairs.items():
        if wanted is None or wanted != given:
            raise BaseModelError(
                f"The transformer reads {what.format(wanted)}, but the base model has "
                f"{what.format(given)}. Use a complete base model."
            )


def side_in(vae_config: Mapping[str, Any], family: BaseFamily, *, least: int) -> int:
    """The native side in pixels: the autoencoder's if it is a small base's, else the family's."""
    side, native = vae_config.get("sample_size"), family.facts.native_side
    return side if isinstance(side, int) and least <= side < native else native

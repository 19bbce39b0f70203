"""Rule of diffusers, from its source code; `loading.py` runs the installed version.

huggingface/diffusers 0.42.1: `loaders/lora_pipeline.py` (lora_state_dict),
`loaders/lora_conversion_utils.py`, `utils/peft_utils.py` (get_peft_kwargs).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import product

from worker.core.families.family import BaseFamily
from worker.core.lora_files.peft_settings import read_settings
from worker.core.lora_files.proof.block_layers import scale_by_settings, settings_for
from worker.core.lora_files.proof.content import (
    ALPHA,
    KOHYA_PAIR,
    PEFT_PAIR,
    FileContent,
    LayerPatch,
    LeafPair,
    LoaderReading,
    use_layer,
)
from worker.core.lora_files.proof.layout import (
    ANY_ENCODER,
    DIFFUSERS_BLOCKS,
    STABILITY_BLOCKS,
    BaseLayout,
)

PEFT_SETTINGS = "lora_adapter_metadata"
_PREFIXES = ("lora_te_", "lora_unet_", "lora_te1_", "lora_te2_")
_OLD_PAIR = ("_lora.down.weight", "_lora.up.weight")
_PEFT_PAIRS = (
    PEFT_PAIR,
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
)


def read_as_diffusers(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match kohya's names if every name has one of their prefixes, else names of its own modules.

    The family is that of the pipeline; it is not read from the file.
    """
    if all(name.startswith(_PREFIXES) for name in content.tensors):
        return _read_kohya_names(content, layout)
    if not all("lora" in name for name in content.tensors):
        return LoaderReading(rejection="The file is rejected as an invalid LoRA checkpoint.")
    return _read_peft_names(content, layout)


def _read_kohya_names(content: FileContent, layout: BaseLayout) -> LoaderReading:
    stems = content.stems
    stability = {stem for stem in stems if stem.startswith(STABILITY_BLOCKS)}
    has_diffusers_names = any(stem.startswith(DIFFUSERS_BLOCKS) for stem in stems)
    if layout.family is not BaseFamily.SDXL and stability and not has_diffusers_names:
        return LoaderReading(rejection="SDXL block names are only converted for SDXL pipelines.")
    if layout.family is not BaseFamily.SDXL or has_diffusers_names:
        stems = [stem for stem in stems if stem not in stability]  # dropped without an error
    if other := [n for n in content.tensors if not n.endswith((*KOHYA_PAIR, ALPHA, ".dora_scale"))]:
        return LoaderReading(rejection=f"A file with a tensor like {other[0][:80]!r} is rejected.")
    by_stem = _keys_by_stem(layout)
    reading = LoaderReading()
    for stem in stems:
        if stem in by_stem:
            use_layer(reading, content, by_stem[stem], stem)
    _drop_attention(reading)
    if reading.rejection:
        return reading
    alphas = {
        key: float(content.tensors[_patch_stem(patch) + ALPHA])
        for key, patch in reading.patches.items()
        if _patch_stem(patch) + ALPHA in content.tensors
    }
    if alphas and PEFT_SETTINGS in content.metadata:
        return LoaderReading(rejection="A file with both alphas and adapter settings is rejected.")
    for component in {key.partition(".")[0] for key in alphas}:
        own_alphas = {key: a for key, a in alphas.items() if key.startswith(f"{component}.")}
        default = Counter(own_alphas.values()).most_common(1)[0][0]
        for key, patch in reading.patches.items():
            if key.startswith(f"{component}."):
                alpha = own_alphas.get(key, default) if _has_own_alpha(key) else default
                rank = int(content.tensors[patch.down].shape[0])
                reading.patches[key] = LayerPatch(patch.down, patch.up, alpha / rank)
    return reading


def _drop_attention(reading: LoaderReading) -> None:
    """Remove the attention of an encoder without any `out_proj`, which identifies the naming.

    If the encoder has no MLP layers either, the whole file is rejected.
    """
    for component in ("text_encoder.", "text_encoder_2."):
        own_keys = {key for key in reading.patches if key.startswith(component)}
        attention = {key for key in own_keys if ".self_attn." in key}
        if not attention or any(key.endswith("out_proj") for key in attention):
            continue
        reading.inherent = True
        if attention == own_keys:
            reading.rejection = "A text encoder without any out_proj layer is rejected."
            return
        for key in attention:
            patch = reading.patches.pop(key)
            reading.used -= {patch.down, patch.up, _patch_stem(patch) + ALPHA}


def _has_own_alpha(key: str) -> bool:
    """True if diffusers applies a module's own alpha; attention alphas keep an outdated name.

    Those of the first encoder keep the `text_model.` that transformers 5 removed from its modules.
    """
    if key.startswith("unet."):
        return ".attn1." not in key and ".attn2." not in key
    return key.startswith("text_encoder_2.") and ".mlp." in key


def _keys_by_stem(layout: BaseLayout) -> dict[str, str]:
    stems: dict[str, str] = {}
    names = layout.kohya_names(ANY_ENCODER, ldm=layout.family is BaseFamily.SDXL)
    for key, stem in ((key, stem) for key, own in names.items() for stem in own):
        if stem.startswith("lora_unet_add_embedding_"):
            continue  # its number is lost, by a rule for LDM names
        stems[stem] = key
        if key.startswith("text_encoder."):  # its modules no longer have `text_model.`
            stems[stem.replace("_text_model_", "_", 1)] = key
    return stems


def _patch_stem(patch: LayerPatch) -> str:
    return patch.down.removesuffix(KOHYA_PAIR[0])


def _read_peft_names(content: FileContent, layout: BaseLayout) -> LoaderReading:
    if component := _encoder_without_attention(content):
        return LoaderReading(
            rejection=f"A {component} is only read if its attention layers are in the file."
        )
    reading = LoaderReading()
    settings = read_settings(content.metadata)
    for key in layout.shapes:
        own, paths = settings_for(key, settings)
        told = own.rank(paths) if own is not None else None
        for stem, pair in _accepted_names(key):
            use_layer(reading, content, key, stem, pairs=(pair,), has_alpha=False)
            if (patch := reading.patches.get(key)) is None:
                continue
            if told not in (None, rank := int(content.tensors[patch.down].shape[0])):
                return reading.reject(
                    f"The settings give {key} rank {told}, its tensors have rank {rank}: rejected."
                )
    return scale_by_settings(reading, content)


def _encoder_without_attention(content: FileContent) -> str:
    """The encoder with PEFT names but no attention layers: its naming cannot be inferred."""
    for component in ("text_encoder", "text_encoder_2"):
        names = [name for name in content.tensors if name.startswith(f"{component}.")]
        if names and not any("lora_linear_layer" in n or "self_attn" in n for n in names):
            return component
    return ""


def _accepted_names(key: str) -> Iterable[tuple[str, LeafPair]]:
    """(stem, leaves of down and up) of all names under which a layer is found."""
    stems = [key]
    if key.startswith("text_encoder."):  # its modules no longer have `text_model.`; both are read
        stems.append(key.replace("text_encoder.text_model.", "text_encoder.", 1))
    yield from product(stems, _PEFT_PAIRS)
    layer, _, name = key.removesuffix(".0").rpartition(".")
    if key.startswith("unet.") and name in ("to_q", "to_k", "to_v", "to_out"):
        yield f"{layer}.processor.{name}", _OLD_PAIR  # attention processors of old versions

"""Rule of stable-diffusion.cpp, which converts every name to that of its own weights.

leejet/stable-diffusion.cpp 97d29908: `src/name_conversion.cpp` (convert_tensor_name,
convert_sep_to_dot), `src/model/adapter/lora.hpp`.
"""

from __future__ import annotations

from worker.core.lora_files.proof.content import FileContent, LoaderReading, match_layer_names
from worker.core.lora_files.proof.layout import ANY_ENCODER, ENCODER_LAYERS, PAIRS, BaseLayout

# it turns underscores into dots, except in listed words, as these are not
_UNREACHABLE = ("unet.time_embedding.", "unet.add_embedding.")


def read_as_stable_diffusion_cpp(content: FileContent, layout: BaseLayout) -> LoaderReading:
    """Match both block namings; `text_encoder.` is split at its underscore and matches nothing.

    The family is taken from the loaded model, not from the file.
    """
    names = layout.kohya_names(ANY_ENCODER, has=cpp_can_change)
    for key in names:
        if key.startswith("unet."):
            processed = key.replace(".to_", ".processor.to_")
            names[key] += [
                key,
                processed.removesuffix(".0") if ".to_out." in processed else processed,
            ]
    return match_layer_names(content, names, pairs=PAIRS)


def cpp_can_change(key: str, *_: object) -> bool:
    """True for the UNet without its time and size embeddings, and attention and MLP of encoders."""
    if key.startswith("unet."):
        return not key.startswith(_UNREACHABLE)
    return key.endswith(ENCODER_LAYERS)

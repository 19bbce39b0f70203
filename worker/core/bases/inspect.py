"""Inspects a base model by its JSON configs and safetensors headers only, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from worker.core import starter
from worker.core.bases import single_file
from worker.core.bases.family import (
    BaseFamily,
    BaseInfo,
    BaseModelError,
    PredictionType,
    Shapes,
    cross_attention_width,
    family_of,
)
from worker.core.safetensors_header import Header, HeaderError, read_header

__all__ = ["BaseFamily", "BaseInfo", "BaseModelError", "component_files", "inspect_base"]

MAX_HEADER_BYTES = 40_000_000  # whole SDXL checkpoints need about 0.3 MB
MAX_CONFIG_BYTES = 4 * 1024 * 1024
SAMPLES, SAMPLE_BYTES = 8, 65_536
_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}


def inspect_base(path: Path) -> BaseInfo:
    """The facts about the folder or file at `path`; BaseModelError says why it cannot be used."""
    if path == starter.PATH:
        with blamed_on_the_installation():
            return _inspect_folder(path)
    if path.is_dir():
        return _inspect_folder(path)
    if path.is_file():
        return _inspect_file(path)
    raise BaseModelError(f"There is no base model at {path.name!r}. Check the path.")


@contextmanager
def blamed_on_the_installation() -> Iterator[None]:
    """Let the errors of the embedded base model say how to repair it, instead of their advice."""
    try:
        yield
    except BaseModelError as error:
        fact, _, advice = str(error).rpartition(". ")
        raise BaseModelError(f"{fact or advice.rstrip('.')}. {starter.REPAIR}") from error


def component_files(folder: Path, component: str) -> list[Path]:
    """The safetensors files of one component; plain weights win over fp16, fp16 over other
    variants."""
    where, stem = folder / component, _STEMS[component]
    for variant in ("", ".fp16", ".*"):
        for pattern in (f"{stem}{variant}.safetensors", f"{stem}{variant}-*-of-*.safetensors"):
            if found := sorted(where.glob(pattern)):
                return found
    if any(where.glob("*.bin")) or any(where.glob("*.ckpt")):
        raise BaseModelError(
            f"The {component} is only a PyTorch pickle, which can run code when it is opened. Use "
            "a model with .safetensors files."
        )
    raise BaseModelError(
        f"The base model is incomplete: {component}/ has no weights. Download it again."
    )


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in `folder/name`; BaseModelError when it is missing or unreadable."""
    file = folder / name
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise BaseModelError(
                f"The base model's {name} is too large for a config file. Download it again."
            )
        content = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise BaseModelError(
            f"The base model is incomplete: it has no {name}. Download it again."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(
            f"The base model's {name} cannot be read. Download it again."
        ) from error
    if not isinstance(content, dict):
        raise BaseModelError(f"The base model's {name} is not a JSON object. Download it again.")
    return content


def read_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in `files`, by name."""
    return {
        name: entry.shape
        for file in files
        for name, entry in read_base_header(file).tensors.items()
    }


def _inspect_folder(folder: Path) -> BaseInfo:
    index = read_config(folder, "model_index.json")
    unet_config = read_config(folder, "unet/config.json")
    vae_config = read_config(folder, "vae/config.json")
    scheduler = read_config(folder, "scheduler/scheduler_config.json")
    two_encoders = index.get("text_encoder_2", [None])[0] is not None
    components = ["unet", "vae", "text_encoder", *(["text_encoder_2"] if two_encoders else [])]
    files = {component: component_files(folder, component) for component in components}
    shapes = {component: read_shapes(found) for component, found in files.items()}
    width = cross_attention_width(shapes["unet"])
    _check_latents(unet_config.get("in_channels"), vae_config.get("latent_channels"))
    family = family_of(
        cross_attention_dim=width,
        two_encoders=two_encoders,
        size_conditioned=any(name.startswith("add_embedding.") for name in shapes["unet"]),
    )
    every = [file for found in files.values() for file in found]
    configs = [folder / "unet/config.json", folder / "vae/config.json"]
    return BaseInfo(
        path=folder,
        layout="diffusers",
        family=family,
        prediction_type=_prediction_type(scheduler.get("prediction_type", "epsilon")),
        resolution=_native_latent_side(unet_config.get("sample_size"), family)
        * vae_factor(vae_config),
        cross_attention_dim=width,
        parameters={name: _count_parameters(found) for name, found in shapes.items()},
        size_bytes=sum(file.stat().st_size for file in every),
        fingerprint=_compute_fingerprint(folder, [*every, *configs]),
        zero_empty_negative=family is BaseFamily.SDXL
        and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def _inspect_file(path: Path) -> BaseInfo:
    header = read_base_header(path)
    shapes = {name: entry.shape for name, entry in header.tensors.items()}
    parts = single_file.split_components(shapes)
    family = single_file.family(parts)
    _check_latents(*single_file.latent_channels(parts))
    return BaseInfo(
        path=path,
        layout="single_file",
        family=family,
        prediction_type=single_file.prediction_type(family, shapes, header.metadata),
        resolution=single_file.resolution(header.metadata) or family.facts.native_side,
        cross_attention_dim=cross_attention_width(parts["unet"]),
        parameters={name: _count_parameters(found) for name, found in parts.items()},
        size_bytes=path.stat().st_size,
        fingerprint=_compute_fingerprint(path.parent, [path]),
        zero_empty_negative=family is BaseFamily.SDXL,
    )


def vae_factor(vae_config: dict[str, Any]) -> int:
    """The pixels per latent along a side; 8 for every common autoencoder."""
    blocks = vae_config.get("block_out_channels") or vae_config.get("encoder_block_out_channels")
    return int(2 ** (len(blocks) - 1)) if blocks else 8


def _native_latent_side(sample_size: object, family: BaseFamily) -> int:
    """The UNet's native side in latents."""
    if isinstance(sample_size, list) and sample_size:
        sample_size = max(sample_size)
    return sample_size if isinstance(sample_size, int) else family.facts.native_side // 8


def _check_latents(unet_channels: int | None, vae_channels: int | None) -> None:
    if unet_channels is None or vae_channels is None or unet_channels != vae_channels:
        raise BaseModelError(
            f"The UNet has {unet_channels} input channels, the autoencoder {vae_channels}: this is "
            "an inpainting or another special model. Use a text-to-image base model."
        )


def _prediction_type(value: object) -> PredictionType:
    if value == "epsilon":
        return "epsilon"
    if value == "v_prediction":
        return "v_prediction"
    raise BaseModelError(f"The model predicts {value!r}. Use one with epsilon or v_prediction.")


def _count_parameters(shapes: Shapes) -> int:
    return sum(prod(shape) for name, shape in shapes.items() if not name.endswith("position_ids"))


def read_base_header(file: Path) -> Header:
    """The header of a weight file. Raises BaseModelError."""
    try:
        return read_header(file, limit=MAX_HEADER_BYTES)
    except HeaderError as error:
        raise BaseModelError(f"{file.name}: {error}") from error


def _compute_fingerprint(root: Path, files: Iterable[Path]) -> str:
    """A SHA-256 over sizes and evenly spaced samples: cheap, and different for finetunes."""
    digest = hashlib.sha256()
    for file in sorted(files):
        size = file.stat().st_size
        name = file.relative_to(root).as_posix() if len(file.parts) > len(root.parts) + 1 else ""
        digest.update(f"{name} {size}\n".encode())
        with file.open("rb") as content:
            for sample in range(SAMPLES):
                content.seek(max(0, size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                digest.update(content.read(SAMPLE_BYTES))
    return digest.hexdigest()

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
from worker.core.bases.family import BaseInfo, BaseModelError, Shapes
from worker.core.families.folder import INDEX, SCHEDULER, stored_class, weight_stem
from worker.core.families.folder import vae_factor as vae_factor
from worker.core.families.folders import folder_kind
from worker.core.families.stable_diffusion.folder import (
    check_latents,
    cross_attention_width,
    empty_is_zero,
)
from worker.core.safetensors_header import Header, HeaderError, read_header

MAX_HEADER_BYTES = 40_000_000  # whole SDXL checkpoints need about 0.3 MB
MAX_CONFIG_BYTES = 4 * 1024 * 1024
SAMPLES, SAMPLE_BYTES = 8, 65_536
VOCABULARIES = ("tokenizer.json", "vocab.json")
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
CHAT_TEMPLATE = "chat_template.jinja"


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


def component_files(folder: Path, part: str) -> list[Path]:
    """The safetensors files in a component's folder; plain weights win over fp16, fp16 over other
    variants."""
    where, stem = folder / part, weight_stem(part)
    for variant in ("", ".fp16", ".*"):
        for pattern in (f"{stem}{variant}.safetensors", f"{stem}{variant}-*-of-*.safetensors"):
            if found := sorted(where.glob(pattern)):
                return found
    if any(where.glob("*.bin")) or any(where.glob("*.ckpt")):
        raise BaseModelError(
            f"The {part} is only a PyTorch pickle, which can run code when it is opened. Use "
            "a model with .safetensors files."
        )
    if any(where.glob("*.gguf")):
        raise BaseModelError(
            f"The {part} is only a GGUF file, whose weights are rounded. Use a model with "
            ".safetensors files."
        )
    raise BaseModelError(
        f"The base model is incomplete: {part}/ has no weights. Download it again."
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
    index = read_config(folder, INDEX)
    kind = folder_kind(index)
    places = {name: kind.folders[name] for name in kind.components(index)}
    described = [name for name in ("unet", "vae", *kind.classes) if name in places]
    configs = {name: read_config(folder, f"{places[name]}/config.json") for name in described}
    for name, known in kind.classes.items():
        if (stored := stored_class(configs[name])) not in known:
            raise BaseModelError(
                f"The base model's {places[name]} is a {stored[:60] or 'thing without a class'}, "
                f"not a {next(iter(known))}. Use another model."
            )
    if kind.has_chat:
        _require_chat(folder)
    scheduler = read_config(folder, f"{SCHEDULER}/scheduler_config.json")
    files = {name: component_files(folder, place) for name, place in places.items()}
    if kind.classes:
        _require_floats(file for found in files.values() for file in found)
    shapes = {name: read_shapes(found) for name, found in files.items()}
    found = kind.describe({**configs, SCHEDULER: scheduler, INDEX: index}, shapes, folder)
    every = [file for found in files.values() for file in found]
    marks = [folder / places[name] / "config.json" for name in ("unet", "vae")]
    return BaseInfo(
        path=folder,
        layout="diffusers",
        family=found.family,
        prediction_type=found.prediction_type,
        resolution=found.resolution,
        cross_attention_dim=found.text_width,
        parameters={name: _count_parameters(each) for name, each in shapes.items()},
        size_bytes=sum(file.stat().st_size for file in every),
        fingerprint=_compute_fingerprint(folder, [*every, *marks]),
        zero_empty_negative=found.zero_empty_negative,
        variant=found.variant,
    )


def _require_floats(files: Iterable[Path]) -> None:
    """Raise BaseModelError for weights that were rounded to 8 bits or less."""
    for file in files:
        for name, entry in read_base_header(file).tensors.items():
            if entry.dtype not in FLOATS and entry.shape:  # a single number counts something
                raise BaseModelError(
                    f"{name} in {file.parent.name}/{file.name} is stored in {entry.dtype}, which "
                    "rounds it for good. Use the model in bf16: its diffusers folder, or its name "
                    "on the Hub."
                )


def _require_chat(folder: Path) -> None:
    """Raise BaseModelError unless there is a tokenizer with a chat template."""
    config = read_config(folder, "tokenizer/tokenizer_config.json")
    if not any((folder / "tokenizer" / name).exists() for name in VOCABULARIES):
        raise BaseModelError(
            "The base model is incomplete: tokenizer/ has no vocabulary. Download it again."
        )
    if not config.get("chat_template") and not (folder / "tokenizer" / CHAT_TEMPLATE).exists():
        raise BaseModelError(
            f"The base model is incomplete: its tokenizer has no chat template ({CHAT_TEMPLATE}), "
            "in which prompts are written. Download it again."
        )


def _inspect_file(path: Path) -> BaseInfo:
    header = read_base_header(path)
    shapes = {name: entry.shape for name, entry in header.tensors.items()}
    parts = single_file.split_components(shapes)
    family = single_file.family(parts)
    check_latents(*single_file.latent_channels(parts))
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
        zero_empty_negative=empty_is_zero(family),
    )


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

"""Names of adapter files, for the registry, the Hub and the files themselves."""

from __future__ import annotations

import re
from pathlib import Path

from worker.core.words import FileFormat, WeightDtype

CONFIG_NAME = "adapter_config.json"  # PEFT's settings, beside its weights
WEIGHTS_NAME = "adapter_model.safetensors"


def config_beside(weights: Path) -> Path | None:
    """The `adapter_config.json` in the folder of a file of weights, if it can only mean that file.

    It does for `adapter_model.safetensors`, and for the only `.safetensors` file of a folder.
    """
    config = weights.parent / CONFIG_NAME
    if weights.suffix.lower() != ".safetensors" or not config.is_file():
        return None
    is_only = weights.name == WEIGHTS_NAME or len(list(weights.parent.glob("*.safetensors"))) == 1
    return config if is_only else None


def file_stem(slug: str, version: int | None = None, *, is_step: bool = False) -> str:
    """`chalk-v2`, the alias of the default download in web UIs; `chalk` without a version.

    With `is_step` the version is the step of a checkpoint: `chalk-run-3-step150`.
    """
    if version is None:
        return slug
    return f"{slug}-step{version}" if is_step else f"{slug}-v{version}"


def file_name(
    slug: str,
    version: int | None = None,
    form: FileFormat = FileFormat.KOHYA,
    dtype: WeightDtype = WeightDtype.FP16,
    *,
    with_tags: bool = False,
    is_step: bool = False,
) -> str:
    """A safe file name such as `chalk-v2.safetensors`, unique among the files of a version."""
    parts = [file_stem(slug, version, is_step=is_step)]
    if form is FileFormat.PEFT:
        parts.append(form)
    if dtype is not WeightDtype.FP16:
        parts.append(dtype)
    if with_tags:
        parts.append("tags")
    return "-".join(parts) + form.suffix


def original_name(slug: str, version: int) -> str:
    """The file name for downloading the unchanged file that a version was imported from."""
    return f"{file_stem(slug, version)}-original{FileFormat.KOHYA.suffix}"


def safe_stem(name: str) -> str:
    """A file name and alias that every loader and Civitai's parser can read."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "adapter"

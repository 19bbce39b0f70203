"""Names of adapter files, for the registry, the Hub and the files themselves."""

from __future__ import annotations

import re

from worker.core.words import FileFormat, WeightDtype


def file_stem(slug: str, version: int | None = None) -> str:
    """`chalk-v2`, the alias of the default download in web UIs; `chalk` without a version."""
    return slug if version is None else f"{slug}-v{version}"


def file_name(
    slug: str,
    version: int | None = None,
    form: FileFormat = FileFormat.KOHYA,
    dtype: WeightDtype = WeightDtype.FP16,
    *,
    with_tags: bool = False,
) -> str:
    """A safe file name such as `chalk-v2.safetensors`, unique among the files of a version."""
    parts = [file_stem(slug, version)]
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

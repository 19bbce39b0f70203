"""The names of adapter files, in the registry, on the Hub and inside the files."""

from __future__ import annotations

import re

from worker.core.words import FileFormat, WeightDtype


def file_stem(slug: str, version: int | None = None) -> str:
    """`chalk-v2`, by which web UIs know the usual download; `chalk` without a version."""
    return slug if version is None else f"{slug}-v{version}"


def file_name(
    slug: str,
    version: int | None = None,
    form: FileFormat = FileFormat.KOHYA,
    dtype: WeightDtype = WeightDtype.FP16,
    *,
    with_tags: bool = False,
) -> str:
    """A safe name for a file, `chalk-v2.safetensors`; no two files of a version share one."""
    parts = [file_stem(slug, version)]
    if form is FileFormat.PEFT:
        parts.append(form)
    if dtype is not WeightDtype.FP16:
        parts.append(dtype)
    if with_tags:
        parts.append("tags")
    return "-".join(parts) + form.suffix


def original_name(slug: str, version: int) -> str:
    """The name of the file that was imported as a version, as it was uploaded."""
    return f"{file_stem(slug, version)}-original{FileFormat.KOHYA.suffix}"


def safe_stem(name: str) -> str:
    """A file name and alias that every loader and Civitai's parser can read."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "adapter"

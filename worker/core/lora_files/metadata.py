"""What an adapter file says of its adapter, from the registry to the header; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.file_names import safe_stem

USUAL_RESOLUTION = 512


@dataclass(frozen=True, kw_only=True)
class AdapterMetadata:
    """What is known of an adapter; `created` is aware, `resolution` in pixels, None: not known.

    `training_seconds`: how long it was trained until `created`; None for one that came from
    elsewhere. `train_config` are the run's settings as JSON values; `images` how many pictures it
    saw; `cover` a picture that shows the adapter, `cover_sha256` the hash of its stored file.
    `description` and `tags`, a person's own words in the registry, and `tag_counts`, how often a
    tag stood in the captions, are given only when the user wants them in the file.
    """

    title: str
    slug: str
    family: BaseFamily
    created: datetime
    base_name: str = ""
    resolution: int | None = None
    prediction_type: str = "epsilon"
    trigger_words: tuple[str, ...] = ()
    training_seconds: float | None = None
    description: str = ""
    author: str = ""
    license: str = ""
    tags: tuple[str, ...] = ()
    images: int | None = None
    cover: Path | None = None
    cover_sha256: str | None = None
    train_config: Mapping[str, Any] = field(default_factory=dict)
    tag_counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The base's name without a folder or an owner before it."""
        return PurePath(self.base_name).name

    @property
    def stem(self) -> str:
        """The name of the file and alias of the adapter in other programs."""
        return safe_stem(self.slug)

    @property
    def predicts_v(self) -> bool:
        """Whether the adapter is for v-prediction rather than for predicting the noise."""
        return self.prediction_type == "v_prediction"

    @property
    def file_resolution(self) -> int:
        """The resolution as a file says it, which has to say one."""
        return self.resolution or USUAL_RESOLUTION

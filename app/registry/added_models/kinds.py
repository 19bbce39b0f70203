"""The kinds of models that people add, by what the shared acts need to know of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from sqlmodel import Session

from app.registry.config import Settings
from app.registry.hub_source import HubSource
from app.registry.job_kinds.kinds import JobArgs, JobKind
from app.registry.tables.added_models import AddedModel

Row = TypeVar("Row", bound=AddedModel)


@dataclass(frozen=True, kw_only=True)
class ModelKind(Generic[Row]):
    """A kind of model, with its words, its jobs and its folder.

    `name` is the noun in sentences; `places` says where a path may lead; `file_ending` is that of
    files that can be added alone, if any, and `other_file` the sentence for all others; `field` is
    the field of requests that choose a model. `make_download` gives the arguments of the download
    of a row, with the precision that was asked for, if any. `corrected`: columns that a person can
    correct; a check of the same files leaves them.
    """

    table: type[Row]
    name: str
    places: str
    file_ending: str | None
    other_file: str
    field: str
    check: JobArgs
    download: JobKind
    make_download: Callable[[Session, Row, HubSource, str | None], JobArgs]
    download_folder: Callable[[Settings], Path]
    corrected: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """The name of its page."""
        return f"{self.name.capitalize()}s"

    @property
    def address(self) -> str:
        """The address of its page."""
        return f"/{self.fallback_slug}s"

    @property
    def fallback_slug(self) -> str:
        """The slug of a model whose name has no letters for one."""
        return self.name.replace(" ", "-")

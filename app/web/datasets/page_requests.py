"""Requests about one dataset, or about one image of it, as their addresses name them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.registry.datasets import service
from app.registry.db import Database, Session
from app.registry.errors import NotFound
from app.registry.tables.datasets import Dataset, Image
from app.web import templates
from app.web.state import Id, Slug, State, open_for


@dataclass(frozen=True)
class DatasetRequest:
    """A request about a dataset. Its sessions raise NotFound if there is none of the name."""

    request: Request
    state: State
    slug: Slug

    @property
    def wants_fragment(self) -> bool:
        """True if a script asks for a part of the page."""
        return templates.wants_fragment(self.request)

    @contextmanager
    def reading(self) -> Iterator[tuple[Session, Dataset]]:
        """A session in which all is read as of one moment, and the dataset."""
        with open_for(self.request, Database.snapshot) as session:
            yield session, service.dataset_by_slug(session, self.slug)

    @contextmanager
    def writing(self) -> Iterator[tuple[Session, Dataset]]:
        """A session that commits at its end, and the dataset."""
        with self.state.database.write() as session:
            yield session, service.dataset_by_slug(session, self.slug)


@dataclass(frozen=True)
class ImageRequest(DatasetRequest):
    """A request about an image of a dataset."""

    image_id: Id

    def image_of(self, session: Session, dataset: Dataset) -> Image:
        """The image. Raises NotFound unless it is one of the dataset."""
        image = service.get_image(session, self.image_id)
        if image.dataset_id != dataset.key:
            raise NotFound("This dataset has no such image.")
        return image

    @contextmanager
    def changing(self) -> Iterator[tuple[Session, Image]]:
        """A session that commits at its end, and the image. Raises NotFound."""
        with self.writing() as (session, dataset):
            yield session, self.image_of(session, dataset)


OfDataset = Annotated[DatasetRequest, Depends()]
OfImage = Annotated[ImageRequest, Depends()]

"""A decoder for the whole room (its processes start once), and a store in a folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.registry.datasets.images import ImageDecoder
from app.registry.storage.folder import LocalBlobStore


@pytest.fixture(scope="session")
def decoder() -> Iterator[ImageDecoder]:
    with ImageDecoder() as decoder:
        yield decoder


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")

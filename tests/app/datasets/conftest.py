"""A store in a folder."""

from pathlib import Path

import pytest

from app.registry.storage.folder import LocalBlobStore


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")

"""Small artwork, so that no test here needs the network or the big sets."""

from pathlib import Path

import pytest

from tools.starter.artwork import ArtworkSubject, read_subjects

SUBJECTS = Path(__file__).parent / "subjects.json"


@pytest.fixture(scope="session")
def subjects() -> list[ArtworkSubject]:
    """A dozen subjects, each drawn by three hands."""
    return read_subjects(SUBJECTS)

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.starter.artwork import (
    NAMES_PACKAGE,
    PACKAGES,
    ArtworkError,
    ArtworkSet,
    ArtworkSubject,
    fetch_artwork,
    lay_over,
    load_artwork,
    ordinary_words,
    render_drawing,
)
from tools.starter.plain_names import PLAIN_NAMES
from worker.core.starter.subjects import known_subjects

SQUARE = '<rect width="16" height="16" fill="#f00"/>'


def pack(folder: Path, package: str, member: str, content: Any) -> None:
    stem = package.removeprefix("@").replace("/", "-")
    data = json.dumps(content).encode()
    with tarfile.open(folder / f"{stem}-1.0.0.tgz", "w:gz") as tarball:
        info = tarfile.TarInfo(f"package/{member}")
        info.size = len(data)
        tarball.addfile(info, io.BytesIO(data))


@pytest.fixture
def tarballs(tmp_path: Path) -> Path:
    """Four small packages laid out as the real ones are."""
    names = [
        {"label": "fox", "group": 3, "order": 2, "tags": ["animal", "face"]},
        {"label": "T-Rex", "group": 3, "order": 1, "tags": ["dinosaur"]},
        {"label": "grinning face", "group": 0, "order": 3},
        {"label": "one-thirty", "group": 5, "order": 4},
        {"label": "only noto has it", "group": 5, "order": 5},
        {"label": "flipped", "group": 5, "order": 6},
        {"label": "deciduous tree", "group": 3, "order": 7, "tags": ["tree", "green"]},
        {"label": "palm tree", "group": 3, "order": 8, "tags": ["tree", "fox", "animal"]},
        {"label": "pencil", "group": 7, "order": 9, "tags": ["Write", "naïve"]},
        {"label": "euro banknote", "group": 7, "order": 10},
    ]
    pack(tmp_path, NAMES_PACKAGE, "en/data.json", names)
    slugs = ["fox", "t-rex", "grinning-face", "one-thirty", "deciduous-tree", "palm-tree"]
    slugs += ["pencil", "euro-banknote"]
    for hand, package in PACKAGES.items():
        icons = {slug: {"body": SQUARE} for slug in slugs}
        if hand is ArtworkSet.NOTO:
            icons["only-noto-has-it"] = {"body": SQUARE}
        aliases = {"flipped": {"parent": "fox", "hFlip": True}}
        content = {"icons": icons, "aliases": aliases, "width": 16, "height": 16}
        pack(tmp_path, package, "icons.json", content)
    return tmp_path


def test_things_that_every_hand_drew_become_subjects_in_order(tarballs: Path) -> None:
    found = load_artwork(tarballs)
    names = [subject.name for subject in found]
    assert names == ["t rex", "fox", "deciduous tree", "palm tree", "pencil"]
    assert found[1].keywords == ("animal", "face")
    assert found[1].group == "animals-nature"
    assert set(found[1].drawings) == set(ArtworkSet)


def test_a_plain_name_that_two_subjects_share_belongs_to_one(tarballs: Path) -> None:
    _, fox, deciduous, palm, pencil = load_artwork(tarballs)
    assert deciduous.plain_names == ("tree",)
    assert deciduous.keywords == ("tree", "green")
    assert palm.plain_names == ()
    assert palm.keywords == ("animal",)  # not "fox", the name of another subject
    assert fox.only_here == ("face",)
    assert deciduous.only_here == ("green",)
    assert (pencil.group, pencil.keywords) == ("objects", ("write",))


def test_the_shipped_base_was_taught_these_plain_names() -> None:
    meant = {name: subject.name for subject in known_subjects() for name in subject.plain_names}
    assert meant == PLAIN_NAMES


def test_a_missing_tarball_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtworkError, match="emojibase-data"):
        load_artwork(tmp_path)


def test_a_damaged_tarball_is_named(tarballs: Path) -> None:
    (broken,) = tarballs.glob("iconify-json-twemoji-*.tgz")
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(ArtworkError, match=r"twemoji-1\.0\.0\.tgz is damaged"):
        load_artwork(tarballs)


def test_ordinary_words_come_from_every_group(tarballs: Path) -> None:
    assert {"grinning", "dinosaur", "banknote"} <= set(ordinary_words(tarballs))


def test_packages_that_are_there_are_not_downloaded_again(
    tarballs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    fetch_artwork(tarballs)
    next(tarballs.glob("iconify-json-noto-*.tgz")).unlink()
    with pytest.raises(ArtworkError, match="tarballs of @iconify-json/noto and"):
        fetch_artwork(tarballs)


def test_fetching_without_npm_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArtworkError, match="npm is not installed"):
        fetch_artwork(tmp_path)


def test_every_fixture_drawing_renders_inside_its_margin(subjects: list[ArtworkSubject]) -> None:
    for subject in subjects:
        for svg in subject.drawings.values():
            alpha = np.asarray(render_drawing(svg, 64, margin=0.1))[..., 3]
            assert alpha.max() == 255
            assert alpha[:5].max() == alpha[:, :5].max() == 0


def test_a_drawing_lies_over_its_ground_and_is_averaged_down() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 2">'
        '<rect width="1" height="2" fill="#f00"/></svg>'
    )
    image = lay_over(render_drawing(svg, 8), (0, 0, 255), 2)
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert image.getpixel((1, 1)) == (0, 0, 255)

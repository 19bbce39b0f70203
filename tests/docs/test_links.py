"""Targets in the documents exist: pages, headings, images, files and make targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, INLINE_CODE, ROOT, anchors, documents, links, name, prose, text

OUR_FOLDERS = ("app/", "worker/", "templates/", "static/", "migrations/", "tests/", "bench/")
IMAGES = "docs/images/"


def is_image(path: Path) -> bool:
    return path.relative_to(ROOT).as_posix().startswith(IMAGES)


def linked(document: Path) -> list[tuple[str, Path]]:
    """(link, file it leads to) for every link of a document."""
    return [
        (link, (document.parent / link.partition("#")[0]).resolve() if link[0] != "#" else document)
        for link in links(document)
    ]


@pytest.mark.parametrize("document", documents(), ids=name)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    missing = []
    for link, target in linked(document):
        heading = link.partition("#")[2]
        if is_image(target):
            continue
        if not target.exists() or (heading and heading not in anchors(target)):
            missing.append(link)
    assert missing == []


@pytest.mark.parametrize("document", documents(), ids=name)
def test_every_image_is_there(document: Path) -> None:
    images = [target for _, target in linked(document) if is_image(target)]
    assert [name(image) for image in images if not image.exists()] == []


@pytest.mark.parametrize("document", documents(), ids=name)
def test_every_path_of_ours_that_is_named_exists(document: Path) -> None:
    paths = [
        code.partition(" ")[0]
        for code in INLINE_CODE.findall(prose(document))
        if code.startswith(OUR_FOLDERS) and "<" not in code
    ]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_page_is_linked_from_the_index() -> None:
    listed = {target for _, target in linked(DOCS / "README.md")}
    pages = {page for page in DOCS.glob("*.md") if page.name != "README.md"}
    assert {name(page) for page in pages - listed} == set()


def test_every_decision_is_linked_from_its_index_and_has_three_parts() -> None:
    records = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    listed = [target for _, target in linked(DOCS / "decisions" / "README.md")]
    assert listed == records
    for number, record in enumerate(records, start=1):
        parts = re.findall(r"^\*\*(\w+)\.\*\*", text(record), re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences"], name(record)
        assert text(record).startswith(f"# {number}. ")


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = {
        target
        for document in documents()
        for target in re.findall(r"(?:`|^)make ([a-z]+)", text(document), re.MULTILINE)
    }
    assert "run" in named
    assert named - targets == set()

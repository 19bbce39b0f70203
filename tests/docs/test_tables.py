"""The tables of the documents are what the code says."""

from __future__ import annotations

import re
from functools import cache
from html import unescape
from pathlib import Path

import pytest

from app.registry import archive
from app.registry.config import Settings
from app.registry.datasets import captions
from app.registry.images import decoder as images
from app.registry.images import decoding
from app.registry.job_kinds.states import ALLOWED_MOVES
from app.registry.paths import TEMPLATES
from app.registry.runs.presets import PRESET_WORDS
from app.registry.wording import size_text
from app.web import main
from tests.docs.expected import preset_rows, setting_rows
from tests.docs.pages import DOCS, LABEL, ROOT, documents, name, prose, rows, section, text
from worker.core.starter.examples import EXAMPLES
from worker.core.training.config import Group, TrainConfig
from worker.core.words import FileFormat, Labeled

VARIABLE = re.compile(r"BRUSHWORK_[A-Z_]+")
OWN_WORDS = {"attempt", "proof", "lease", "fence", "wake-up", "registry", "family", "render"}


def test_every_setting_is_in_the_table_with_its_own_words() -> None:
    table = rows(section(DOCS / "deployment.md", "Settings"))
    assert [(variable, meaning) for variable, _, meaning in table] == [
        (f"`BRUSHWORK_{name.upper()}`", field.description)
        for name, field in Settings.model_fields.items()
    ]


def test_the_defaults_in_the_table_are_those_of_the_settings() -> None:
    table = rows(section(DOCS / "deployment.md", "Settings"))
    for (variable, written, _), field in zip(table, Settings.model_fields.values(), strict=True):
        if field.default_factory is not None:  # the data folder depends on the user
            continue
        default = "" if field.default in (None, "") else f"`{field.default!s}`"
        assert written in (default, default.lower()), variable


def test_every_variable_that_is_named_is_a_setting() -> None:
    known = {f"BRUSHWORK_{name.upper()}" for name in Settings.model_fields}
    named = {word.rstrip("_") for path in documents() for word in VARIABLE.findall(text(path))}
    assert named - known == set()


@pytest.mark.parametrize("group", Group)
def test_the_training_settings_are_those_of_the_form(group: Group) -> None:
    page = DOCS / "training.md"
    assert rows(section(page, group.label)) == setting_rows(group)


def test_the_presets_are_those_of_the_code() -> None:
    assert rows(section(DOCS / "training.md", "Presets")) == preset_rows()


def test_the_diagram_of_states_has_the_moves_of_the_code() -> None:
    diagram = section(DOCS / "architecture.md", "States of a job")
    drawn = set(re.findall(r"^    (\w+) --> (\w+)", diagram, re.MULTILINE))
    assert drawn == {(old.value, new.value) for old, to in ALLOWED_MOVES.items() for new in to}


def test_the_limits_of_a_dataset_are_those_of_the_code() -> None:
    written = dict(rows(section(DOCS / "datasets.md", "Limits")))
    assert written == {
        "an image file": size_text(images.MAX_FILE_BYTES),
        "a PNG, as of an export": size_text(images.MAX_PNG_BYTES),
        "pixels of an image": f"{decoding.MAX_PIXELS // 1_000_000} megapixels",
        "shortest side": f"{decoding.MIN_SIDE} px",
        "longest side, compared with the shortest": f"{decoding.MAX_ELONGATION} times",
        "a caption": f"{captions.MAX_CHARACTERS:,} characters",
        "files in one request": str(main.MAX_FILES),
        "a request": size_text(main.UPLOAD_BYTES),
        "entries of a zip archive": f"{archive.MAX_ENTRIES:,}",
        "unpacked zip archive": (
            f"{size_text(archive.MAX_TOTAL_BYTES)}, or its own size and a tenth"
        ),
        "compression ratio in a zip archive": str(archive.MAX_RATIO),
    }


def test_the_formats_of_downloads_are_those_of_the_code() -> None:
    table = section(DOCS / "adapters.md", "Downloads").partition("###")[0]
    assert [row[0] for row in rows(table)] == [f"`{file_format}`" for file_format in FileFormat]


def test_the_terms_of_the_glossary_are_on_the_pages() -> None:
    page = "\n".join(path.read_text() for path in TEMPLATES.rglob("*.html"))
    titles = {field.title for field in TrainConfig.model_fields.values()}
    terms = re.findall(r"\*\*([^*]+)\*\*", text(DOCS / "glossary.md"))
    assert len(terms) > 40
    unknown = {
        term
        for term in terms
        if term not in titles | OWN_WORDS and term.lower() not in page.lower()
    }
    assert unknown == set()


@pytest.mark.parametrize("document", documents(), ids=name)
def test_every_label_in_italics_is_on_a_page(document: Path) -> None:
    labels = {part for label in LABEL.findall(prose(document)) for part in label.split(" → ")}
    assert {label for label in labels if label not in words_on_pages()} == set()


@cache
def words_on_pages() -> str:
    """Everything that pages can say, with entities resolved."""
    files = [*TEMPLATES.rglob("*.html"), *(ROOT / "app" / "web").rglob("*.py")]
    titles = [field.title or "" for field in TrainConfig.model_fields.values()]
    tries = [f"Try {example.title}" for example in EXAMPLES.values()]  # datasets/_examples.html
    presets = [title for title, _ in PRESET_WORDS.values()]
    labels = [word.label for words in Labeled.__subclasses__() for word in words]
    texts = [*(path.read_text() for path in files), *titles, *tries, *presets, *labels]
    return unescape("\n".join(texts))


def test_the_readme_names_the_oldest_python() -> None:
    (oldest,) = re.findall(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert f"Python {oldest} or newer" in text(ROOT / "README.md")

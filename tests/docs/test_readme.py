"""The README is short, shows a picture first, and says what each program reads."""

from __future__ import annotations

from tests.docs.pages import ROOT, rows, section, text

README = ROOT / "README.md"


def test_it_has_the_length_of_a_front_page() -> None:
    assert 110 <= len(text(README).splitlines()) <= 130


def test_it_begins_with_a_sentence_and_a_picture_for_both_themes() -> None:
    start = text(README).split("## ")[0]
    assert "docs/images/overview-light.webp" in start
    assert 'media="(prefers-color-scheme: dark)" srcset="docs/images/overview-dark.webp"' in start


def test_it_lists_every_program_that_files_are_checked_for() -> None:
    from worker.core.lora_files.proof.loaders import LOADERS  # loads torch

    named = [row[0] for row in rows(section(README, "Works with"))]
    assert named == [loader.title for loader in LOADERS]

"""Coverage: what no caption names."""

from __future__ import annotations

import json

import pytest

from app.registry.datasets.checks.caption_lint import read_captions
from app.registry.datasets.checks.coverage import coverage
from app.registry.datasets.checks.findings import Finding, Severity
from worker.core.starter.examples import EXAMPLES, Example


def advice(texts: list[str]) -> Finding | None:
    return coverage(read_captions(enumerate(texts), "ink"), [])


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda example: example.title)
def test_the_examples_show_what_they_show(example: Example) -> None:
    lines = (example.folder / "metadata.jsonl").read_text().splitlines()
    found = advice([json.loads(line)["text"] for line in lines])
    assert found is not None
    assert (found.level, found.title) == (
        Severity.ADVICE,
        "No caption names people, buildings or landscapes",
    )
    assert found.details[0] == ("Captions that name animals 8, plants 4, food 10, vehicles 2.")


def test_little_that_is_known_gives_no_advice() -> None:
    assert advice(["ink, a fox"] * 9) is None
    assert advice(["ink, a fox"] * 10 + ["ink, a zork"] * 11) is None


def test_words_of_the_style_show_nothing() -> None:
    texts = [f"ink, {name}" for name in ("a fox", "a castle", "two boys", "an oak")] * 3
    assert (found := advice(texts)) is not None
    assert found.title == "No caption names food, vehicles or landscapes"
    styled = [f"{text}, portrait, in the style of a train" for text in texts]
    assert (found := advice(styled)) is not None
    assert found.title == "No caption names food, vehicles or landscapes"
    assert found.details[1] == "Framing: portrait 12"

"""Every curl in the documentation is run against a real server, and answers as the page says."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.web.openapi import TAGS
from tests.conftest import skip_unless_ci
from tests.docs.examples import PAGES, ROOT, Outcome, differences, examples, run_page
from tests.documented import find_operation
from tests.stack.conftest import Stack

pytestmark = pytest.mark.timeout(1_800)  # one fixture trains, generates, publishes and more

API_PAGE = ROOT / "docs" / "api.md"


@pytest.fixture(scope="module")
def outcomes(stack: Stack, folder_of_files: Path) -> list[Outcome]:
    """All examples, run in order: the page of the API first, then the others.

    Their ids are those of a new data folder, so they come before the tests of tests/stack.
    """
    if shutil.which("curl") is None:
        skip_unless_ci("no curl on this machine")
    server = urlsplit(stack.url).netloc
    environment = os.environ | {"BRUSHWORK_PASSWORD": "secret"}
    found = []
    for page in sorted(PAGES, key=lambda page: page != API_PAGE):
        if shown := examples(page):
            found += run_page(shown, folder_of_files, server, environment)
    return found


def test_every_example_runs_to_its_end(outcomes: list[Outcome]) -> None:
    expected = [example.place for page in PAGES for example in examples(page)]
    assert sorted(expected) == sorted(outcome.example.place for outcome in outcomes)


def test_every_request_has_the_documented_status(outcomes: list[Outcome], stack: Stack) -> None:
    with stack.client() as client:
        document = client.get("/openapi.json").json()
    tags = set()
    for outcome in outcomes:
        for sent in outcome.sent:
            about = f"{outcome.example.place}: {sent}\n{outcome.output[:2_000]}"
            expected = outcome.example.expected_status
            assert sent.status == expected if expected else sent.status < 300, about
            operation = find_operation(document, sent.method, urlsplit(sent.url).path)
            assert operation is not None, about
            assert str(sent.status) in operation["responses"], about
            tags |= set(operation["tags"])
    assert tags == set(TAGS), "each group of operations has an example"


def test_every_answer_has_the_documented_shape(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        documented = outcome.example.answer
        if documented is None:
            continue
        about = f"{outcome.example.place}: {outcome.output[:2_000]}\n{outcome.errors[:1_000]}"
        if outcome.example.is_json:
            found = list(differences(json.loads(documented), json.loads(outcome.output)))
            assert found == [], about
        else:
            head = outcome.output.lower().partition("\n\n")[0].splitlines()
            for line in documented.lower().splitlines():
                shown = ".*".join(map(re.escape, line.split("…")))  # an answer is shortened
                assert any(re.fullmatch(shown, sent) for sent in head), about


def test_downloads_have_their_documented_names(
    outcomes: list[Outcome], folder_of_files: Path
) -> None:
    assert outcomes
    assert (folder_of_files / "ink-v1.safetensors").stat().st_size > 10_000
    original = next(folder_of_files.glob("charcoal-v1*original*.safetensors"))
    assert original.read_bytes() == (folder_of_files / "charcoal.safetensors").read_bytes()


def test_shell_blocks_of_the_documentation_say_that_they_are_shell() -> None:
    for page in PAGES:
        if page.parent.name == "docs":
            assert "```\ncurl" not in page.read_text(), page.name

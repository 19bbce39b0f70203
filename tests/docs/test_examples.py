"""The reader of examples finds what is to be run, and sees where an answer is not as shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import examples
from tests.docs.examples import differences

PAGE = """\
# Page

```bash
curl localhost:8188/a
```

```json
{"status": 404, "detail": "…"}
```

```console
$ curl localhost:8188/b
{"id": 1}
```

Words between.

```json
{"no": "answer"}
```

```
make run
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(examples, "ROOT", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    return path


def test_shell_blocks_are_found_with_the_answers_that_follow_at_once(page: Path) -> None:
    first, second = examples.examples(page)
    assert (first.place, first.commands) == ("page.md:3", "curl localhost:8188/a\n")
    assert (first.expected_status, first.is_json) == (404, True)
    assert (second.commands, second.answer) == ("curl localhost:8188/b\n", None)
    assert second.expected_status is None


def test_a_page_without_requests_has_no_examples(page: Path) -> None:
    page.write_text("```bash\nmake run\n```\n")
    assert examples.examples(page) == []


@pytest.mark.parametrize(
    ("documented", "real", "expected"),
    [
        ({"id": 1}, {"id": 7, "more": True}, []),
        ({"loss": 0.5}, {"loss": 1}, []),
        ([{"id": 1}, {"id": 2}], [{"id": 3}], []),
        ([], [1], []),
        ({"id": 1}, {}, ["answer has no id"]),
        ({"id": 1}, {"id": "1"}, ["answer.id is '1', not like 1"]),
        ({"error": None}, {"error": "no"}, ["answer.error is 'no', not like None"]),
        ({"ok": True}, {"ok": 1}, ["answer.ok is 1, not like True"]),
        ([1], [], ["answer is empty"]),
        ({"a": [{"b": ""}]}, {"a": [{}]}, ["answer.a[0] has no b"]),
        ({"status": "ready"}, {"status": "failed"}, ["answer.status is failed, not ready"]),
    ],
)
def test_what_is_shown_must_be_there_with_its_type(
    documented: object, real: object, expected: list[str]
) -> None:
    assert list(differences(documented, real)) == expected

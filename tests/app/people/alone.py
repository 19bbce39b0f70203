"""What one who is alone gets: the bodies of pages and API answers, and their statements.

It uses nothing that the last commit before accounts lacks: there it made `alone.json`, with the
present `filled_registry.py`. Since then pages came to need a few statements less, which is written
there too: the shell of a page is read in the session of its endpoint.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.browser.filled_registry import Ids, fill_state

PAGES = """
/ /adapters /adapters/deleted /adapters/chalk /adapters/chalk/hidden /adapters/chalk/like
/adapters/chalk/tools /adapters/chalk/weights /base-models /blind-tests /blind-tests/new
/caption-models /datasets /datasets/deleted /datasets/boats /datasets/boats/captions/auto
/datasets/boats/checks /datasets/boats/deleted /datasets/boats/like /datasets/boats/statistics
/datasets/boats/versions /datasets/empty /grids /grids/new /grids/1 /home/runs /login /patterns
/play /prompt-sets /recipes /renders /renders/1 /renders/2 /running /runs /runs?q=boats /runs/1
/runs/1/change /runs/1/compare /runs/1/images /runs/1/stop /runs/2 /runs/3 /runs/999 /sessions
/storage/deleted /storage/forever/datasets/1 /storage/forever/adapters/1
/storage/forever/runs/1 /sweeps/1 /train/new /train/presets
"""
LISTS = """
/adapters /adapters/1 /adapters/1/aliases /adapters/1/renders /adapters/2/similar
/adapters/2/versions /base-models /base-models/1 /blind-tests
/blind-tests/1 /caption-models /caption-models/1 /datasets /datasets/1 /datasets/2
/datasets/2/captions/proposals /datasets/2/checks /datasets/2/edits /datasets/2/images
/datasets/2/similar /datasets/2/statistics /datasets/2/versions /evaluations /grids /grids/1
/images/1 /images/1/captions /images/1/facts /jobs /presets /prompt-sets /recipes /recipes/1
/renders /renders/1 /renders/2 /runs /runs/1 /runs/1/checkpoints /runs/1/metrics /runs/1/samples
/runs/1/settings /runs/999 /sessions /storage/deleted?kind=runs /storage/forever/runs/1 /sweeps
/sweeps/1
"""
ADDRESSES = [*PAGES.split(), *(f"/api/v1{path}" for path in LISTS.split())]
UNLIKE = (
    (r"(nonce[=-]\"?)[\w+/=-]+", r"\1"),
    (r'(name="brushwork-build" content=")\w+', r"\1"),
    (r"\b\d+\.\d+\.\d+\+g\w+(\.dirty)?", "VERSION"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00)?", "TIME"),
    (r"\b(\d{1,2} [A-Z][a-z]+( \d{4})?,? )?\d\d:\d\d(:\d\d)? UTC", "TIME"),
    (r"just now|(a|an|\d+) (seconds?|minutes?|s|min) ago", "AGO"),
    (r"\b\d+(\.\d)? (s|min)\b", "DURATION"),
    (r"\b(seed\"?(=|: ?| ))\d+", r"\1"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b", "ID"),
    (r"(/static/[\w./-]+)\?v=\w+", r"\1"),
    (r"(static/[\w/-]+\.)[0-9a-f]{8,}\.", r"\1"),
    (r'data-copy="\d+">\d+', "SEED"),
)
"""Nonces, the build, times, durations, random seeds and ids, and hashes of static files."""
NEW = ('"owner":null,"visibility":null,', ',"owner":null,"visibility":null')
"""What answers have had since then: fields that are null without accounts."""


def body_of(content: bytes, data_dir: Path) -> str:
    """A body without what differs from one time to the next."""
    text = content.decode().replace(str(data_dir), "DATA")
    for pattern, replacement in UNLIKE:
        text = re.sub(pattern, replacement, text)
    for addition in NEW:
        text = text.replace(addition, "")
    return text


def record(app: FastAPI) -> dict[str, tuple[int, str, int]]:
    """Status, body and number of statements by address, of a registry with all kinds of things."""
    state = app.state.brushwork
    client = TestClient(
        app, base_url="http://localhost", headers={"accept": "text/html"}, follow_redirects=False
    )
    ids: Ids = fill_state(state, client)
    assert ids
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    sa.event.listen(state.database.engine, "before_cursor_execute", count)
    found = {}
    for address in ADDRESSES:
        statements.clear()
        answer = client.get(address)
        found[address] = (
            answer.status_code,
            body_of(answer.content, state.settings.data_dir),
            len(statements),
        )
    sa.event.remove(state.database.engine, "before_cursor_execute", count)
    return found


def digest(text: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Hundreds of versions or checkpoints: pages stay short, and cost no more queries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.runs import Sample
from tests import fake_workers
from tests.fake_workers import FakeTraining

HTML = {"accept": "text/html"}


@contextmanager
def counted(state: AppState) -> Iterator[list[str]]:
    """The SQL statements of the app meanwhile."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    sa.event.listen(state.database.engine, "before_cursor_execute", note)
    yield statements
    sa.event.remove(state.database.engine, "before_cursor_execute", note)


def queries(client: TestClient, state: AppState, *addresses: str) -> dict[str, int]:
    found = {}
    for address in addresses:
        with counted(state) as statements:
            answer = client.get(address)
        assert answer.status_code == 200, address
        assert len(answer.content) < 150_000, address
        found[address] = len(statements)
    return found


def copy_version(state: AppState, adapter_id: int, numbers: range, **changes: object) -> None:
    """More versions like the first of an adapter."""
    with state.database.write() as session:
        of_adapter = select(AdapterVersion).where(AdapterVersion.adapter_id == adapter_id)
        first = session.exec(of_adapter).first()
        assert first is not None
        values = first.model_dump(exclude={"id", "version", "sha256"}) | changes
        for number in numbers:
            session.add(AdapterVersion(version=number, sha256=f"{number:064x}", **values))


def numbers_on(page: str) -> list[int]:
    listed = page.partition('<ul class="versions stack gap-2 compact">')[2].partition("</ul>")[0]
    return [int(number) for number in re.findall(r'href="/adapters/[^"]+\?v=(\d+)"', listed)]


@pytest.fixture
def chalk(state: AppState) -> Adapter:
    fake_workers.ready_base(state)
    return fake_workers.adapter(state)


def test_an_adapter_with_200_versions(client: TestClient, state: AppState, chalk: Adapter) -> None:
    pages = ("/adapters/chalk", "/adapters/chalk?versions=all", "/adapters/chalk/compare")
    pages += ("/adapters/chalk/tools", "/adapters", "/play?adapter=chalk@2")
    copy_version(state, chalk.key, range(2, 12))
    before = queries(client, state, *pages)
    copy_version(state, chalk.key, range(12, 201))
    assert queries(client, state, *pages) == before
    folded = client.get("/adapters/chalk?v=100").text
    assert numbers_on(folded) == [*range(200, 192, -1), 100, 1]  # 1 is the latest
    assert "Show all 200 versions" in folded
    assert 'href="/adapters/chalk/compare?a=99&amp;b=100"' in folded
    assert "Import a file as version 201" in folded
    page, seen = client.get("/adapters/chalk?v=100&versions=all").text, []
    while True:
        seen += numbers_on(page)
        older = re.search(r'rel="next" href="([^"]+)#versions"', page)
        if older is None:
            break
        page = client.get(older[1].replace("&amp;", "&")).text
        assert len(numbers_on(page)) == 50
    assert seen == [*range(200, 0, -1)]
    missing = client.get("/adapters/chalk?v=201", headers=HTML)
    assert missing.status_code == 404
    assert "has no version 201; it may have been deleted." in missing.text
    compared = client.get("/adapters/chalk/compare?a=3&b=150").text
    assert '<option value="77">Version 77</option>' in compared
    assert compared.count("<option") == 200  # one list for both fields


def test_a_run_with_500_checkpoints(client: TestClient, state: AppState, chalk: Adapter) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state, "Ink"))
    training = FakeTraining(state)
    training.sample(0)
    for _ in range(2):
        training.train(1)
        training.checkpoint()
        training.sample(training.step)
    with state.database.read() as session:
        address = session.exec(select(Adapter).where(Adapter.run_id == training.run_id)).one()
        samples = session.exec(select(Sample).where(Sample.step == 2)).all()
    run = f"/runs/{training.run_id}"
    files = f"/adapters/{address.slug}"
    pages = (run, f"{run}/live", f"{run}/compare", f"{files}?v=2", f"{files}?v=2&versions=all")
    for step in (1, 2):
        client.post(f"{run}/checkpoints/{step}/use")
    before = queries(client, state, *pages)
    copy_version(state, address.key, range(3, 501), kept=True)
    with state.database.write() as session:
        for step in range(3, 501):
            for row in samples:
                session.add(Sample(step=step, **row.model_dump(exclude={"id", "step"})))
    for step in range(3, 9):
        client.post(f"{run}/checkpoints/{step}/use")
    assert queries(client, state, *pages) == before
    page = client.get(run).text
    assert page.count('<tr id="step-') == 24 + 1  # and the base model
    compared = client.get(f"{run}/compare?a=250&b=500").text
    assert '<option value="77">Step 77, kept</option>' in compared
    assert compared.count("<option") == 501
    assert "Older checkpoints" in client.get(f"{files}?v=2&versions=all").text

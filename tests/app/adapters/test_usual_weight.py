"""The usual weight of a version: one figure for the playground, the tools, the API and files."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from app.registry import hub_transfers as hub
from app.registry.adapters import service
from app.registry.adapters.downloads import facts_sha256, version_metadata
from app.registry.adapters.versions.create_version import publish
from app.registry.job_kinds.kinds import JobKind, PublishAdapterArgs
from app.registry.runs import checkpoints
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render
from tests import fake_workers
from tests.app.adapters.test_metadata import NEW
from tests.fake_workers import FakeTraining

HTML = {"accept": "text/html"}


@pytest.fixture
def chalk(state: AppState) -> Adapter:
    fake_workers.ready_base(state)
    return fake_workers.adapter(state)


@pytest.fixture
def weighted(client: TestClient, chalk: Adapter) -> Adapter:
    answer = client.patch(f"/api/v1/adapters/{chalk.key}/versions/1", json={"usual_weight": 0.6})
    assert answer.json()["usual_weight"] == 0.6
    return chalk


def shown_weight(page: str) -> tuple[str, str]:
    """The subject of the weight card on an adapter's page, and the weight in its field."""
    text = " ".join(page.split())
    found = re.search(
        r'"field-usual_weight">Weight of (.*?)</label>.*?name="usual_weight".*?value="(.*?)"', text
    )
    assert found
    return found[1], found[2]


def rendered(client: TestClient, state: AppState, **values: object) -> tuple[float, float]:
    sent = {"prompt": "a castle", "seed": 7} | values
    made = client.post("/api/v1/renders", json=sent)
    assert made.status_code == 202, made.text
    with state.database.read() as session:
        (used,) = session.get_one(Render, made.json()["id"]).stack
    return used.weights


def test_it_is_used_where_no_weight_is_named(
    client: TestClient, state: AppState, weighted: Adapter
) -> None:
    assert client.get(f"/api/v1/adapters/{weighted.key}").json()["usual_weight"] == 0.6
    named = {"id": weighted.key}
    assert rendered(client, state, adapters=[named]) == (0.6, 0.6)
    assert rendered(client, state, adapters=[named | {"weight": 1}]) == (1.0, 1.0)
    assert rendered(client, state, prompt="a castle <lora:chalk>") == (0.6, 0.6)
    assert rendered(client, state, prompt="a castle <lora:chalk:1>") == (1.0, 1.0)
    play = client.get("/play?adapter=chalk").text
    assert 'name="weight-0" id="weight-0" value="0.6"' in play
    ticks = "".join(f'<option value="{weight}"></option>' for weight in (0, 1, 0.6))
    assert f'<datalist id="usual-0">{ticks}</datalist>' in play
    assert 'data-weight-reset="0.6"' in play
    assert 'value="0.9"' in client.get("/play?adapter=chalk:0.9").text
    tools = client.get("/adapters/chalk/tools").text
    assert 'id="tool-fuse-weight" name="weight" type="number" value="0.6"' in " ".join(
        tools.split()
    )
    fused = client.post(f"/api/v1/adapters/{weighted.key}/fuse", json={"name": "Chalked"})
    with state.database.read() as session:
        assert session.get_one(IoJob, fused.json()["id"]).args["parts"][0]["weight"] == 0.6


def test_the_page_and_the_card_say_it_and_nothing_else(
    client: TestClient, state: AppState, weighted: Adapter
) -> None:
    page = client.get("/adapters/chalk").text
    assert shown_weight(page) == ("version 1", "0.6")
    for text in (
        "&lt;lora:chalk-v1:0.6&gt;",
        "set_adapters(&#34;chalk&#34;, 0.6)",
        "strength_model 0.6, strength_clip 0.6",
        'href="/play?adapter=chalk&amp;prompt=a',
    ):
        assert text in page, text
    args = PublishAdapterArgs(repo="a/b", update=False, private=True, base_model="", pictures=())
    with state.database.read() as session:
        version = service.get_version(session, weighted)
        assert hub.model_card(session, weighted, version, args).metadata.usual_weight == 0.6


def test_only_an_edited_weight_makes_a_written_file_stale(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    def is_current() -> bool:
        with state.database.read() as session:
            return service.find_file(session, 1) is not None

    address = f"/api/v1/adapters/{chalk.key}/versions/latest"
    assert is_current()
    client.patch(address, json={"usual_weight": 1})
    assert is_current()
    client.patch(address, json={"usual_weight": 0.6})
    assert not is_current()
    with state.database.read() as session:
        (job,) = session.exec(select(IoJob).where(IoJob.kind == JobKind.EXPORT_ADAPTER)).all()
        assert job.subject_id == 1  # the next person need not wait for it
        version = session.get_one(AdapterVersion, 1)
        metadata = version_metadata(session, version)
        assert facts_sha256(metadata) != facts_sha256(replace(metadata, usual_weight=1.0))
    client.patch(address, json={"usual_weight": 1})
    assert is_current()


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("10.5", "The weight is 10.5; weights from -10 to 10 are accepted."),
        ("much", "Enter a number."),
        ("", "Enter a number."),
    ],
)
def test_a_weight_that_no_render_takes_is_refused_with_what_was_typed(
    client: TestClient, state: AppState, chalk: Adapter, typed: str, sentence: str
) -> None:
    sent = {"version": "1", "usual_weight": typed}
    answer = client.post("/adapters/chalk/usual-weight", data=sent, headers=HTML)
    assert answer.status_code == 422
    assert sentence in answer.text
    assert f'type="text" value="{typed}"' in answer.text
    address = f"/api/v1/adapters/{chalk.key}/versions/1"
    for wrong in (typed, None, float("1e9")):
        assert client.patch(address, json={"usual_weight": wrong}).status_code == 422
    with state.database.read() as session:
        assert session.get_one(AdapterVersion, 1).usual_weight == 1


def test_it_is_set_on_the_page_for_the_version_that_is_shown(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    with state.database.write() as session:
        publish(session, NEW, adapter_id=chalk.key)
    sent = {"version": "1", "usual_weight": "0,75"}
    answer = client.post("/adapters/chalk/usual-weight", data=sent, follow_redirects=False)
    assert answer.headers["location"] == "/adapters/chalk?v=1#usual-weight"
    page = client.get("/adapters/chalk?v=1").text
    assert "The usual weight of version 1 is now 0.75." in page
    assert shown_weight(page) == ("version 1", "0.75")
    assert shown_weight(client.get("/adapters/chalk").text) == ("version 2", "1")
    found = client.get(f"/api/v1/adapters/{chalk.key}/compare?a=1&b=2").json()["file"]
    (row,) = (row for row in found if row["name"] == "usual_weight")
    assert (row["a"], row["b"]) == (0.75, 1)


def test_that_of_a_checkpoint_is_set_and_stays_when_it_is_used(
    client: TestClient, state: AppState
) -> None:
    fake_workers.ready_base(state)
    fake_workers.queued_run(state, fake_workers.dataset(state))
    run = FakeTraining(state)
    for _ in range(2):
        run.train(10)
        run.checkpoint()
    with state.database.read() as session:
        address = checkpoints.address_of(session, run.run_id)
    assert address is not None
    sent = {"version": "10", "usual_weight": "0.6"}
    path = f"/adapters/{address.slug}/usual-weight"
    answer = client.post(path, data=sent, follow_redirects=False)
    assert answer.headers["location"] == f"/adapters/{address.slug}?v=10#usual-weight"
    page = client.get(f"/adapters/{address.slug}?v=10").text
    assert "The usual weight of step 10 is now 0.6." in page
    assert shown_weight(page) == ("step 10", "0.6")
    assert shown_weight(client.get(f"/adapters/{address.slug}").text) == ("step 20", "1")
    patched = client.patch(
        f"/api/v1/adapters/{address.key}/versions/10", json={"usual_weight": 0.7}
    )
    assert patched.json()["usual_weight"] == 0.7
    assert rendered(client, state, adapters=[{"id": address.key, "version": 10}]) == (0.7, 0.7)
    made = client.post(f"/api/v1/runs/{run.run_id}/checkpoints/10/use").json()
    used = client.get(f"/api/v1/adapters/{made['adapter_id']}/versions/{made['version']}")
    assert used.json()["usual_weight"] == 0.7

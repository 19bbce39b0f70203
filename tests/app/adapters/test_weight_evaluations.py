"""Evaluations of the weights of a version, on its pages and over REST, and what they leave."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry import hub_transfers, weight_evaluations
from app.registry.adapters.downloads import facts_sha256, version_metadata
from app.registry.adapters.usual_weight import keep_weight_card
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.base_models import service as base_models
from app.registry.db import Session
from app.registry.evaluations import list_evaluations
from app.registry.job_kinds.kinds import EvaluatedWeight, EvaluationResult, PublishAdapterArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.jobs import IoJob
from tests import fake_workers
from tests.app.adapters.test_fitting import add_base
from tests.fake_workers import FakeTraining
from worker.core.families.facts.family_facts import UsualDrawing
from worker.core.hub.adapters import make_card
from worker.core.lora_files.weights import WeightCard

API = "/api/v1"
HTML = {"accept": "text/html"}
PAGE = "/adapters/chalk/weights?v=1"
VERSION = f"{API}/adapters/1/versions/1"
ASKED = {"subjects": 6, "weights": [1.5, 0.5, 1]}
IMAGES = 6 * 4
CARD = WeightCard(start=0.3, best=0.8, breaks=1.5, base="starter")


@pytest.fixture
def chalk(state: AppState) -> Adapter:
    """An adapter that was trained on nine images."""
    fake_workers.ready_base(state)
    fake_workers.queued_run(state, fake_workers.dataset(state, pictures=9))
    training = FakeTraining(state)
    training.train(40)
    return training.finish()


def measure(state: AppState, card: WeightCard | None = CARD, note: str = "") -> None:
    """Draw the images and end the job that measures, as workers would."""
    fake_workers.draw(state)
    rows = [
        EvaluatedWeight(weight=one, style=one / 2, low=0.1, high=0.9, patches=0.4, adherence=None)
        for one in (0.5, 1.0, 1.5)
    ]
    result = EvaluationResult(weights=tuple(rows), card=card, notes=(note,) if note else ())
    with state.database.write() as session:
        while claimed := jobs.claim_next(session, IoJob, lease_seconds=60):
            job, claim = claimed
            values = {"result": result.stored()} if job.kind == "evaluate_weights" else {}
            jobs.finish(session, IoJob, claim, JobStatus.SUCCEEDED, **values)
        if card:
            keep(session)


def keep(session: Session, card: WeightCard = CARD) -> None:
    version = session.get_one(AdapterVersion, 1)
    base = base_models.ensure_embedded(session)
    keep_weight_card(session, session.get_one(Adapter, version.adapter_id), version, base, card)


def test_weights_are_compared_and_the_card_is_kept_with_the_version(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    answer = client.post(f"{VERSION}/evaluations", json=ASKED)
    assert answer.status_code == 202, answer.text
    order, address = answer.json(), answer.headers["location"]
    assert address == f"{API}/evaluations/{order['id']}"
    facts = [order[name] for name in ("run_id", "adapter_id", "version", "images", "weight_card")]
    assert facts == [None, chalk.key, 1, IMAGES, None]
    grid = client.get(f"{API}/grids/{order['grid_id']}").json()
    assert grid["columns"]["values"] == "none, chalk@1:0.5, chalk@1:1, chalk@1:1.5"
    assert [job["url"] for job in client.get(f"{API}/jobs?kind=evaluate_weights").json()] == [
        address
    ]
    assert client.get(f"{API}/evaluations?run_id=1").json() == []
    for _ in range(2):
        canceled = client.post(f"{address}/cancel")
        assert (canceled.status_code, canceled.json()["status"]) == (202, "canceled")
    again = client.post(f"{address}/repeat")
    assert again.status_code == 202
    measure(state)
    ended = client.get(again.headers["location"]).json()
    assert [one["style"] for one in ended["weights"]] == [0.25, 0.5, 0.75]
    card = {"base_name": "starter", "start": 0.3, "best": 0.8, "breaks": 1.5}
    assert ended["weight_card"] == card
    assert [one["id"] for one in client.get(f"{API}/evaluations").json()] == [
        ended["id"],
        order["id"],
    ]
    found = client.get(VERSION).json()
    assert (found["weight_cards"], found["usual_weight"]) == ([card], 1.0)
    assert "weight_cards" not in found["details"]
    assert client.get(f"{API}/adapters/1").json()["weight_cards"] == [card]


def test_the_page_finds_the_weight_and_proposes_it(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    assert f'href="{PAGE}"' in client.get("/adapters/chalk").text
    form = client.get(PAGE).text
    assert "It takes about 144 images of starter" in form
    assert "Those it was trained on" in form
    refused = client.post(PAGE, data={"subjects": "5", "dataset_id": "1"}, headers=HTML)
    assert refused.status_code == 422
    assert "Use 6 to 40 subjects" in refused.text
    assert 'value="1" selected' in refused.text
    started = client.post(PAGE, data={"subjects": "6"}, follow_redirects=False)
    assert (started.status_code, started.headers["location"]) == (303, PAGE)
    assert "0 of 54 images are drawn" in client.get(PAGE).text
    for action in ("cancel", "cancel", "repeat"):
        moved = client.post(f"/evaluations/{jobs_of(state)[-1]}/{action}", follow_redirects=False)
        assert moved.headers["location"] == PAGE
    measure(state)
    page = client.get(PAGE).text
    assert "With starter the style shows from 0.3, is best at 0.8 and breaks at 1.5." in page
    assert "0.25, between 0.10 and 0.90" in page
    assert '<span class="chip warn">breaks</span>' in page
    shown = client.get("/adapters/chalk").text
    assert "Use 0.8 as the usual weight" in shown
    used = client.post("/adapters/chalk/usual-weight", data={"version": 1, "usual_weight": 0.8})
    assert "The usual weight of version 1 is now 0.8." in used.text
    assert "Use 0.8 as the usual weight" not in used.text
    undo = re.search(r'action="(/adapters/chalk/usual-weight\?[^"]+)"', used.text)
    assert undo
    undone = client.post(html.unescape(undo[1]))
    assert "The usual weight of version 1 is now 1." in undone.text


def test_the_weights_to_compare_can_be_typed(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    assert 'placeholder="0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0"' in client.get(PAGE).text
    for typed, sentence in {
        "0.5, soft": "“soft” is no number and no range.",
        "1 to 1e9": "no number and no range",
        "0 to 9999 by 0.01": "These are",
        "0.5, 1": "Compare 3 to 12 different weights above 0.",
    }.items():
        refused = client.post(PAGE, data={"subjects": "6", "weights": typed}, headers=HTML)
        assert refused.status_code == 422
        assert sentence in refused.text
        assert f'value="{typed}"' in refused.text
    client.post(PAGE, data={"subjects": "6", "weights": "0.6 to 1.2 by 0.2"})
    assert "4 weights on 6 subjects" in client.get(PAGE).text
    with state.database.read() as session:
        (job,) = list_evaluations(session, limit=9)
        assert job.args["weights"] == [0.6, 0.8, 1.0, 1.2]


def test_weights_that_nobody_named_are_as_large_as_the_base_model_needs(
    client: TestClient, state: AppState, chalk: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    turbo = UsualDrawing(steps=9, guidance=1, weight=2)
    monkeypatch.setattr(weight_evaluations, "usual_of", lambda _base: turbo)
    client.post(PAGE, data={"subjects": "6", "weights": ""})
    with state.database.read() as session:
        (job,) = list_evaluations(session, limit=9)
    assert job.args["weights"] == [0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0]


def test_the_card_is_on_the_slider_and_in_the_downloads(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    with state.database.write() as session:
        before = facts_sha256(version_metadata(session, session.get_one(AdapterVersion, 1)))
        keep(session)
    play = client.get("/play?adapter=chalk").text
    assert "The style shows from 0.3, is best at 0.8 and breaks at 1.5." in play
    assert all(f'<option value="{tick}"></option>' in play for tick in (0.3, 0.8, 1.5))
    assert 'name="weight-0" id="weight-0" value="1"' in play  # the usual weight, as before
    with state.database.read() as session:
        version = session.get_one(AdapterVersion, 1)
        metadata = version_metadata(session, version)
        assert metadata.weight_cards == (CARD,)
        assert facts_sha256(metadata) != before
        args = PublishAdapterArgs(
            repo="ada/chalk", update=False, private=True, base_model="", pictures=()
        )
        card = make_card(hub_transfers.model_card(session, chalk, version, args), "ada/chalk")
    assert "| Measured weights | With starter the style shows from 0.3, is best" in card


def jobs_of(state: AppState) -> list[int]:
    with state.database.read() as session:
        return [job.key for job in reversed(list_evaluations(session, limit=9))]


@pytest.mark.parametrize(
    ("asked", "field", "sentence"),
    [
        ({"weights": [0.5, 0.5, 1]}, "weights", "3 to 12 different weights above 0"),
        ({"weights": [0, 0.5, 1]}, "weights", "above 0"),
        ({"dataset_id": 2}, "dataset_id", "8 images or more, and there is 1 image"),
        ({"dataset_id": 99}, "dataset_id", "no such dataset"),
        ({"base_model": "gone"}, "base_model", "Unknown base model"),
        ({"base_model": "large"}, "base_model", "does not fit"),
    ],
)
def test_what_cannot_be_compared_is_explained_before_anything_is_drawn(
    client: TestClient,
    state: AppState,
    chalk: Adapter,
    asked: dict[str, Any],
    field: str,
    sentence: str,
) -> None:
    fake_workers.dataset(state, "Ink", pictures=1)
    with state.database.write() as session:
        add_base(session, "large", 859_520_964)
    refused = client.post(f"{VERSION}/evaluations", json=asked)
    assert refused.status_code == 422
    assert sentence in str(refused.json()["errors"]), refused.text
    assert field in str(refused.json()["errors"])
    assert client.get(f"{API}/grids").json() == []


def test_an_import_needs_a_dataset_of_its_style(client: TestClient, state: AppState) -> None:
    fake_workers.ready_base(state)
    dataset = fake_workers.dataset(state, pictures=9)
    with state.database.write() as session:
        base = base_models.ensure_embedded(session).key
        publish(session, NewVersion("Ink", "sd1", "a" * 64, 1, 4, 4.0, base_model_id=base))
    refused = client.post(f"{VERSION}/evaluations", json=ASKED)
    assert refused.status_code == 422
    assert "Choose a dataset of the style" in refused.text
    form = client.get("/adapters/ink/weights").text  # nothing was sent yet, so nothing is wrong
    assert "Choose a dataset of the style" in form
    assert "aria-invalid" not in form
    refused = client.post("/adapters/ink/weights", data={}, headers=HTML)
    assert (refused.status_code, "aria-invalid" in refused.text) == (422, True)
    answer = client.post(f"{VERSION}/evaluations", json=ASKED | {"dataset_id": dataset.key})
    assert answer.status_code == 202


def test_a_deleted_version_leaves_the_evaluation_readable(
    client: TestClient, state: AppState, chalk: Adapter
) -> None:
    address = client.post(f"{VERSION}/evaluations", json=ASKED).headers["location"]
    measure(state, card=None, note="No weight brings the images nearer to the style.")
    assert client.delete(f"{API}/adapters/1").status_code == 200
    found = client.get(address).json()
    assert (found["adapter_id"], found["version"], found["images_drawn"]) == (None, None, IMAGES)
    assert found["not_measured"] == ["No weight brings the images nearer to the style."]
    assert client.post(f"{VERSION}/evaluations", json=ASKED).status_code == 404

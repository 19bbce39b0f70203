"""The form of a run on several datasets, as a browser without scripts gets it, and its pages."""

from __future__ import annotations

import html
import re

import pytest
from fastapi.testclient import TestClient

from app.registry.adapters import service as adapters
from app.registry.datasets import service as datasets
from app.registry.datasets.used_datasets import used_datasets
from app.registry.runs.several_datasets import MAX_DATASETS
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.runs.test_pages import form_of, runs_of


@pytest.fixture
def pair(state: AppState) -> tuple[Dataset, Dataset]:
    """Two datasets with trigger words of their own; the captions have neither."""
    fake_workers.ready_base(state)
    ink = fake_workers.dataset(state, "Ink", trigger_word="ink")
    return ink, fake_workers.dataset(state, "Wash", pictures=4, trigger_word="wash")


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def joint_form(client: TestClient, ink: Dataset, wash: Dataset) -> dict[str, str]:
    """The fields of a form to which the second dataset was added."""
    fields = form_of(client.get(f"/train/new?dataset={ink.slug}&preset=quick").text)
    assert "trigger_word" not in fields
    page = client.post("/train/new/datasets", data=fields | {"datasets": "add"}).text
    fields = form_of(page)
    assert (fields["dataset_id_2"], fields["dataset_repeats_2"]) == ("", "1")
    return fields | {"dataset_id_2": str(wash.key), "dataset_repeats_2": "3"}


def test_a_dataset_is_added_with_its_repeats(
    client: TestClient, state: AppState, pair: tuple[Dataset, Dataset]
) -> None:
    ink, wash = pair
    fields = joint_form(client, ink, wash) | {"steps": "31", "name": "Both"}
    plan = client.post("/train/new/plan?part=fields", data=fields).text
    fields |= form_of(f'<form id="train-form">{plan}</form>')
    assert fields["steps"] == "31"
    shown = text_of(plan)
    assert "in “ Ink ”" in shown
    assert "in “ Wash ”" in shown
    # each dataset has its own findings, with its own offer
    assert "Add “ink” to all 3" in shown
    assert "Add “wash” to all 4" in shown
    assert (
        "4 images of “Wash” lack the trigger word of this run, “ink”, so it does not call what is "
        "learned from them. Add “ink” to all 4" in shown
    )
    answer = client.post("/train/new", data=fields, follow_redirects=False)
    assert answer.status_code == 303
    (run,) = runs_of(state)
    with state.database.read() as session:
        used = used_datasets(session, run)
    assert [(one.id, one.repeats) for one in used] == [(ink.key, 1), (wash.key, 3)]
    assert (run.name, run.trigger_word, run.total_steps) == ("Both", "ink", 31)


def test_a_dataset_is_removed_and_nothing_typed_is_lost(
    client: TestClient, pair: tuple[Dataset, Dataset]
) -> None:
    fields = joint_form(client, *pair) | {"rank": "3", "pasted": "{", "preset_name": "Mine"}
    added = form_of(client.post("/train/new/datasets", data=fields | {"datasets": "add"}).text)
    assert (added["dataset_id_2"], added["dataset_repeats_2"]) == (str(pair[1].key), "3")
    assert added["dataset_id_3"] == ""
    removed = form_of(
        client.post("/train/new/datasets", data=added | {"datasets": "remove-2"}).text
    )
    assert removed["dataset_id_2"] == ""
    left = client.post("/train/new/datasets", data=removed | {"datasets": "remove-2"}).text
    assert "dataset_id_2" not in form_of(left)
    assert "trigger_word" not in form_of(left)
    assert (form_of(left)["rank"], form_of(left)["pasted"]) == ("3", "{")
    assert form_of(left)["preset_name"] == "Mine"
    for button in ("remove-9", "remove-x", "remove-", "nonsense", "remove-" + "9" * 5_000):
        again = client.post("/train/new/datasets", data=added | {"datasets": button})
        assert form_of(again.text)["dataset_id_2"] == str(pair[1].key)
    many = {f"dataset_id_{place}": "" for place in range(2, MAX_DATASETS + 31)}
    page = client.post("/train/new", data=added | many | {"pasted": "", "preset_name": ""})
    assert page.status_code == 422
    assert "These are 50 datasets; a run takes at most 20." in text_of(page.text)


@pytest.mark.parametrize(
    ("wrong", "anchor", "sentence"),
    [
        ({"dataset_repeats_2": "0"}, "dataset_repeats_2", "from 1 to 100"),
        ({"dataset_repeats_2": "10000"}, "dataset_repeats_2", "from 1 to 100"),
        ({"dataset_repeats": "x"}, "dataset_repeats", "from 1 to 100"),
        ({"dataset_id_2": "1"}, "dataset_id_2", "“Ink” is in this run already."),
        ({"dataset_id_2": ""}, "dataset_id_2", "Choose a dataset, or remove this one."),
        ({"dataset_id_2": "999"}, "dataset_id_2", "This dataset does not exist"),
        ({"trigger_word": "a, b"}, "trigger_word", "Leave the comma out"),
        ({"trigger_word": "<lora:" * 300}, "trigger_word", "This has 1,800 characters"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    client: TestClient,
    state: AppState,
    pair: tuple[Dataset, Dataset],
    wrong: dict[str, str],
    anchor: str,
    sentence: str,
) -> None:
    answer = client.post("/train/new", data=joint_form(client, *pair) | wrong)
    assert answer.status_code == 422
    said = re.search(rf'id="{anchor}-error">(.*?)</p>', answer.text, re.S)
    assert said is not None
    assert sentence in text_of(said[1])
    assert f'<a href="#{anchor}"' in answer.text
    assert f'id="{anchor}"' in answer.text
    for name, value in wrong.items():
        if "dataset_id" not in name:
            assert form_of(answer.text)[name] == value
    assert runs_of(state) == []


def test_the_trigger_word_follows_the_first_dataset_until_another_is_typed(
    client: TestClient, state: AppState, pair: tuple[Dataset, Dataset]
) -> None:
    ink, wash = pair
    fields = joint_form(client, ink, wash)
    assert fields["trigger_word"] == "ink"
    swapped = fields | {"dataset_id": str(wash.key), "dataset_id_2": str(ink.key)}
    plan = client.post("/train/new/plan?part=fields", data=swapped).text
    assert form_of(f'<form id="train-form">{plan}</form>')["trigger_word"] == "wash"
    assert "castle, wash style" in plan
    plan = client.post("/train/new/plan?part=fields", data=swapped | {"trigger_word": "sumi"}).text
    typed = form_of(f'<form id="train-form">{plan}</form>')
    assert (typed["trigger_word"], typed["shown_trigger"]) == ("sumi", "wash")
    client.post("/train/new", data=swapped | typed)
    (run,) = runs_of(state)
    assert run.trigger_word == "sumi"
    assert run.config["sample_prompts"][0] == "castle, sumi style"
    copy = form_of(client.get(f"/train/new?from={run.key}").text)
    assert copy["trigger_word"] == "sumi"
    assert (copy["dataset_id"], copy["dataset_id_2"]) == (str(wash.key), str(ink.key))
    assert (copy["dataset_repeats"], copy["dataset_repeats_2"]) == ("1", "3")


def test_a_deleted_dataset_of_an_earlier_run_is_asked_for_again(
    client: TestClient, state: AppState, pair: tuple[Dataset, Dataset]
) -> None:
    client.post("/train/new", data=joint_form(client, *pair))
    (run,) = runs_of(state)
    client.post(f"/runs/{run.key}/cancel")
    with state.database.write() as session:
        datasets.delete_dataset(session, pair[1].key)
    page = client.get(f"/train/new?from={run.key}").text
    assert form_of(page)["dataset_id_2"] == ""
    assert client.post("/train/new", data=form_of(page)).status_code == 422


def test_the_pages_show_all_datasets_with_their_repeats(
    client: TestClient, state: AppState, pair: tuple[Dataset, Dataset]
) -> None:
    client.post("/train/new", data=joint_form(client, *pair) | {"dataset_repeats": "2"})
    (run,) = runs_of(state)
    training = fake_workers.FakeTraining(state)
    training.train(40)
    training.finish()
    page = text_of(client.get(f"/runs/{run.key}").text)
    assert "7 images of 2 datasets." in page
    assert "Ink 3 images, 2 repeats" in page
    assert "Wash 4 images, 3 repeats" in page
    assert "Trigger word of the run: “ ink ”." in page
    images = text_of(client.get(f"/runs/{run.key}/images?dataset=2").text)
    assert "4 images of “ Wash ” as they were when the run was queued." in images
    assert "Used 3 times per epoch" in images
    assert client.get(f"/runs/{run.key}/images?dataset=9").status_code == 404
    listed = text_of(client.get("/runs").text)
    assert "Ink × 2, Wash × 3" in listed
    with state.database.read() as session:
        trained = adapters.trained_version(session, session.get_one(Run, run.key))
    assert trained is not None
    facts = text_of(client.get(f"/adapters/{trained[0].slug}").text)
    assert "Dataset 1 Ink , 3 images, 2 repeats" in facts
    assert "Dataset 2 Wash , 4 images, 3 repeats" in facts

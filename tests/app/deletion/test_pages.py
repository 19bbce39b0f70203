"""The pages that delete for good, as a browser without scripts gets them."""

from __future__ import annotations

import html

import pytest
from fastapi.testclient import TestClient

from app.registry.blobs import latents
from app.registry.state import AppState
from tests import fake_workers

HTML = {"accept": "text/html"}
FOREVER, DELETED = "/storage/forever", "/storage/deleted?kind="
FORMS = (
    "/runs/1/delete?back=/runs",
    "/adapters/1/versions/2/delete?back=/adapters/chalk",
)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("shown_on", "address", "leads_to"),
    [
        ("/runs/1", f"{FOREVER}/runs/1/checkpoints", "/runs/1"),
        ("/renders/2", f"{FOREVER}/renders/2", "/play"),
        (f"{DELETED}runs", f"{FOREVER}/runs/1", f"{DELETED}runs"),
        (f"{DELETED}runs", f"{FOREVER}/runs", f"{DELETED}runs"),
        (f"{DELETED}versions", f"{FOREVER}/adapters/1/versions/2", f"{DELETED}versions"),
    ],
)
def test_a_page_asks_first_and_the_next_says_what_was_freed(
    client: TestClient, shown_on: str, address: str, leads_to: str
) -> None:
    client.post("/renders/delete", data={"id": "2"})  # only then it can be deleted for good
    if DELETED in shown_on:
        for form in FORMS:
            client.post(form)
    assert f'href="{address}"' in client.get(shown_on).text
    asked = client.get(address)
    assert asked.status_code == 200
    assert "This cannot be undone. It frees <strong>" in asked.text
    assert f'<a class="button" href="{shown_on}' in asked.text
    answer = client.post(address, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, leads_to)
    shown = client.get(leads_to).text
    assert '<div class="toast"><p>Deleted ' in shown
    assert " freed.</p>" in shown
    assert '<div class="toast"><p>Deleted ' not in client.get(leads_to).text  # once
    again = client.get(address, headers=HTML)
    assert again.status_code == 404 or "Delete no runs for good?" in again.text
    assert f'href="{address}"' not in client.get(leads_to).text


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("page", "form", "leads_to", "undo"),
    [
        ("/runs/1", FORMS[0], "/runs", "/runs/1/restore?back=%2Fruns"),
        (
            *("/adapters/chalk", FORMS[1], "/adapters/chalk"),
            "/adapters/1/versions/2/restore?back=%2Fadapters%2Fchalk",
        ),
    ],
)
def test_a_form_deletes_and_the_next_page_offers_undo(
    client: TestClient, page: str, form: str, leads_to: str, undo: str
) -> None:
    assert f'action="{form}"' in client.get(page).text
    answer = client.post(form)
    assert str(answer.url.path) == leads_to
    assert f'<form method="post" action="{undo}"><button autofocus>Undo' in answer.text
    assert f'action="{form}"' not in answer.text
    assert " was restored." in client.post(html.unescape(undo)).text
    assert f'action="{form}"' in client.get(page).text


@pytest.mark.usefixtures("filled")
def test_chosen_runs_are_deleted_together(client: TestClient, state: AppState) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state, "Other"))
    assert "Choose the runs to delete." in client.post("/runs/delete").text
    shown = client.post("/runs/delete", data={"run": ["1", "2"], "back": "/runs?sort=name"})
    assert str(shown.url).endswith("/runs?sort=name")
    assert "“Chalk” was deleted. “Other” is waiting. Cancel it first, then delete it." in shown.text
    assert 'href="/storage/deleted?kind=runs">Deleted runs' in shown.text
    listed = client.get("/storage/deleted?kind=runs").text
    restore = "/runs/1/restore?back=/storage/deleted%3Fkind%3Druns"
    assert f'action="{restore}"' in listed
    assert "No deleted runs" in client.post(restore).text


def test_what_has_not_ended_says_why(client: TestClient, state: AppState) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state))
    assert "/runs/1/delete" not in client.get("/runs/1").text
    refused = client.post("/runs/1/delete?back=/runs", headers=HTML)
    assert refused.status_code == 409
    assert "“Chalk” is waiting. Cancel it first, then delete it." in refused.text


@pytest.mark.usefixtures("filled")
def test_a_deleted_dataset_goes_with_or_without_its_runs(client: TestClient) -> None:
    assert "/datasets/deleted" not in client.get("/datasets").text
    client.post("/datasets/chalk/delete")
    assert 'href="/datasets/deleted"' in client.get("/datasets").text
    listed = client.get("/datasets/deleted").text
    assert "3 images, 1 run trained on it, deleted" in listed
    assert 'action="/datasets/1/restore?' in listed
    asked = client.get("/storage/forever/datasets/1").text
    assert "3 images stay, with captions, because 1 run was trained on them." in asked
    assert (
        'href="/storage/forever/datasets/1?with_runs=true">Delete these runs too, which frees'
        in asked
    )
    both = "/storage/forever/datasets/1?with_runs=true"
    with_runs = client.get(both).text
    assert "run 1, “Chalk”" in with_runs
    assert 'href="/storage/forever/datasets/1">Keep the runs' in with_runs
    answer = client.post(both)
    assert str(answer.url).endswith("/storage/deleted?kind=datasets")
    assert "No deleted datasets" in answer.text
    assert client.get("/adapters/chalk").status_code == 200
    for address in ("/", "/runs", "/adapters/chalk/compare", "/train/new", "/play", "/storage"):
        assert client.get(address).status_code == 200, address


def test_deleted_images_are_listed_restored_and_deleted(
    client: TestClient, state: AppState
) -> None:
    fake_workers.dataset(state)
    for image in (1, 2, 3):
        client.post(f"/datasets/chalk/images/{image}/delete")
    assert (
        'href="/datasets/chalk/deleted">3 deleted images</a>' in client.get("/datasets/chalk").text
    )
    page = client.get("/datasets/chalk/deleted").text
    assert 'action="/datasets/chalk/images/1/restore?' in page
    forever = f"{FOREVER}/datasets/chalk/images"
    assert f'href="{forever}/1"' in page
    assert "Delete these runs too" not in client.get(f"{forever}/1").text
    client.post(f"{forever}/1")
    client.post("/datasets/chalk/images/2/restore")
    assert "image “2.png”" not in client.get(forever).text
    answer = client.post(forever)
    assert str(answer.url.path) == "/datasets/chalk"
    assert "deleted image" not in answer.text.partition("toasts")[0]
    assert "No deleted images" in client.get("/datasets/chalk/deleted").text


@pytest.mark.usefixtures("filled")
def test_the_list_of_what_is_deleted_opens_where_there_is_something(client: TestClient) -> None:
    assert "No deleted runs" in client.get("/storage/deleted").text
    client.post("/adapters/1/versions/2/delete")
    page = client.get("/storage/deleted").text
    assert '<h1 dir="auto">Deleted versions and checkpoints</h1>' in page
    for words in ("Runs 0", "Versions and checkpoints 1", "Grids 0", "Recipes 0"):
        assert f">{words}</a>" in page
    assert 'kind=versions" aria-current="true"' in page


@pytest.mark.usefixtures("filled")
def test_the_storage_page_frees_space_by_kind(client: TestClient, state: AppState) -> None:
    cached = state.settings.data_dir / latents.CACHE / "vae-1" / "ab" / "ab.safetensors"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(bytes(5_000))
    assert 'href="/storage"' in client.get("/system").text
    page = client.get("/storage").text
    for words in ("Training states of runs that", "Images of the playground", "Cache of"):
        assert words in page
    assert client.get("/storage/forever/checkpoints", headers=HTML).status_code == 422
    asked = client.get("/storage/forever/checkpoints?older_than_days=0").text
    assert "<li>2 training states</li>" in asked
    assert (
        "<strong>0 B</strong>" in client.get("/storage/forever/checkpoints?older_than_days=30").text
    )
    client.post("/storage/forever/checkpoints?older_than_days=0")
    client.post("/storage/forever/renders?older_than_days=0&keep_covers=false")
    client.post("/storage/forever/images")
    assert "frees <strong>5 KB</strong> in 1 file" in client.get("/storage/cache/delete").text
    shown = client.post("/storage/cache/delete").text
    assert "Deleted the cache: 5 KB freed." in shown
    assert not cached.exists()
    for words in ("Training states of runs", "Images of the playground", "Cache of"):
        assert words not in shown
    assert client.get("/api/v1/renders/2").status_code == 404


def test_a_notice_of_somebody_else_is_only_text(client: TestClient) -> None:
    client.cookies.set("notice", "%3Cscript%3Ealert(1)%3C/script%3E" + "x" * 1_000)
    shown = client.get("/storage").text
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert(1)" in shown

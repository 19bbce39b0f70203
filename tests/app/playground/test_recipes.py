"""Recipes: saved from the playground or the API, opened, renamed, deleted and restored."""

from __future__ import annotations

import html
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from app.registry.adapters import service as adapters
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.deletion.adapters import discard_version
from app.registry.deletion.renders import delete_deleted_renders
from app.registry.renders import sources
from app.registry.renders.recipes import service
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.renders import RenderSource
from tests import fake_workers
from tests.app.runs.test_pages import form_of
from tests.images import make_png

API = "/api/v1/recipes"
FRAGMENT = {"accept": "text/html", "hx-request": "true"}
ADDRESS = (
    "/play?adapter=real:0.8:0.5&adapter=chalk@1:-0.3&prompt=a+castle&negative=blur&seed=7&steps=9"
    "&guidance=3&sampler=euler&mix=blend"
)


@pytest.fixture
def stack(state: AppState) -> tuple[int, int]:
    """The ids of “Chalk” and “Real”, of one base model whose precision is known."""
    chalk = fake_workers.adapter(state)
    fake_workers.measured_base(state)
    with state.database.write() as session:
        new = NewVersion("Real", "sd1", "a" * 64, 5, 8, 8.0, base_model_id=1)
        return chalk.key, publish(session, new).adapter_id


def page_of(client: TestClient, address: str, status: int = 200) -> str:
    answer = client.get(address, headers={"accept": "text/html"})
    assert answer.status_code == status, answer.text
    return " ".join(html.unescape(answer.text).split())


def sent_form(client: TestClient, name: str, address: str = ADDRESS) -> dict[str, str]:
    return form_of(client.get(address).text, "play-form") | {"recipe": name}


@pytest.mark.usefixtures("stack")
def test_the_playground_is_saved_and_opens_again_with_its_image(
    client: TestClient, state: AppState
) -> None:
    sent = sent_form(client, "  Evening \n chalk ")
    answer = client.post("/recipes", data=sent, headers=FRAGMENT).text
    assert 'Saved as <a href="/recipes/evening-chalk">“Evening chalk”</a>' in answer
    again = client.post("/recipes", data=sent, follow_redirects=False)  # without scripts
    assert again.headers["location"] == "/recipes/evening-chalk-2"
    assert "Your image appears here" in page_of(client, "/recipes/evening-chalk")
    for _ in range(2):  # the second one knows the precision
        client.post("/play", data=sent)
        fake_workers.draw(state)
    page = client.get("/recipes/evening-chalk").text
    assert page.count("comparison-side") == 2
    kept = form_of(page, "play-form")
    wanted = {"adapter-0": "real@1", "weight-0": "0.8", "text-weight-0": "0.5", "mix": "blend"}
    wanted |= {"adapter-1": "chalk@1", "weight-1": "-0.3", "prompt": "a castle", "seed": "7"}
    wanted |= {"negative": "blur", "steps": "9", "guidance": "3", "sampler": "euler"}
    assert {name: kept[name] for name in wanted} == wanted
    listed = page_of(client, "/recipes")
    assert "Real 0.80, Chalk -0.30" in listed
    with state.database.read() as session:
        covers = service.find_covers(session, service.list_recipes(session).items)
    assert covers.keys() == {1, 2}
    assert f"/media/{covers[1]}/small" in listed


@pytest.mark.usefixtures("stack")
def test_wrong_input_is_kept_beside_its_error(client: TestClient, state: AppState) -> None:
    sent = sent_form(client, "Soft")
    for change, sentence in (
        ({"recipe": " "}, "Enter a name."),
        ({"recipe": "n" * 121}, "This has 121 characters; use at most 120."),
        ({"recipe": "n" * 900_000}, "This has 900,000 characters"),
        ({"weight-0": "nan"}, "Enter a number."),
        ({"steps": "9" * 5_000}, "steps"),
        ({"prompt": ""}, "This cannot be empty."),
        ({"adapter-0": "gone"}, "There is no such adapter"),
    ):
        assert sentence in client.post("/recipes", data=sent | change, headers=FRAGMENT).text
    refused = client.post("/recipes", data=sent | {"recipe": "", "steps": "8"})
    assert refused.status_code == 422
    assert 'id="recipe-error"' in refused.text
    assert form_of(refused.text, "play-form")["steps"] == "8"
    assert client.post("/recipes", data=sent | {"seed": ""}, headers=FRAGMENT).status_code == 200
    with state.database.read() as session:
        (recipe,) = service.list_recipes(session).items
    assert recipe.seed is None
    assert form_of(client.get("/recipes/soft").text, "play-form")["seed"] == ""
    page_of(client, "/recipes/none", 404)


def test_a_recipe_opens_with_what_is_left_of_it(
    client: TestClient, state: AppState, stack: tuple[int, int]
) -> None:
    chalk, real = stack
    with state.database.write() as session:
        new = NewVersion("Chalk", "sd1", "b" * 64, 5, 8, 8.0, base_model_id=1)
        publish(session, new, adapter_id=chalk)
    client.post("/recipes", data=sent_form(client, "Soft"))
    with state.database.write() as session:  # a new name and address
        adapter = session.get_one(Adapter, real)
        adapter.name, adapter.slug = "Photo", "photo"
    kept = form_of(client.get("/recipes/soft").text, "play-form")
    assert (kept["adapter-0"], kept["adapter-1"]) == ("photo@1", "chalk@1")
    with state.database.write() as session:
        discard_version(session, chalk, 1)
    page = page_of(client, "/recipes/soft")
    assert "Version 1 of “Chalk” was deleted, so version 2 takes its place." in page
    with state.database.write() as session:
        adapters.delete_adapter(session, real)
    page = client.get("/recipes/soft").text
    assert "The adapter “Real” was deleted, so it is left out." in page
    kept = form_of(page, "play-form")
    assert (kept["adapter-0"], "adapter-1" in kept, kept["prompt"]) == (
        "chalk@2",
        False,
        "a castle",
    )
    assert "“Real” was deleted" in page_of(client, "/recipes")
    found = client.get(f"{API}/1").json()
    assert [(one["slug"], one["version"]) for one in found["request"]["adapters"]] == [("chalk", 2)]
    assert len(found["missing"]) == 2
    refused = client.post(f"{API}/1/renders")
    assert refused.status_code == 409
    assert "“Real” was deleted" in refused.json()["detail"]
    assert client.post("/api/v1/renders", json=found["request"]).status_code == 202
    with state.database.write() as session:
        service.get_recipe(session, 1).base_model = "none"
    page = page_of(client, "/recipes/soft")
    assert "The base model “none” is not here any more" in page


@pytest.mark.usefixtures("stack")
def test_a_recipe_is_renamed_deleted_and_restored(client: TestClient, state: AppState) -> None:
    client.post("/recipes", data=sent_form(client, "Soft"))
    answer = client.post("/recipes/1/rename", data={"name": "Softer"})
    assert "The recipe is called “Softer” now." in html.unescape(answer.text)
    refused = client.post("/recipes/1/rename", data={"name": "x" * 121})
    assert refused.status_code == 422
    assert f'value="{"x" * 121}"' in refused.text
    gone = client.post("/recipes/1/delete")
    assert "“Softer” was deleted." in gone.text
    assert 'action="/recipes/1/restore?back=%2Frecipes"' in gone.text
    assert 'href="/storage/deleted?kind=recipes"' in gone.text
    assert "Softer" in page_of(client, "/storage/deleted?kind=recipes&page=99")
    page_of(client, "/recipes/soft", 404)
    back = client.post("/recipes/1/restore", follow_redirects=False)
    assert back.headers["location"] == "/recipes#recipe-1"
    assert "Softer" in page_of(client, "/recipes/soft")  # its address stayed
    for key in (9, 2**31):
        assert client.post(f"/recipes/{key}/delete").status_code in (404, 422)
    client.post("/recipes/1/delete")
    with state.database.write() as session:
        deletion = delete_deleted_renders(session)
    assert "1 recipe" in deletion.goes
    assert client.get(f"{API}/1").status_code == 404


def test_recipes_by_the_api(client: TestClient, stack: tuple[int, int]) -> None:
    chalk, _ = stack
    used = {"id": chalk, "version": "latest", "block_weights": {"output": 0.5}}
    request = {"prompt": "a fox <lora:real:0.5>", "adapters": [used]}
    made = client.post(API, json={"name": "Soft", "request": request})
    assert made.status_code == 201, made.text
    recipe = made.json()
    kept = recipe["request"]
    assert (recipe["slug"], kept["seed"], kept["prompt"]) == ("soft", None, "a fox")
    blocks = [one["block_weights"] for one in kept["adapters"]]
    assert blocks == [{"input": 1.0, "middle": 1.0, "output": 0.5}, None]
    names = [(one["name"], one["slug"], one["version"]) for one in kept["adapters"]]
    assert names == [("Chalk", "chalk", "latest"), ("Real", "real", 1)]
    listed = client.get(API)
    assert listed.json() == [recipe]
    assert listed.headers["x-total-count"] == "1"
    assert client.patch(f"{API}/1", json={"name": "Hard"}).json()["name"] == "Hard"
    assert client.delete(f"{API}/1").status_code == 200
    assert client.get(API).json() == []
    assert client.get(API, params={"deleted": True}).json()[0]["name"] == "Hard"
    assert client.post(f"{API}/1/restore").json()["deleted_at"] is None
    for name, wrong in (
        ("Soft", {"twin": True}),
        ("Soft", {"strength": 0.5}),
        ("Soft", {"source": {"render_id": 9}}),
        ("Soft", {"steps": 1_000}),
        ("", {}),
        ("n" * 121, {}),
    ):
        refused = client.post(API, json={"name": name, "request": request | wrong})
        assert refused.status_code == 422, (name, wrong)
    assert client.get(f"{API}/9").status_code == 404


def test_a_recipe_is_rendered_by_the_api(
    client: TestClient, state: AppState, stack: tuple[int, int]
) -> None:
    sha256 = client.post("/api/v1/renders/sources", files={"file": make_png(1)}).json()["sha256"]
    used = {"id": stack[0], "version": "latest", "weight": 0.8, "block_weights": {"output": 0.5}}
    request = {"prompt": "a fox", "seed": 5, "adapters": [used], "source": {"sha256": sha256}}
    kept = client.post(API, json={"name": "Soft", "request": request}).json()["request"]
    assert client.post(API, json={"name": "Same", "request": kept}).json()["request"] == kept
    assert {name: kept[name] for name in ("prompt", "seed", "base_model")} == {
        "prompt": "a fox",
        "seed": 5,
        "base_model": "starter",
    }
    made = client.post(f"{API}/1/renders")
    assert made.status_code == 202
    fake_workers.draw(state)
    render = client.get(f"/api/v1/renders/{made.json()['id']}").json()
    assert (render["prompt"], render["seed"], render["source_sha256"]) == ("a fox", 5, sha256)
    assert render["adapters"][0]["block_weights"]["output"] == 0.5
    assert client.post("/api/v1/renders", json=kept).json()["status"] == "succeeded"
    assert client.post(f"{API}/9/renders").status_code == 404


def test_a_recipe_keeps_its_aliases_and_the_image_it_starts_from(
    client: TestClient, state: AppState, stack: tuple[int, int]
) -> None:
    chalk, _ = stack
    with state.database.write() as session:
        aliases.set_alias(session, session.get_one(AdapterVersion, 1), "best")
    sha256 = client.post("/api/v1/renders/sources", files={"file": make_png(1)}).json()["sha256"]
    address = f"/play?adapter=chalk@best:0.8&prompt=a+castle&source={sha256}&strength=0.4"
    client.post("/recipes", data=sent_form(client, "Soft", address))
    with state.database.write() as session:
        new = NewVersion("Chalk", "sd1", "b" * 64, 5, 8, 8.0, base_model_id=1)
        aliases.set_alias(session, publish(session, new, adapter_id=chalk), "best")
        session.get_one(RenderSource, sha256).used_at -= timedelta(days=1)
    with state.database.write() as session:
        assert sources.forget_unused(session) == []
    kept = form_of(client.get("/recipes/soft").text, "play-form")
    assert (kept["adapter-0"], kept["source"], kept["strength"]) == ("chalk@best", sha256, "0.4")
    assert "Chalk@best 0.80" in page_of(client, "/recipes")
    found = client.get(f"{API}/1").json()["request"]
    assert (found["source"]["sha256"], found["adapters"][0]["version"]) == (sha256, "best")
    with state.database.write() as session:
        aliases.delete_alias(session, chalk, "best")
    page = page_of(client, "/recipes/soft")
    assert "The alias “best” of “Chalk” was deleted, so version 1 takes its place." in page
    client.post("/recipes/1/delete")
    with state.database.write() as session:
        delete_deleted_renders(session)
        assert sources.forget_unused(session) == [sha256]

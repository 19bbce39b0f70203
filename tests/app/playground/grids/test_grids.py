"""Grids through the REST API and the service: cells, batches, cache, cancel, continue, delete."""

from __future__ import annotations

import html
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from app.registry.adapters import service as adapters
from app.registry.db import Database, utcnow
from app.registry.deletion import adapters as deleted
from app.registry.deletion.renders import delete_deleted_renders, delete_renders, ended_renders
from app.registry.deletion.usage import FileKind, storage_use
from app.registry.renders import listing, sources
from app.registry.renders.grids import service, views
from app.registry.renders.grids.axes import AxisRequest
from app.registry.renders.grids.plan import GridRequest, plan_grid
from app.registry.renders.plan import plan_single
from app.registry.renders.requests import RenderRequest
from app.registry.state import AppState
from app.registry.storage.folder import LocalBlobStore
from app.registry.tables.axes import AxisKind
from app.registry.tables.renders import Grid, GridCell, Render, RenderSource
from tests import fake_workers

WEIGHTS = {"kind": "weight", "values": "0.5 to 1 by 0.25"}
PROMPTS = {"kind": "prompt", "values": "a fox\na {red|blue} boat"}


def ask(client: TestClient, path: str = "", **body: Any) -> Any:
    request = {"prompt": "a castle", "seed": 7} | body.pop("request", {})
    return client.post(f"/api/v1/grids{path}", json={"request": request} | body)


def created(client: TestClient, **body: Any) -> Any:
    answer = ask(client, **body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def renders(state: AppState) -> list[Render]:
    with state.database.read() as session:
        return list(session.exec(select(Render).order_by(col(Render.id))))


def get(client: TestClient, grid: Any) -> Any:
    return client.get(f"/api/v1/grids/{grid['id']}").json()


def states(client: TestClient, grid: Any) -> list[str]:
    return [cell["status"] for cell in get(client, grid)["images"]]


def test_cells_that_differ_in_weights_share_a_render_after_what_people_wait_for(
    client: TestClient, state: AppState
) -> None:
    chalk = fake_workers.adapter(state, "Chalk")
    night = fake_workers.adapter(state, "Night")
    stack = {"adapters": [{"id": chalk.key}, {"id": night.key, "weight": 0.4}]}
    grid = created(client, request=stack, columns=WEIGHTS, rows=PROMPTS)
    assert (grid["title"], grid["cells"], grid["done"]) == ("Weight × prompt", 9, 0)
    assert grid["columns"]["labels"] == ["Chalk 0.50", "Chalk 0.75", "Chalk 1.00"]
    assert grid["rows"]["labels"] == ["a fox", "a red boat", "a blue boat"]
    made = renders(state)
    assert [row.prompt for row in made] == ["a fox", "a red boat", "a blue boat"]
    assert all(row.weights == [[0.5, 0.4], [0.75, 0.4], [1.0, 0.4]] for row in made)
    single = client.post("/api/v1/renders", json={"prompt": "an owl"}).json()
    assert fake_workers.draw(state)[0].key == single["id"]
    done = get(client, grid)
    assert (done["status"], done["done"], done["seconds_left"]) == ("done", 9, None)
    assert len({cell["url"] for cell in done["images"]}) == 9
    at = [(cell["column"], cell["row"], cell["sheet"]) for cell in done["images"]]
    assert at[:4] == [(0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 0)]
    with state.database.read() as session:
        assert [row.key for row in listing.recent_renders(session)] == [single["id"]]
        assert listing.adapter_renders(session, chalk.key) == []


def test_cells_with_other_adapters_share_a_render_too_until_one_fails(
    client: TestClient, state: AppState
) -> None:
    chalk, night, moss = (fake_workers.adapter(state, name) for name in ("Chalk", "Night", "Moss"))
    stack = {"adapters": [{"id": moss.key, "weight": 0.4}, {"id": chalk.key}]}
    columns = {"kind": "adapter", "values": "chalk, night:0.5, none, moss:0.7", "adapter": 1}
    grid = created(client, request=stack, columns=columns)
    (made,) = renders(state)
    assert [used.slug for used in made.stack] == ["moss", "chalk", "night", "moss"]
    assert made.weights == [
        [0.4, 1.0, None, None],
        [0.4, None, 0.5, None],
        [0.4, None, None, None],
        [0.4, None, None, 0.7],  # the same one twice in one image
    ]
    added = [[(chalk, 1.0)], [(night, 0.5)], [], [(moss, 0.7)]]
    for place, others in enumerate(added):
        used = [fake_workers.weighted(one.key, weight) for one, weight in [(moss, 0.4), *others]]
        with state.database.read() as session:
            alone = plan_single(session, RenderRequest(prompt="a castle", seed=7, adapters=used))
            cell = session.get_one(GridCell, (grid["id"], place))
        assert cell.cache_key == alone.cache_key
        assert [one.weights for one in made.stack_of(place)] == [one.weights for one in alone.stack]
    address = f"/api/v1/grids/{grid['id']}"
    client.post(f"{address}/cancel")
    client.post(f"{address}/continue")
    again = renders(state)[1:]  # each by itself: one that cannot be generated fails alone
    assert [row.weights for row in again] == [None] * 4


def test_adapters_of_a_prompt_share_a_render_by_their_own_weights(
    client: TestClient, state: AppState
) -> None:
    for name in ("Chalk", "Night"):
        fake_workers.adapter(state, name)
    prompts = "a fox <lora:chalk:0.5>\na fox <lora:night:0.8:0.3>\na fox"
    grid = created(client, columns={"kind": "prompt", "values": prompts})
    (made,) = renders(state)
    assert (made.prompt, made.weights) == ("a fox", [[0.5, None], [None, 0.3], [None, None]])
    assert [used.weights for used in made.stack_of(1)] == [(0.3, 0.8)]
    fake_workers.draw(state)
    assert states(client, grid) == ["succeeded"] * 3


def test_images_that_are_there_are_used_again_and_equal_cells_have_one(
    client: TestClient, state: AppState
) -> None:
    chalk = fake_workers.adapter(state)
    with state.database.write() as session:
        fake_workers.choose_precision(session, 1)
    stack = {"adapters": [{"id": chalk.key}]}
    alone = {"prompt": "a castle", "seed": 7, "adapters": [{"id": chalk.key, "weight": 1.25}]}
    client.post("/api/v1/renders", json=alone)
    fake_workers.draw(state)
    created(client, request=stack, columns=WEIGHTS)
    fake_workers.draw(state)
    count = len(renders(state))
    wider = {"kind": "weight", "values": "0.5, 0.75, 1, 1, 1.25, 1.5"}
    seeds = {"kind": "seed", "values": "7, 8"}
    guess = ask(client, "/estimate", request=stack, columns=wider, rows=seeds).json()
    assert guess["notes"] == ["Columns: 1 value given twice, used once."]
    assert (guess["cells"], guess["images"], guess["cached_images"]) == (10, 10, 4)
    assert guess["seconds"] == pytest.approx(6 * 0.8 / 3)
    grid = created(client, request=stack, columns=wider, rows=seeds)
    new = renders(state)[count:]
    assert [row.weights for row in new] == [None, [[0.5], [0.75], [1.0], [1.25], [1.5]]]
    assert states(client, grid)[:6] == ["succeeded"] * 4 + ["queued"] * 2
    # weight 0 is the same image, whatever the adapter
    nothing = created(
        client,
        request={"seed": 1},
        columns={"kind": "adapter", "values": f"{chalk.slug}:0, none"},
    )
    assert len({cell["render_id"] for cell in nothing["images"]}) == 1


def test_a_grid_is_canceled_continued_deleted_and_restored(
    client: TestClient, state: AppState
) -> None:
    chalk = fake_workers.adapter(state)
    steps = {"kind": "steps", "values": "10, 20"}
    grid = created(client, request={"adapters": [{"id": chalk.key}]}, columns=WEIGHTS, rows=steps)
    address = f"/api/v1/grids/{grid['id']}"
    for _ in range(2):
        assert client.post(f"{address}/cancel").json()["status"] == "incomplete"
    assert states(client, grid) == ["canceled"] * 6
    assert client.post(f"{address}/continue").json()["status"] == "active"
    fake_workers.draw(state)
    assert states(client, grid) == ["succeeded"] * 6
    assert client.post(f"{address}/continue").json()["done"] == 6
    assert client.delete(address).status_code == 200
    assert client.get("/api/v1/grids").json() == []
    assert client.post(f"{address}/continue").status_code == 409
    (gone,) = client.get("/api/v1/grids?deleted=true").json()
    assert (gone["id"], gone["done"]) == (grid["id"], 6)
    assert client.post(f"{address}/restore").json()["deleted_at"] is None
    assert client.patch(address, json={"title": "  Castles  at night "}).json()["title"] == (
        "Castles at night"
    )
    assert client.get("/api/v1/grids/99").status_code == 404


def used_files(state: AppState, kind: FileKind) -> int:
    return next(use.files for use in storage_use(state) if use.kind is kind)


def test_images_of_a_grid_live_as_long_as_the_grid(client: TestClient, state: AppState) -> None:
    chalk = fake_workers.adapter(state)
    stack = {"adapters": [{"id": chalk.key}]}
    grid = created(client, request=stack, columns=WEIGHTS)
    fake_workers.draw(state)
    (render,) = renders(state)
    with state.database.read() as session:
        assert ended_renders(session) == ended_renders(session, only_drafts=True) == []
    client.delete(f"/api/v1/grids/{grid['id']}")
    assert used_files(state, FileKind.DELETED_RENDERS) == 3
    kept = created(client, request=stack, columns=WEIGHTS)
    assert used_files(state, FileKind.DELETED_RENDERS) == 0
    assert {cell["render_id"] for cell in kept["images"]} == {render.key}
    with state.database.write() as session:
        assert "1 grid" in delete_deleted_renders(session).goes
    assert states(client, kept) == ["succeeded"] * 3
    with state.database.write() as session:  # one image deleted for good by itself
        delete_renders(session, [render.key], title="")
    assert states(client, kept) == ["deleted"] * 3
    client.post(f"/api/v1/grids/{kept['id']}/continue")
    fake_workers.draw(state)
    assert states(client, kept) == ["succeeded"] * 3
    client.delete(f"/api/v1/grids/{kept['id']}")
    with state.database.write() as session:
        delete_deleted_renders(session)
    assert renders(state) == []
    with state.database.read() as session:
        assert session.exec(select(Grid)).all() == session.exec(select(GridCell)).all() == []


def test_checkpoints_and_found_adapters_beside_a_fixed_one(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Ink fine")
    fake_workers.adapter(state, "Ink bold")
    chalk = fake_workers.adapter(state)
    stack = {"adapters": [{"id": chalk.key, "weight": 0.3}]}
    found = {"kind": "adapter", "values": "search: ink", "adapter": 1}
    samplers = {"kind": "sampler", "values": "Euler a, ddim"}
    grid = created(
        client,
        request=stack,
        columns=found,
        rows=samplers,
        sheets={"kind": "guidance", "values": "2, 4.5"},
    )
    assert grid["columns"]["labels"] == ["Ink bold", "Ink fine"]
    assert grid["rows"]["labels"] == ["Euler a", "DDIM"]
    assert [cell["sheet"] for cell in grid["images"]] == [0] * 4 + [1] * 4
    names = [[(used.name, used.weight) for used in row.stack] for row in renders(state)]
    assert names == [[("Chalk", 0.3), ("Ink bold", 1.0), ("Ink fine", 1.0)]] * 4
    assert renders(state)[0].weights == [[0.3, 1.0, None], [0.3, None, 1.0]]


def test_an_adapter_that_goes_leaves_the_grid_and_is_named_by_what_needs_it(
    client: TestClient, state: AppState
) -> None:
    chalk = fake_workers.adapter(state)
    stack = {"adapters": [{"id": chalk.key}]}
    grid = created(client, request=stack, columns=WEIGHTS)
    client.post(f"/api/v1/grids/{grid['id']}/cancel")
    with state.database.write() as session:
        adapters.delete_adapter(session, chalk.key)
    assert client.get(f"/grids/{grid['id']}?cell=0").status_code == 200
    refused = client.post(f"/api/v1/grids/{grid['id']}/continue")
    assert (refused.status_code, "“Chalk” was deleted" in refused.text) == (422, True)
    said = html.unescape(client.post(f"/grids/{grid['id']}/continue").text)
    assert "None of the missing images can be generated any more. “Chalk” was deleted" in said
    assert states(client, grid) == ["canceled"] * 3


def test_what_is_left_of_a_grid_is_generated_and_kept_after_an_adapter_went(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    night = fake_workers.adapter(state, "Night")
    column = {"kind": "adapter", "values": "chalk, night:0.5"}
    grid = created(client, columns=column, rows=PROMPTS)
    address = f"/api/v1/grids/{grid['id']}"
    fake_workers.draw(state)
    with state.database.write() as session:
        delete_renders(session, [row.key for row in renders(state)[1:]], title="")
        adapters.delete_adapter(session, night.key)
    kept = client.post(f"{address}/cells/1/keep").json()  # with the adapter that is gone
    assert [used["name"] for used in kept["adapters"]] == ["Night"]
    assert kept["images"][0]["url"] == get(client, grid)["images"][1]["url"]
    said = html.unescape(client.post(f"/grids/{grid['id']}/continue").text)
    assert "2 images are generated. “a red boat, Night 0.50” and “a blue boat, Night 0.50” " in said
    assert "cannot be any more. “Night” was deleted" in said
    client.post(f"{address}/cancel")
    going_on = client.post(f"{address}/continue").json()
    assert [cell["place"] for cell in going_on["refused"]] == [3, 5]
    fake_workers.draw(state)
    assert states(client, grid) == [
        "succeeded",
        "succeeded",
        "succeeded",
        "deleted",
        "succeeded",
        "deleted",
    ]
    again = client.post(f"{address}/cells/2/keep").json()
    assert [used["name"] for used in again["adapters"]] == ["Chalk"]
    with state.database.write() as session:
        deleted.delete_forever(session, night.key)
    with state.database.write() as session:  # another request for the same image
        session.get_one(Render, kept["id"]).deleted_at = utcnow()
    assert client.post(f"{address}/cells/1/keep").status_code == 200


def test_grids_are_stored_on_every_database(
    database: Database, ready_base: None, tmp_path: Path
) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    seeds = AxisRequest(AxisKind.SEED, "1 to 3")
    with database.read() as session:
        plan = plan_grid(session, GridRequest(RenderRequest(prompt="a fox"), [seeds]))
    with database.write() as session:
        key = service.create_grid(session, plan, store).key
        service.cancel_grid(session, key)
    with database.write() as session:
        missing = service.plan_missing(session, key)
        assert missing is not None
        service.continue_grid(session, key, missing, store)
    with database.read() as session:
        (row,) = views.list_grids(session).items
        assert (row.cells, row.done) == (3, 0)
        assert views.grid_view(session, row.grid).state == "active"
    with database.write() as session:
        service.delete_grid(session, key)
        delete_deleted_renders(session)
        assert views.list_grids(session, deleted=True).items == []


def test_a_grid_can_start_from_an_image_that_goes_afterwards(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    first = client.post("/api/v1/renders", json={"prompt": "a fox", "seed": 1}).json()["id"]
    fake_workers.draw(state)
    request = {"source": {"render_id": first}, "strength": 0.5}
    grid = created(client, request=request, columns={"kind": "seed", "values": "1, 2"})
    client.post(f"/api/v1/grids/{grid['id']}/cancel")
    with state.database.write() as session:
        delete_renders(session, [first, *(row.key for row in renders(state)[1:])], title="")
        session.exec(select(RenderSource)).one().used_at -= timedelta(days=1)
    with state.database.write() as session:
        assert sources.forget_unused(session) == []  # the grid may go on
    client.post(f"/api/v1/grids/{grid['id']}/continue")
    assert states(client, grid) == ["queued"] * 2
    assert len({row.source_sha256 for row in renders(state)}) == 1


BAD = [
    ({"columns": {"kind": "seed", "values": "1 to 100000"}}, "columns", "at most 400 images"),
    (
        {
            "columns": {"kind": "seed", "values": "1 to 100"},
            "rows": {"kind": "steps", "values": "1 to 100"},
            "sheets": {"kind": "guidance", "values": "1 to 10"},
        },
        "columns",
        "100 × 100 × 10 = 100,000 images; at most 400",
    ),
    ({"columns": {"kind": "sampler", "values": "euler, dpm9"}}, "columns", "“dpm9”. There are"),
    ({"columns": {"kind": "seed", "values": " "}}, "columns", "Enter the values"),
    ({"columns": {"kind": "steps", "values": "10, 1000"}}, "columns", "150 at most"),
    ({"columns": {"kind": "steps", "values": "1.5"}}, "columns", "not a whole number"),
    ({"columns": WEIGHTS}, "columns", "Weights need an adapter"),
    ({"columns": WEIGHTS | {"adapter": 3}}, "columns", "no adapter 4"),
    ({"columns": {"kind": "adapter", "values": "nobody:0.5"}}, "columns", "There is no adapter"),
    ({"columns": {"kind": "adapter", "values": "chalk:x"}}, "columns", "no valid weight"),
    ({"columns": {"kind": "adapter", "values": "other"}}, "columns", "does not fit"),
    ({"columns": {"kind": "adapter", "values": "search: xyz"}}, "columns", "matches “xyz”"),
    ({"columns": {"kind": "checkpoint", "values": "99"}}, "columns", "no run 99"),
    ({"columns": {"kind": "checkpoint", "values": "best"}}, "columns", "number of a run"),
    (
        {"columns": PROMPTS, "rows": {"kind": "prompt", "values": "an owl"}},
        "rows",
        "vary the same",
    ),
    ({"columns": PROMPTS, "sheets": WEIGHTS}, "sheets", "Sheets need rows"),
    ({"columns": PROMPTS, "request": {"count": 2}}, "request", "a cell is one image"),
    ({"columns": PROMPTS, "request": {"guidance": 99}}, "guidance", "30"),
    ({"columns": PROMPTS | {"values": "x" * 30_000}}, "columns", "30,000 characters"),
]


def test_an_impossible_grid_is_refused_with_the_reason(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    with state.database.write() as session:
        other = adapters.get_adapter(session, fake_workers.adapter(state, "Other").key)
        other.base_family = "sdxl"
        session.add(other)
    for body, field, sentence in BAD:
        answer = ask(client, **body)
        assert answer.status_code == 422, answer.text
        reasons = {each["field"]: each["detail"] for each in answer.json()["errors"]}
        found = [reason for name, reason in reasons.items() if name.split(".")[0] == field]
        assert sentence in "".join(found), reasons
    assert renders(state) == []

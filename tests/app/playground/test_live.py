"""Live redraws as the page asks for them: drafts of a tab, until they are kept."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters import fitting
from app.registry.db import Database
from app.registry.jobs import service as jobs
from app.registry.renders import listing
from app.registry.state import AppState
from app.registry.tables.renders import Render
from tests import fake_workers
from tests.app.playground.test_pages import FRAGMENT, filled, renders_of

SLOT = "0123456789abcdef"


def redraw(client: TestClient, weight: str = "0.8", **fields: str) -> Any:
    form = filled(client, f"/play?adapter=chalk:{weight}&prompt=a+castle&seed=7")
    return client.post("/play/live", data=form | {"slot": SLOT} | fields, headers=FRAGMENT)


def listed(state: AppState) -> list[int]:
    with state.database.read() as session:
        return [row.key for row in listing.recent_renders(session)]


def test_a_redraw_keeps_the_seed_also_while_the_lock_is_open(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    for address in ("/play?adapter=chalk:0.8&prompt=a+castle&seed=7", "/play?prompt=a+castle"):
        form = {name: text for name, text in filled(client, address).items() if name != "keep_seed"}
        answer = client.post("/play/live", data=form | {"slot": SLOT}, headers=FRAGMENT)
        draft = renders_of(state)[-1]
        assert f"seed={draft.seed}" in answer.headers["hx-replace-url"]
        assert f'value="{draft.seed}"' in answer.text
        assert 'name="keep_seed" id="keep-seed" value="1" aria-label="Keep this seed" >' in (
            answer.text.replace("  ", " ")
        )
        # a poll may have replaced the result that the request was sent for
        assert answer.headers["hx-retarget"] == "#result"
    assert renders_of(state)[1].seed == 7


def test_an_image_of_the_base_model_is_announced_in_plain_words(
    client: TestClient, state: AppState
) -> None:
    client.post("/play", data={"prompt": "a castle", "seed": "7", "keep_seed": "1"})
    (drawn,) = fake_workers.draw(state)
    told = client.get(f"/renders/{drawn.key}/live").text.partition('id="result-status"')[2]
    assert ">Generated without adapters.</p>" in told


def test_the_image_before_stays_in_view_until_there_is_a_preview_and_then_the_image(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    fake_workers.worker_seen(state, "render")
    redraw(client)
    first = fake_workers.draw(state)[0]
    before = client.get(f"/renders/{first.key}/live").text
    assert f'name="shown" value="{first.key}"' in before
    assert "Generated with Chalk 0.80." in before
    answer = redraw(client, "0.9", shown=str(first.key)).text
    assert f"shown={first.key}" in answer
    assert "Out of date" in answer
    assert "In line, starts in a moment" in answer
    assert "Generated with" not in answer  # a screen reader is told at the end
    with state.database.write() as session:
        claimed = jobs.claim_next(session, Render, lease_seconds=60)
        assert claimed is not None
        jobs.update_owned(session, Render, claimed[1], preview=b"webp", progress=5)
    running = client.get(f"/renders/{claimed[0].key}/live?shown={first.key}").text
    assert "data:image/webp;base64,d2VicA==" in running
    assert "Step 5 of 20" in running
    with state.database.write() as session:
        jobs.give_back(session, Render, claimed[1])
    fake_workers.draw(state)
    done = client.get(f"/renders/{claimed[0].key}/live?shown={first.key}").text
    assert "hx-trigger" not in done
    assert "Out of date" not in done.replace("data-old-note>Out of date", "")


def test_at_weight_0_the_image_stays_beside_that_without_adapters(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    redraw(client, "0")
    (draft,) = fake_workers.draw(state)
    shown = client.get(f"/renders/{draft.key}/live").text
    assert shown.count('class="comparison-side"') == 2
    assert "Chalk 0.00" in shown
    assert "Without your style" in shown


def test_a_replaced_draft_says_nothing_and_a_canceled_one_does(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    redraw(client, "0.1")
    redraw(client, "0.2")
    twins_and_drafts = renders_of(state)
    old, new = (row.key for row in twins_and_drafts[1::2])
    assert client.get(f"/renders/{old}/live").status_code == 204
    canceled = client.post(f"/renders/{new}/cancel", headers=FRAGMENT).text
    assert "Canceled" in canceled
    assert client.get(f"/renders/{new}/live").status_code == 200


def test_a_draft_is_listed_once_it_is_kept(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    redraw(client)
    draft = fake_workers.draw(state)[0]
    page = client.get(f"/renders/{draft.key}/live").text
    assert f'action="/renders/{draft.key}/keep"' in page
    assert listed(state) == []
    kept = client.post(f"/renders/{draft.key}/keep", headers=FRAGMENT).text
    assert "/keep" not in kept
    assert listed(state) == [draft.key]
    again = client.post(f"/renders/{draft.key}/keep", follow_redirects=False)
    assert again.headers["location"] == f"/renders/{draft.key}"
    assert client.post("/renders/999/keep").status_code == 404


def last_took(state: AppState, seconds: float) -> None:
    with state.database.write() as session:
        for row in session.exec(select(Render).where(Render.seconds == 0.8)):
            row.seconds = seconds
            session.add(row)


def test_while_images_are_slow_the_switch_stays_and_says_when_they_are_drawn(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    redraw(client)
    fake_workers.draw(state)
    last_took(state, 9.0)
    page = client.get("/play?adapter=chalk").text
    assert ">An image takes about 9 s here: drawn when you let go.</p>" in page
    assert 'name="live" value="1"' in page
    assert "drawn when you let go" not in client.get("/play?adapter=chalk&steps=5").text
    fake_workers.queued_run(state, fake_workers.dataset(state, "Night"))
    assert "while a run trains" not in client.get("/play?adapter=chalk").text  # it only waits
    fake_workers.FakeTraining(state)
    sentence = "Slow while a run trains: drawn when you let go, in about 9 s."
    assert sentence in client.get("/play?adapter=chalk").text


def test_a_slow_redraw_is_drawn_and_a_quick_one_makes_the_switch_live_again(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    for weight, seconds, note in (("0.3", 9.0, "drawn when you let go"), ("0.4", 0.8, "")):
        assert redraw(client, weight).headers["hx-retarget"] == "#result"
        draft = fake_workers.draw(state)[-1]
        last_took(state, seconds)
        told = client.get(f"/renders/{draft.key}/live").text.partition('id="live-note"')[2]
        assert (note or 'innerHTML"></p>') in told
        own = client.get(f"/renders/{draft.key}/live?own=1").text
        assert "live-note" not in own


def test_a_redraw_checks_the_fit_once_and_opens_one_session_to_read(
    client: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_workers.adapter(state)
    form = filled(client, "/play?adapter=chalk:0.8&prompt=a+castle&seed=7")
    calls = Counter[str]()

    def count(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(Database, "read")
    count(Database, "write")
    count(fitting, "kinds")
    count(fitting, "misfit")
    client.post("/play/live", data=form | {"slot": SLOT}, headers=FRAGMENT)
    assert calls == {"read": 1, "write": 1, "kinds": 1, "misfit": 1}
    assert len(renders_of(state)) == 2


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"prompt": ""}, "prompt: "),
        ({"weight-0": "1e9"}, "The weight must be between"),
        ({"weight-0": "NaN"}, "Enter a number"),
        ({"steps": "1000"}, "steps: "),
        ({"width": "13"}, "width: "),
        ({"adapter-0": "gone"}, "no such adapter"),
    ],
)
def test_what_cannot_be_redrawn_is_said_beside_the_switch(
    client: TestClient, state: AppState, fields: dict[str, str], sentence: str
) -> None:
    fake_workers.adapter(state)
    answer = redraw(client, **fields)
    assert (answer.status_code, answer.headers["hx-retarget"]) == (200, "#live-told")
    assert answer.headers["hx-reswap"] == "innerHTML"
    assert sentence in answer.text
    assert renders_of(state) == []


@pytest.mark.parametrize("slot", ["", "x" * 20, "a" * 65, "A" * 32, "０" * 20])
def test_a_tab_needs_a_name(client: TestClient, state: AppState, slot: str) -> None:
    fake_workers.adapter(state)
    assert redraw(client, slot=slot).status_code == 422
    assert redraw(client, shown="9" * 30).status_code == 200

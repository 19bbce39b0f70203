"""Pages of blind tests without scripts: a new one from each place, judging, the result."""

from __future__ import annotations

import hashlib
import io
import re

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from sqlmodel import select

from app.registry.blind_tests import service
from app.registry.blind_tests.plan import BlindRequest
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.blind_tests import BlindVote, Question
from app.registry.tables.renders import RenderImage
from tests import fake_workers
from tests.app.blind_tests.test_judging import better, judge, started, step

PAGE = {"accept": "text/html"}


def page(client: TestClient, address: str, status: int = 200) -> str:
    answer = client.get(address, headers=PAGE)
    assert answer.status_code == status, answer.text
    return answer.text


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_a_run_offers_its_checkpoints_and_says_what_is_found(client: TestClient, run: int) -> None:
    assert f'href="/blind-tests/new?run={run}"' in page(client, f"/runs/{run}")
    html = page(client, f"/blind-tests/new?run={run}")
    chosen = re.findall(r'name="candidate" value="([^"]*)" checked', html)
    assert [text.partition("@")[2] for text in chosen] == ["40", "20"]
    assert 'value="none"' in html
    text = text_of(html)
    assert "A preference of 75 in 100 is found in 9 of 10 tests, within 106 pairs." in text
    assert "Images to draw 54" in text


def test_a_test_is_judged_and_read_without_scripts(
    client: TestClient, state: AppState, run: int
) -> None:
    html = page(client, f"/blind-tests/new?run={run}")
    chosen = re.findall(r'name="candidate" value="([^"]*)" checked', html)
    fields = {"question": "keep", "candidate": chosen, "run": str(run)}
    answer = client.post("/blind-tests/new", data=fields, headers=PAGE, follow_redirects=False)
    assert answer.status_code == 303, text_of(answer.text)
    address = answer.headers["location"]
    assert "0 of 48 images are there" in text_of(page(client, address))
    fake_workers.draw(state)
    html = page(client, address)
    assert 'alt="left image"' in html
    assert client.get(f"/api/v1{address}/pairs/1/left").status_code == 200
    for number in (1, 2):
        vote = {"number": str(number), "answer": "tie"}
        assert client.post(f"{address}/votes", data=vote, headers=PAGE).status_code == 200
    assert "2 judged" in text_of(page(client, address))
    client.post(f"{address}/undo", headers=PAGE)
    assert "1 judged" in text_of(page(client, address))
    text = text_of(client.post(f"{address}/end", headers=PAGE).text)
    assert "No clear preference." in text
    assert "Step 40 against Step 20, 1 pair" in text
    assert "Go on judging" in text
    text = text_of(client.post(f"{address}/continue", headers=PAGE).text)
    assert "1 judged" in text
    deleted = text_of(client.post(f"{address}/delete", headers=PAGE).text)
    assert "was deleted." in deleted
    assert "Restore" in page(client, address)


def test_no_page_image_or_header_tells_which_is_which(
    client: TestClient, state: AppState, run: int
) -> None:
    wanted = BlindRequest(
        question=Question.CLOSER, candidates=[step(run, 20), step(run, 40, 0.7)], title="Mine"
    )
    test = started(state, wanted)
    fake_workers.draw(state)
    with state.database.read() as session:
        stored = set(session.exec(select(RenderImage.sha256)))
        adapters = {row.slug for row in session.exec(select(Adapter))}
    address = f"/blind-tests/{test.key}"
    for _ in range(40):
        answer = client.get(address, headers=PAGE)
        number = re.search(r'data-number="(\d+)"', answer.text)
        if number is None:
            break
        texts = [answer.text, str(answer.headers)]
        for side in ("left", "right"):
            image = client.get(f"/api/v1{address}/pairs/{number[1]}/{side}")
            texts.append(str(image.headers))
            assert hashlib.sha256(image.content).hexdigest() not in stored
            with Image.open(io.BytesIO(image.content)) as opened:
                assert not opened.info
        for secret in (*stored, *adapters, "Step", "@20", "@40", "0.7", "0.70", "checkpoint"):
            assert not any(secret in text for text in texts), secret
        assert not re.search(r"\b(repeat|control|winner|leader)\b", text_of(answer.text))
        data = {"number": number[1], "answer": "tie"}
        client.post(f"{address}/votes", data=data, headers=PAGE, follow_redirects=False)


def test_a_decided_test_names_the_winner_and_puts_it_into_use(
    client: TestClient, state: AppState, run: int
) -> None:
    test = started(
        state, BlindRequest(question=Question.KEEP, candidates=[step(run, 20), step(run, 40)])
    )
    fake_workers.draw(state)
    judge(state, test, better(1))
    html = page(client, f"/blind-tests/{test.key}")
    text = text_of(html)
    assert "You prefer Step 40 ." in text
    assert "4 of 4 alike" in text
    assert html.count('class="chosen"') == 11  # ten pairs and the images of the answer
    assert f'href="/blind-tests/{test.key}?pairs=all#pairs"' in html
    assert len(re.findall("<figure ", page(client, f"/blind-tests/{test.key}?pairs=all"))) > 20
    used = client.post(f"/blind-tests/{test.key}/use", data={"candidate": "1"}, headers=PAGE)
    assert used.status_code == 200
    assert "is in use now" in text_of(used.text)


def test_more_candidates_are_one_table_with_intervals(
    client: TestClient, state: AppState, run: int
) -> None:
    three = [step(run, 20), step(run, 40), step(run, 40, 0.5)]
    test = started(state, BlindRequest(question=Question.KEEP, candidates=three))
    fake_workers.draw(state)
    judge(state, test, better(0), most=12)
    with state.database.write() as session:
        service.end(session, test.key)
    text = text_of(page(client, f"/blind-tests/{test.key}"))
    assert "Step 20 would be chosen" in text
    assert "Step 40 at 0.50" in text
    assert text.count(" to 100") == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"candidate": ["none"]}, "at least two candidates"),
        ({"candidate": ["gone@1", "none"]}, "“gone@1”"),
        ({"candidate": ["none:9x", "none"]}, "“none:9x”"),
        ({"candidate": ["recipe:", "none"]}, "“recipe:”"),
        ({"candidate": [f"a@{number}" for number in range(60)]}, "“a@0”"),
        ({"candidate": ["none"], "question": "which"}, "Choose one of the two questions."),
    ],
)
def test_what_cannot_be_tested_is_said(
    client: TestClient, state: AppState, fields: dict[str, object], said: str
) -> None:
    fake_workers.ready_base(state)
    answer = client.post("/blind-tests/new", data={"question": "keep"} | fields, headers=PAGE)
    assert answer.status_code == 422
    assert said in text_of(answer.text)


def test_sixty_candidates_are_refused_with_the_reason(client: TestClient, run: int) -> None:
    html = page(client, f"/blind-tests/new?run={run}")
    (first, *_) = re.findall(r'name="candidate" value="([^"]*)" checked', html)
    many = [f"{first}:{0.5 + number / 100:g}" for number in range(60)]
    answer = client.post(
        "/blind-tests/new", data={"question": "keep", "candidate": many}, headers=PAGE
    )
    assert answer.status_code == 422
    assert "at most 6 candidates" in text_of(answer.text)


def test_the_playground_a_grid_and_a_recipe_lead_to_a_test(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    sent = {"adapter-0": adapter.slug, "weight-0": "0.8", "on-0": "1"}
    answer = client.post("/blind-tests/play", data=sent, headers=PAGE, follow_redirects=False)
    assert answer.status_code == 303
    assert "chalk%3A0.8" in answer.headers["location"]
    html = page(client, answer.headers["location"])
    assert re.findall(r'name="candidate" value="([^"]*)" checked', html)[-1] == "none"
    html = page(client, f"/blind-tests/new?adapter={adapter.slug}")
    assert len(re.findall(r'name="candidate" value="[^"]*" checked', html)) == 2
    assert "/blind-tests/new?adapter=" in page(client, f"/adapters/{adapter.slug}")


def test_a_grid_offers_its_stacks_and_everyday_subjects_where_its_prompts_are_few(
    client: TestClient, run: int, state: AppState
) -> None:
    with state.database.read() as session:
        adapter = session.exec(select(Adapter).where(Adapter.run_id == run)).first()
    assert adapter is not None
    axis = {"kind": "weight", "values": "0.5, 1"}
    asked = {"prompt": "a fox", "adapters": [{"id": adapter.key, "version": 40}]}
    grid = client.post("/api/v1/grids", json={"request": asked, "columns": axis}).json()["id"]
    html = page(client, f"/blind-tests/new?grid={grid}")
    chosen = re.findall(r'name="candidate" value="([^"]*)" checked', html)
    assert [text.partition("@")[2] for text in chosen] == ["40:0.5", "40:1"]
    assert '<option value="everyday" selected>' in html
    assert "within 106 pairs" in text_of(html)


def test_the_list_shows_open_and_ended_tests(client: TestClient, state: AppState, run: int) -> None:
    assert "No blind tests yet" in page(client, "/blind-tests")
    started(
        state,
        BlindRequest(
            question=Question.KEEP, candidates=[step(run, 20), step(run, 40)], title="Mine"
        ),
    )
    html = page(client, f"/blind-tests?run={run}")
    assert "Mine" in html
    assert "open" in html
    with state.database.read() as session:
        assert session.exec(select(BlindVote)).first() is None


def test_many_candidates_are_read_up_to_a_limit(client: TestClient, state: AppState) -> None:
    fake_workers.dataset(state)
    many = "&".join(f"candidate=style-{number}" for number in range(100))
    found = page(client, f"/blind-tests/new?question=keep&{many}")
    assert "“style-0”: There is no such adapter" in found

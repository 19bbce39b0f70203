"""The subjects of the embedded base beside the prompt, and its unknown words, without scripts."""

from __future__ import annotations

import html
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient

from app.registry.base_models import service as base_models
from app.registry.state import AppState
from app.registry.tables.added_models import RETIRED, BaseModel, ModelStatus
from app.web.playground.prompt import SHOWN
from tests import fake_workers
from tests.app.playground.test_pages import FRAGMENT, filled, renders_of
from tests.app.runs.test_pages import form_of
from worker.core.starter.subjects import known_subjects


def other_base(state: AppState) -> None:
    base = BaseModel(slug="sd15", name="SD 1.5", source=str(state.settings.data_dir))
    base.status, base.family, base.parameters = "ready", "sd1", {"unet": 859_520_964}
    with state.database.write() as session:
        session.add(base)


def choices(page: str) -> list[str]:
    return re.findall(r'name="insert" value="([^"]+)"', page)


def note(page: str) -> str:
    return page.partition('id="prompt-note"')[2].partition(">")[2].partition("<")[0]


def test_some_subjects_of_all_groups_are_offered_and_the_whole_list_is_linked(
    client: TestClient,
) -> None:
    page = client.get("/play").text
    assert len(choices(page)) == SHOWN
    groups = {known.name: known.group for known in known_subjects()}
    assert len({groups[name] for name in choices(page)}) == len(set(groups.values()))
    assert f"{len(groups)} subjects" in page
    everything = client.get("/base-models/1/subjects").text
    assert everything.count('class="chip" href="/play?base=starter') == len(groups)
    assert 'href="/base-models/1/subjects"' in page


def test_a_search_finds_subjects_and_keeps_all_that_was_typed(client: TestClient) -> None:
    sent = filled(client, "/play?prompt=castle&seed=7") | {"subject": "tree"}
    answer = client.post("/play/subjects", data=sent, follow_redirects=False)
    assert answer.status_code == 303
    fields = parse_qs(urlsplit(answer.headers["location"]).query)
    assert (fields["prompt"], fields["seed"], fields["subject"]) == (["castle"], ["7"], ["tree"])
    page = client.get(answer.headers["location"]).text
    assert choices(page)[0] == "deciduous tree"
    assert re.search(r'<details class="more" open>\s*<summary>What starter', page)
    fragment = client.post("/play/subjects", data=sent, headers=FRAGMENT).text
    assert choices(fragment) == choices(page)
    assert "<html" not in fragment


def test_a_search_without_a_hit_says_so(client: TestClient) -> None:
    sent = filled(client) | {"subject": "zorblax"}
    answer = client.post("/play/subjects", data=sent, headers=FRAGMENT).text
    assert "starter has no drawing of “zorblax”." in answer
    assert choices(answer) == []
    assert "no drawing of “zorblax”" in client.get("/base-models/1/subjects?q=zorblax").text


def test_the_syntax_of_a_prompt_is_no_unknown_word(client: TestClient) -> None:
    def told(prompt: str) -> str:
        return html.unescape(note(client.get("/play", params={"prompt": prompt}).text))

    assert told("(castle:1.2), [dark] background BREAK ((red)) \\(line\\)") == ""
    assert told("(zorblax:1.2) castle") == "starter does not know “zorblax”."
    lone = told("((castle")
    assert lone.startswith("“(” in the prompt has no counterpart and was read as text.")
    assert "does not know" not in lone


def test_a_chosen_subject_takes_the_place_of_the_first(client: TestClient) -> None:
    sent = filled(client, "/play?prompt=castle%2C+chalkboard+style") | {"insert": "rocket"}
    answer = client.post("/play/subjects", data=sent, follow_redirects=False)
    fields = parse_qs(urlsplit(answer.headers["location"]).query)
    assert fields["prompt"] == ["rocket, chalkboard style"]
    fragment = client.post("/play/subjects", data=sent, headers=FRAGMENT)
    assert "rocket, chalkboard style</textarea>" in fragment.text
    assert "The prompt starts with rocket." in fragment.text
    assert "prompt=rocket" in fragment.headers["hx-replace-url"]


def test_what_is_no_subject_is_not_put_into_the_prompt(client: TestClient) -> None:
    sent = filled(client, "/play?prompt=castle") | {"insert": "<b>zorblax"}
    answer = client.post("/play/subjects", data=sent, follow_redirects=False)
    assert parse_qs(urlsplit(answer.headers["location"]).query)["prompt"] == ["castle"]


def test_a_prompt_that_is_too_long_for_an_address_is_kept_in_the_page(client: TestClient) -> None:
    text = "castle, " + "x" * 20_000
    sent = filled(client) | {"prompt": text, "insert": "rocket"}
    page = client.post("/play/subjects", data=sent).text
    assert f"rocket, {'x' * 20_000}</textarea>" in page


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("castle", ""),
        ("", ""),
        ("castle, chalkboard style", "starter does not know “chalkboard”."),
        (
            "a lighthouse by the sea",
            "starter does not know “lighthouse”. The prompt names no subject that starter can "
            "draw: choose one from its list.",
        ),
        ("castles", "starter does not know “castles”. It knows “castle”. The prompt names no"),
        ("ein Schloss", "starter does not know “ein” and “Schloss”."),
        ("qa qb qc qd qe qf qg castle", "“qa”, “qb”, “qc”, “qd”, “qe” and 2 other words."),
    ],
)
def test_unknown_words_are_named_while_typing_and_nothing_is_blocked(
    client: TestClient, prompt: str, said: str
) -> None:
    sent = filled(client) | {"prompt": prompt}
    answer = client.post("/play/prompt", data=sent, headers=FRAGMENT).text
    assert said in answer
    assert bool(said) == bool(answer)
    assert note(client.get("/play", params={"prompt": prompt}).text) == answer
    if prompt:
        client.post("/play", data=sent)
        (render,) = renders_of(client.app.state.brushwork)  # type: ignore[attr-defined]
        assert note(client.get(f"/renders/{render.key}").text).strip() == answer


def test_the_trigger_word_of_an_adapter_in_use_is_known(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    sent = filled(client, "/play?adapter=chalk&prompt=castle%2C+chalkboard+style")
    assert client.post("/play/prompt", data=sent, headers=FRAGMENT).text == ""
    del sent["on-0"]
    assert "“chalkboard”" in client.post("/play/prompt", data=sent, headers=FRAGMENT).text


def test_after_an_update_the_subjects_are_those_of_the_base_that_is_embedded_now(
    client: TestClient, state: AppState
) -> None:
    other_base(state)
    with state.database.write() as session:
        replaced = session.get_one(BaseModel, 1)
        replaced.source, replaced.status = f"{RETIRED}0123456789ab", ModelStatus.REMOVED
        replaced.slug = "starter-1"
    with state.database.write() as session:
        embedded = base_models.ensure_embedded(session).key
    page = client.get("/play?prompt=zorblax").text
    assert f'href="/base-models/{embedded}/subjects"' in page
    assert "“zorblax”" in note(page)
    assert client.get("/api/v1/base-models/1/subjects").json() == []


def test_other_bases_have_no_list_and_no_note(client: TestClient, state: AppState) -> None:
    other_base(state)
    page = client.get("/play?base=sd15&prompt=zorblax").text
    assert (choices(page), note(page)) == ([], "")
    sent = filled(client, "/play?prompt=zorblax") | {"base": "sd15"}
    changed = client.post("/play/stack", data=sent, headers=FRAGMENT).text
    assert (choices(changed), note(changed)) == ([], "")
    back = client.post("/play/stack", data=sent | {"base": ""}, headers=FRAGMENT).text
    assert len(choices(back)) == SHOWN
    assert "“zorblax”" in note(back)
    answer = client.get("/base-models/2/subjects", headers={"accept": "text/html"})
    assert answer.status_code == 404
    assert "brings no list of subjects" in answer.text


def test_a_sample_prompt_of_a_run_with_unknown_words_is_named_beside_the_form(
    client: TestClient,
) -> None:
    client.post("/api/v1/datasets", json={"name": "Chalk", "trigger_word": "chalkboard"})
    sent = form_of(client.get("/train/new?dataset=chalk").text, "train-form")
    assert "starter does not know" not in client.post("/train/new/plan", data=sent).text
    sent["sample_prompts"] = "castle --w 64 --n quivell\nzorblax, chalkboard style --d 7"
    answer = client.post("/train/new/plan", data=sent).text
    assert "Sample “zorblax, chalkboard style”: starter does not know “zorblax”." in answer


def test_a_prompt_that_is_too_long_is_not_read_before_it_is_sent(
    client: TestClient, state: AppState
) -> None:
    sent = filled(client) | {"prompt": "(" * 40_000 + "x" + ")" * 40_000}
    assert client.post("/play/prompt", data=sent, headers=FRAGMENT).text == ""
    assert "use at most 2,000" in client.post("/play", data=sent, headers=FRAGMENT).text

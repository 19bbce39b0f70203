"""The playground and single results, as a browser without scripts gets them."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.base_models import service as base_models
from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.renders import service
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render
from tests import fake_workers
from tests.app.runs.test_pages import form_of

HTML = {"accept": "text/html"}
FRAGMENT = HTML | {"hx-request": "true"}


def renders_of(state: AppState) -> list[Render]:
    with state.database.read() as session:
        found = []
        for key in range(1, 20):
            try:
                found.append(service.get_render(session, key))
            except service.NotFound:
                break
        return found


def filled(client: TestClient, address: str = "/play") -> dict[str, str]:
    return form_of(client.get(address).text, "play-form")


def test_the_address_fills_the_form(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night")
    fields = filled(
        client,
        "/play?adapter=chalk:0.8&adapter=night%401:-0.5&prompt=a+castle&seed=7&steps=12"
        "&guidance=2.5&negative=blur",
    )
    assert fields["prompt"] == "a castle"
    assert fields["negative"] == "blur"
    assert (fields["seed"], fields["keep_seed"]) == ("7", "1")
    assert (fields["steps"], fields["guidance"]) == ("12", "2.5")
    assert (fields["adapter-0"], fields["weight-0"], fields["on-0"]) == ("chalk", "0.8", "1")
    assert (fields["adapter-1"], fields["weight-1"]) == ("night@1", "-0.5")


def test_a_drawing_without_scripts_leads_to_its_own_page_and_comes_with_its_twin(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    sent = filled(client, "/play?adapter=chalk:0.8&seed=7") | {"prompt": "a castle"}
    answer = client.post("/play", data=sent, follow_redirects=False)
    assert answer.status_code == 303
    twin, render = renders_of(state)
    assert answer.headers["location"] == f"/renders/{render.key}"
    assert (render.twin_id, render.seed, twin.seed, twin.adapters) == (twin.key, 7, 7, [])
    assert render.adapters[0]["weight"] == 0.8
    waiting = client.get(f"/renders/{render.key}").text
    assert f'hx-get="/renders/{render.key}/live?own=1"' in waiting
    fake_workers.draw(state)
    page = client.get(f"/renders/{render.key}").text
    assert 'hx-trigger="every' not in page.partition('id="result"')[2].partition(">")[0]
    assert "Without your style" in page
    assert page.count('class="comparison-side"') == 2
    assert "Download PNG" in page
    assert f'data-copy="http://localhost/renders/{render.key}"' in page


def test_a_result_can_be_used_again_to_the_last_setting(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    address = "/play?adapter=chalk:0.8&prompt=a+castle&seed=7&steps=9&guidance=2.5&negative=blur"
    address += "&clip_skip=2&sampler=DPM%2B%2B+2M+Karras"
    client.post("/play", data=filled(client, address))
    fake_workers.draw(state)
    page = client.get("/renders/2").text
    again = page.partition('class="button main" href="')[2].partition('"')[0].replace("&amp;", "&")
    fields = parse_qs(urlsplit(again).query)
    assert fields["adapter"] == ["chalk@1:0.8"]
    wanted = {"prompt": ["a castle"], "seed": ["7"], "steps": ["9"], "guidance": ["2.5"]}
    wanted |= {"clip_skip": ["2"], "sampler": ["dpmpp_2m_karras"]}
    assert "<dt>Sampler</dt><dd>DPM++ 2M Karras</dd>" in page
    assert {name: fields[name] for name in wanted} == wanted
    client.post("/play", data=filled(client, again))
    first, second = renders_of(state)[1], renders_of(state)[3]
    assert first.cache_key == second.cache_key


def is_size_open(client: TestClient, address: str) -> bool:
    before = client.get(address).text.partition("Size, CLIP skip and base model")[0]
    return before[before.rindex("<details") :].partition(">")[0].endswith(" open")


def test_sizes_are_folded_away_unless_they_are_unusual(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    with state.database.read() as session:
        base = base_models.find_base_model(session, None)
    side = base.resolution or USUAL_SIDE
    usual = f"/play?adapter=chalk&width={side}&height={side}&clip_skip=1&base={base.slug}"
    assert not is_size_open(client, "/play")
    assert not is_size_open(client, usual)  # as the address of a result has them
    for other in (f"width={2 * side}", f"height={2 * side}", "clip_skip=2", "base=gone"):
        assert is_size_open(client, f"{usual}&{other}")


def test_scripts_get_the_result_alone_and_the_seed_that_was_drawn(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    sent = filled(client, "/play?adapter=chalk") | {"prompt": "a castle"}
    answer = client.post("/play", data=sent, headers=FRAGMENT)
    render = renders_of(state)[1]
    assert answer.status_code == 200
    assert "<html" not in answer.text
    assert f'value="{render.seed}"' in answer.text
    assert f"seed={render.seed}" in answer.headers["hx-push-url"]
    assert "In line, starts in a moment" not in answer.text  # there is no worker, and it says so
    assert "No render worker is running" in answer.text
    assert "brushwork worker --queue render" in answer.text
    fake_workers.draw(state)
    done = client.get(f"/renders/{render.key}/live").text
    assert "hx-trigger" not in done
    assert 'id="earlier"' in done
    # asked for again, it is there at once: nothing is polled
    sent |= {"seed": str(render.seed), "keep_seed": "1"}
    cached = client.post("/play", data=sent, headers=FRAGMENT).text
    assert "hx-trigger" not in cached
    assert "from cache" in cached
    earlier = cached.partition('id="earlier"')[2]
    assert earlier.count("<img") == 1  # the same image, once
    assert f'href="/renders/{renders_of(state)[3].key}" title="a castle" aria-current' in earlier


def test_a_seed_that_is_not_kept_changes(client: TestClient, state: AppState) -> None:
    sent = filled(client) | {"prompt": "a castle", "seed": "7"}
    client.post("/play", data=sent)
    client.post("/play", data={name: sent[name] for name in sent if name != "keep_seed"})
    kept, free = renders_of(state)
    assert kept.seed == 7
    assert free.seed != 7


def test_several_images_are_shown_each_with_its_seed(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    address = "/play?adapter=chalk:0.8&prompt=a+castle&seed=7&count=3"
    answer = client.post("/play", data=filled(client, address), headers=FRAGMENT)
    assert "count=3" in answer.headers["hx-push-url"]
    (render,) = renders_of(state)  # they have no twin
    fake_workers.draw(state)
    page = client.get(f"/renders/{render.key}").text
    for seed in (7, 8, 9):
        assert f"seed={seed}&amp;" in page
        assert f">Seed {seed}</a>" in page
    assert 'href="/play?prompt=a+castle" data-recall="prompt"' in page
    assert 'href="/play?seed=7" data-recall="seed"' in page
    for count in ("", "0", "9", "x"):
        refused = client.post("/play", data=filled(client, address) | {"count": count})
        assert refused.status_code == 422
        assert 'id="count-error"' in refused.text


def test_an_address_shows_what_was_generated_for_it(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    address = "/play?adapter=chalk:0.8&prompt=a+castle&seed=7"
    fake_workers.measured_base(state)
    client.post("/play", data=filled(client, address))
    fake_workers.draw(state)
    client.post("/play", data=filled(client, address))  # it knows the precision now
    fake_workers.draw(state)
    shown = client.get(address).text
    assert "Chalk 0.80" in shown
    assert shown.count("comparison-side") == 2
    for other in ("&steps=21", "&seed=8", "&seed=x", "&adapter=gone"):
        assert "Chalk 0.80" not in client.get(address + other).text


def test_a_deleted_result_goes_from_the_playground_and_can_be_undone(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    fake_workers.measured_base(state)
    address = "/play?adapter=chalk&prompt=a+castle&seed=7"
    client.post("/play", data=filled(client, address))
    fake_workers.draw(state)
    client.post("/play", data=filled(client, address))  # it knows the precision now
    fake_workers.draw(state)
    sent = form_of(client.get(address).text, "delete-render")
    gone = client.post("/renders/delete", data=sent, headers=HTML)
    assert gone.url.path == "/play"
    assert "Your image appears here" in gone.text
    assert filled(client, str(gone.url))["prompt"] == "a castle"
    back = client.post("/renders/restore", data=form_of(gone.text, "toasts"), headers=HTML)
    assert back.url.path == "/play"
    assert "Without your style" in back.text
    assert "The image was deleted." in gone.text
    for address in (str(back.url), str(gone.url)):  # as with the Back button
        assert "The image was deleted." not in client.get(address).text


def test_each_wrong_field_is_kept_and_has_its_error_beside_it(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night")
    sent = filled(client, "/play?adapter=chalk:abc&adapter=night:99") | {
        "prompt": "p" * 5_000,
        "steps": "many",
        "guidance": "",
        "seed": "-3",
        "keep_seed": "1",
        "width": "33",
        "sampler": "magic",
    }
    answer = client.post("/play", data=sent)
    page = answer.text
    assert answer.status_code == 422
    assert renders_of(state) == []
    kept = form_of(page, "play-form")
    assert (kept["weight-0"], kept["steps"], kept["seed"]) == ("abc", "many", "-3")
    assert kept["prompt"] == "p" * 5_000
    for place, reason in (
        ("weight-0", "Enter a number."),
        ("weight-1", "The weight must be between −10 and 10."),
        ("prompt", "This has 5,000 characters; use at most 2,000."),
        ("steps", "Enter a whole number."),
        ("seed", "At least 0."),
        ("sampler", "There is no sampler “magic”; DDIM is chosen."),
    ):
        error = page.partition(f'id="{place}-error"')[2].partition("</p>")[0]
        assert reason in error, (place, error)
    fragment = client.post("/play", data=sent, headers=FRAGMENT)
    assert fragment.status_code == 422
    assert fragment.headers["hx-retarget"] == "#play-form"


@pytest.mark.parametrize("weight", ["nan", "inf", "1e999", "", "--1"])
def test_a_weight_that_is_no_number_is_refused(
    client: TestClient, state: AppState, weight: str
) -> None:
    fake_workers.adapter(state)
    sent = filled(client, "/play?adapter=chalk:1") | {"prompt": "x", "weight-0": weight}
    answer = client.post("/play", data=sent)
    assert answer.status_code == 422
    assert "Enter a number." in answer.text


def test_an_empty_prompt_and_a_deleted_adapter_are_named(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    sent = filled(client, "/play?adapter=chalk:1") | {"prompt": ""}
    assert "This cannot be empty." in client.post("/play", data=sent).text
    client.post(f"/adapters/{adapter.slug}/delete")
    answer = client.post("/play", data=sent | {"prompt": "x"})
    assert answer.status_code == 422
    assert answer.text.count("was deleted. You can restore it on the page of deleted adapters") == 1
    assert client.get("/play?adapter=chalk:1").status_code == 200


def test_too_many_adapters_are_refused_in_the_summary(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    address = "/play?prompt=x&" + "&".join(["adapter=chalk"] * 40)
    answer = client.post("/play", data=filled(client, address))
    assert answer.status_code == 422
    told = answer.text.partition("Nothing was generated.")[2].partition("</div>")[0]
    assert "At most 8 adapters can be combined." in told
    assert answer.text.count("+ chalkboard<") == 1


def test_an_adapter_that_is_switched_off_does_not_draw(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    sent = filled(client, "/play?adapter=chalk:1") | {"prompt": "x"}
    del sent["on-0"]
    client.post("/play", data=sent)
    (render,) = renders_of(state)
    assert render.adapters == []


def test_the_stack_changes_without_scripts_and_keeps_what_was_typed(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night")
    sent = filled(client, "/play?adapter=chalk:0.3") | {"prompt": "half a thought", "add": "night"}
    added = client.post("/play/stack", data=sent)
    fields = form_of(added.text, "play-form")
    assert (fields["adapter-0"], fields["weight-0"]) == ("chalk", "0.3")
    assert (fields["adapter-1"], fields["weight-1"]) == ("night", "1")
    assert fields["prompt"] == "half a thought, chalkboard"
    removed = client.post("/play/stack", data=fields | {"drop": "0"}, headers=FRAGMENT)
    assert 'name="adapter-0" value="night"' in removed.text
    assert "adapter-1" not in removed.text
    assert "+ chalkboard" in removed.text
    far = client.post("/play/stack", data=fields | {"drop": "9" * 5_000}, headers=FRAGMENT)
    assert far.status_code == 200


@pytest.fixture
def many(state: AppState) -> None:
    """More adapters than a page shows; “Moss” and “Fern” are the oldest."""
    with state.database.write() as session:
        for name in ("Moss", "Fern", *(f"Style {number}" for number in range(25))):
            words = ["mossy green"] if name == "Moss" else []
            new = NewVersion(name, "sd1", "a" * 64, 5, 8, 8.0, trigger_words=words, base_model_id=1)
            publish(session, new)


def test_a_trigger_word_comes_and_goes_with_its_adapter(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night", trigger_word="nightboard")
    fake_workers.adapter(state, "Slate")  # with the trigger word of Chalk

    def prompt(text: str, adapters: str = "", **change: str) -> str:
        sent = filled(client, f"/play?{adapters}") | {"prompt": text} | change
        page = client.post("/play/stack", data=sent)
        fragment = client.post("/play/stack", data=sent, headers=FRAGMENT).text
        typed = str(form_of(page.text, "play-form")["prompt"])
        assert ('id="prompt-field" hx-swap-oob' in fragment) == (typed != text)
        return typed

    assert prompt("a fox", add="chalk") == "a fox, chalkboard"
    assert prompt("", add="chalk") == "chalkboard"
    assert prompt("a Chalkboard fox", add="chalk") == "a Chalkboard fox"
    assert prompt("a fox, chalkboard", "adapter=chalk", drop="0") == "a fox"
    assert prompt("a fox, the chalkboard", "adapter=chalk", drop="0") == "a fox, the chalkboard"
    two = "adapter=chalk&adapter=slate"
    assert prompt("a fox, chalkboard", two, drop="0") == "a fox, chalkboard"
    assert prompt("a fox, chalkboard", "adapter=chalk", add="night") == (
        "a fox, chalkboard, nightboard"
    )


def test_a_prompt_that_lacks_a_trigger_word_says_so_with_a_button_that_adds_it(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    sent = filled(client, "/play?adapter=chalk") | {"prompt": "a fox"}
    lacks = "The prompt lacks “chalkboard”"
    note = client.post("/play/prompt", data=sent, headers=FRAGMENT).text
    assert lacks in note
    assert 'data-insert="chalkboard"' in note
    assert lacks in client.get("/play?adapter=chalk&prompt=a+fox").text
    for text in ("", "a fox, Chalkboard"):
        assert lacks not in client.post("/play/prompt", data=sent | {"prompt": text}).text
    del sent["on-0"]
    assert lacks not in client.post("/play/prompt", data=sent).text


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("words", ["moss", "GREEN", "mos"])
def test_any_adapter_is_found_by_its_name_or_trigger_word(client: TestClient, words: str) -> None:
    page = client.get("/play").text
    assert 'name="add" value="style-24"' in page
    assert 'value="moss"' not in page
    assert "The 24 newest. Search for others." in page
    sent = form_of(page, "play-form") | {"find": words}
    found = client.post("/play/stack/find", data=sent, headers=FRAGMENT).text
    assert "<html" not in found
    assert found.count('name="add"') == 1
    assert 'name="add" value="moss"' in found
    for shown in ("<strong>Moss</strong>", "version 1, SD 1.x", "mossy green"):
        assert shown in found
    assert 'id="add-told" role="status" hx-swap-oob="innerHTML">1 adapter found.' in found
    stack = client.post("/play/stack", data=sent | {"add": "moss"}, headers=FRAGMENT).text
    assert 'name="adapter-0" value="moss"' in stack
    assert 'name="find" value=""' in stack
    used = client.post("/play/stack/find", data=sent | {"adapter-0": "moss"}, headers=FRAGMENT)
    assert "All results are already in use." in used.text


@pytest.mark.usefixtures("many")
def test_adapters_are_found_without_scripts_too(client: TestClient) -> None:
    sent = filled(client, "/play?adapter=style-1:0.3") | {"prompt": "half a thought"}
    page = client.post("/play/stack", data=sent | {"find": "fer"})
    fields = form_of(page.text, "play-form")
    assert (fields["find"], fields["prompt"], fields["adapter-0"]) == (
        "fer",
        "half a thought",
        "style-1",
    )
    assert 'name="add" value="fern"' in page.text
    exact = client.post("/play/stack", data=sent | {"find": "fern@1"})
    fields = form_of(exact.text, "play-form")
    assert (fields["adapter-1"], fields["find"]) == ("fern@1", "")
    dropped = client.post("/play/stack", data=sent | {"find": "fern", "drop": "0"})
    assert "adapter-0" not in form_of(dropped.text, "play-form")
    none = client.post("/play/stack", data=sent | {"find": "<b>"})
    assert "No adapter has “&lt;b&gt;” in its name" in none.text


def test_the_picker_shows_an_adapter_and_adds_one_of_its_versions(
    client: TestClient, state: AppState
) -> None:
    assert "Train a style" in client.get("/play").text
    adapter = fake_workers.adapter(state)
    assert 'name="version-chalk"' not in client.get("/play").text  # there is one version only
    with state.database.write() as session:
        for number in range(25):
            new = NewVersion("Chalk", "sd1", f"{number:064}", 5, 8, 8.0, base_model_id=1)
            version = publish(session, new, adapter_id=adapter.key)
            if number == 1:
                aliases.set_alias(session, version, "best")
        cover = "c" * 64
        session.get_one(Adapter, adapter.key).cover_sha256 = cover
    page = client.get("/play").text
    for shown in (f"/media/{cover}/small", "version 26, SD 1.x", "chalkboard"):
        assert shown in page.partition('id="add-choices"')[2]
    versions = page.partition('name="version-chalk"')[2].partition("</select>")[0]
    assert '<option value="best">best, version 3</option>' in versions
    assert versions.count("<option") == 22  # the newest 20, those in use and “best”
    sent = form_of(page, "play-form") | {"prompt": "x"}
    for named, reference in (("", "chalk"), ("best", "chalk@best"), ("26", "chalk@26")):
        added = client.post(
            "/play/stack",
            data=sent | {"add": "chalk", "version-chalk": named},
            headers=FRAGMENT,
        ).text
        assert f'<option value="{reference}" selected>' in added
        assert "Chalk is added with weight 1. The prompt is now “x, chalkboard”.</p>" in added
    dropped = client.post(
        "/play/stack", data=sent | {"adapter-0": "chalk", "drop": "0"}, headers=FRAGMENT
    )
    assert "Chalk is removed.</p>" in dropped.text


def test_a_row_of_the_stack_takes_another_version(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    assert form_of(client.get("/play?adapter=chalk").text, "play-form")["adapter-0"] == "chalk"
    with state.database.write() as session:
        for number in range(25):
            new = NewVersion("Chalk", "sd1", f"{number:064}", 5, 8, 8.0, base_model_id=1)
            version = publish(session, new, adapter_id=adapter.key)
            if number == 1:
                aliases.set_alias(session, version, "best")
    page = client.get("/play?adapter=chalk@2:0.4").text
    names = page.partition('aria-label="Version of Chalk"')[2].partition("</select>")[0]
    assert '<option value="chalk">version 26, in use</option>' in names
    assert '<option value="chalk@best">best, version 3</option>' in names
    assert '<option value="chalk@2" selected>version 2</option>' in names  # not of the newest 20
    sent = form_of(page, "play-form") | {"adapter-0": "chalk@best"}
    changed = client.post("/play/stack", data=sent | {"chosen": "0"}, headers=FRAGMENT)
    assert "Chalk, version 3, is in the stack.</p>" in changed.text
    assert changed.headers["hx-replace-url"] == "/play?adapter=chalk%40best%3A0.4"
    for place in ("1", "x", "9" * 5_000):
        again = client.post("/play/stack", data=sent | {"chosen": place}, headers=FRAGMENT)
        assert "is in the stack" not in again.text
    client.post("/play", data=sent | {"prompt": "x"})  # without scripts, with no request before
    assert [(used.version, used.weight) for used in renders_of(state)[1].stack] == [(3, 0.4)]


def test_a_blend_stays_chosen_and_what_is_shown_is_rendered(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    fake_workers.adapter(state, "Night")
    assert 'name="mix"' not in client.get("/play?adapter=chalk").text
    sent = filled(client, "/play?adapter=chalk:0.5&adapter=night:0.25&mix=blend") | {"prompt": "x"}
    assert sent["mix"] == "blend"
    for place in (0, 1):  # a script has removed these
        del sent[f"held-{place}"]
    answer = client.post("/play", data=sent | {"weight-1": "0.3"}, headers=FRAGMENT)
    assert "mix=blend" in answer.headers["hx-push-url"]
    assert [used.weight for used in renders_of(state)[1].stack] == [0.5, 0.3]
    removed = client.post("/play/stack", data=sent | {"drop": "1"}, headers=FRAGMENT).text
    assert '<input type="hidden" name="mix" value="blend">' in removed
    twice = sent | {"adapter-1": "chalk", "drop": "1", "mix": "x" * 900_000}
    assert 'name="mix"' not in client.post("/play/stack", data=twice, headers=FRAGMENT).text


def test_the_text_encoder_has_a_weight_of_its_own(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    with state.database.write() as session:
        publish(session, NewVersion("Real", "sd1", "a" * 64, 5, 8, 8.0, base_model_id=1))
    address = "/play?adapter=real:0.8:0.5&adapter=chalk:0.3&prompt=x&seed=7"
    page = client.get(address).text
    sent = form_of(page, "play-form")
    assert (sent["weight-0"], sent["text-weight-0"]) == ("0.8", "0.5")
    assert "text-weight-1" not in sent  # “Chalk” was trained without it
    answer = client.post("/play", data=sent, headers=FRAGMENT)
    assert "adapter=real%3A0.8%3A0.5&adapter=chalk%3A0.3&" in answer.headers["hx-push-url"]
    _, render = renders_of(state)
    assert [used.weights for used in render.stack] == [(0.8, 0.5), (0.3, 0.3)]
    assert "adapter=real%401%3A0.8%3A0.5" in client.get(f"/renders/{render.key}").text
    client.post("/play", data=sent | {"text-weight-0": ""})
    assert renders_of(state)[3].stack[0].weights == (0.8, 0.8)
    for text, reason in (("nan", "Enter a number."), ("1e9", "between −10 and 10")):
        refused = client.post("/play", data=sent | {"text-weight-0": text, "weight-1": "x"})
        assert refused.status_code == 422
        assert reason in refused.text.partition('id="text-weight-0-error"')[2][:300]
        assert 'id="weight-1-error"' in refused.text
        assert form_of(refused.text, "play-form")["text-weight-0"] == text
    usual = filled(client, "/play?adapter=real::0.5")
    assert (usual["weight-0"], usual["text-weight-0"]) == ("1", "0.5")


def test_blocks_of_the_unet_have_factors_of_their_own(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    sent = filled(client, "/play?adapter=chalk:0.8::0.5 1 0&prompt=x&seed=7")
    fields = [f"block-0-{name}" for name in ("input", "middle", "output")]
    assert [sent[field] for field in fields] == ["0.5", "1", "0"]
    answer = client.post("/play", data=sent, headers=FRAGMENT)
    assert "?adapter=chalk%3A0.8%3A%3A0.5+1+0&" in answer.headers["hx-push-url"]
    _, render = renders_of(state)
    assert render.adapters[0]["block_weights"] == {"input": 0.5, "middle": 1.0, "output": 0.0}
    assert "adapter=chalk%401%3A0.8%3A%3A0.5+1+0" in client.get(f"/renders/{render.key}").text
    plain = client.post("/play", data=sent | dict.fromkeys(fields, "1,0"), headers=FRAGMENT)
    assert "?adapter=chalk%3A0.8&" in plain.headers["hx-push-url"]
    assert "block_weights" not in renders_of(state)[3].adapters[0]
    for text, reason in (("nan", "Enter a number."), ("1e9", "between −10 and 10")):
        refused = client.post("/play", data=sent | {"block-0-middle": text})
        assert refused.status_code == 422
        assert reason in refused.text.partition('id="block-0-middle-error"')[2][:300]
        assert form_of(refused.text, "play-form")["block-0-middle"] == text
    odd = filled(client, "/play?adapter=chalk:::0.5&adapter=gone:1::1 2 3 4 5:6")
    assert [odd[field] for field in fields] == ["0.5", "1", "1"]
    assert [odd[f"block-1-{name}"] for name in ("input", "output")] == ["1", "3"]


def test_cancel_ends_the_picture_and_its_twin_and_twice_is_no_mistake(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    client.post("/play", data=filled(client, "/play?adapter=chalk:1") | {"prompt": "x"})
    for headers in (HTML, FRAGMENT, HTML):
        assert client.post("/renders/2/cancel", headers=headers).status_code == 200
    assert [render.status for render in renders_of(state)] == ["canceled", "canceled"]
    assert "Canceled" in client.get("/renders/2").text


def test_a_render_that_is_not_there_says_so(client: TestClient) -> None:
    assert client.get("/renders/7", headers=HTML).status_code == 404
    assert client.post("/renders/7/cancel", headers=HTML).status_code == 404


def test_strange_addresses_are_no_server_error(client: TestClient) -> None:
    numbers = ("seed=abc", "steps=", "sampler=x")
    for query in ("adapter=", "adapter=:", "adapter=x@999999999999:1", *numbers):
        assert client.get(f"/play?{query}").status_code == 200


def test_a_sampler_or_base_that_is_not_in_the_list_is_named(client: TestClient) -> None:
    for path in ("/play", "/grids/new"):
        page = client.get(f"{path}?prompt=x&sampler=heun&base=gone", headers=HTML).text
        assert "There is no sampler “heun”; DDIM is chosen." in page
    page = client.get("/play?prompt=x&sampler=heun&base=gone", headers=HTML).text
    assert "There is no base model “gone” here; that of the adapter is chosen." in page
    first = page.partition('<select id="sampler"')[2].partition("</option>")[0]
    assert 'value="ddim"' in first  # which a browser chooses, as no other one is selected
    sent = form_of(page, "play-form") | {"sampler": "ddim"}
    assert client.post("/play", data=sent, follow_redirects=False).status_code == 303


@pytest.fixture
def real(state: AppState) -> None:
    """“Real”, imported for SD 1.x, beside “Chalk” of the embedded base."""
    fake_workers.adapter(state, "Chalk")
    with state.database.write() as session:
        publish(session, NewVersion("Real", "sd1", "a" * 64, 5, 8, 8.0))


def add_sd15(state: AppState) -> None:
    with state.database.write() as session:
        base = BaseModel(slug="sd15", name="SD 1.5", source=str(state.settings.data_dir))
        base.status, base.family, base.parameters = "ready", "sd1", {"unet": 859_520_964}
        session.add(base)


def assert_unfit(page: str, name: str, made_for: str) -> None:
    others = page.partition("For another base model")[2]
    shown = others.partition(f"<strong>{name}</strong>")[2].partition("</li>")[0]
    assert f"for {made_for}" in shown
    assert "<button" not in others.partition("</ul>")[0]


@pytest.mark.usefixtures("real")
def test_what_does_not_fit_the_base_cannot_be_added(client: TestClient, state: AppState) -> None:
    page = client.get("/play").text
    assert 'name="add" value="real"' in page  # no base is chosen: it follows the adapter
    assert 'name="add" value="chalk"' in page
    for address in ("/play?base=starter", "/play?adapter=chalk:1"):
        page = client.get(address).text
        assert_unfit(page, "Real", "SD 1.x")
        assert 'name="add" value="real"' not in page
    sent = form_of(page, "play-form") | {"find": "real"}
    found = client.post("/play/stack/find", data=sent, headers=FRAGMENT).text
    assert_unfit(found, "Real", "SD 1.x")
    assert "0 adapters found for this base model, 1 for others." in found
    add_sd15(state)
    page = client.get("/play?base=sd15").text
    assert_unfit(page, "Chalk", "“starter”")
    assert 'name="add" value="real"' in page


@pytest.mark.usefixtures("real")
def test_another_base_marks_what_does_not_fit_at_once(client: TestClient, state: AppState) -> None:
    add_sd15(state)
    sentence = "“Chalk” was made for “starter” and does not fit “SD 1.5”. It fits “starter”."
    sent = filled(client, "/play?adapter=chalk:0.3") | {"prompt": "x"}
    marked = client.post(
        "/play/stack", data=sent | {"base": "sd15", "find": "real"}, headers=FRAGMENT
    )
    assert marked.headers["hx-replace-url"].startswith("/play?adapter=chalk%3A0.3")
    assert f"{sentence}</p>" in marked.text
    assert "adapter-1" not in marked.text  # a name that stands in the search is not added by it
    told = marked.text.partition('id="base-told"')[2].partition("</p>")[0]
    assert "1 adapter above does not fit." in told
    back = client.post("/play/stack", data=sent | {"base": "starter"}, headers=FRAGMENT)
    assert "does not fit" not in back.text
    for headers in (HTML, FRAGMENT):
        refused = client.post("/play", data=sent | {"base": "sd15"}, headers=headers)
        assert refused.status_code == 422
        assert refused.text.count(sentence) == 1
        assert "Correct the marked fields below." in refused.text
    assert renders_of(state) == []
    off = {name: text for name, text in sent.items() if name != "on-0"}
    assert client.post("/play", data=off | {"base": "sd15"}).status_code == 200


@pytest.mark.usefixtures("real")
def test_an_imported_adapter_is_drawn_with_a_base_it_fits(
    client: TestClient, state: AppState
) -> None:
    alone = client.get("/play?adapter=real:1").text
    assert "No base model here fits it. Add one on the base models page." in alone
    add_sd15(state)
    client.post("/play", data=filled(client, "/play?adapter=real:1") | {"prompt": "x"})
    assert {render.base_model_id for render in renders_of(state)} == {2}


def test_when_none_of_the_newest_fits_those_of_the_family_are_offered(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state, "Chalk")
    with state.database.write() as session:
        for number in range(25):
            publish(session, NewVersion(f"Large {number}", "sdxl", "a" * 64, 5, 8, 8.0))
    page = client.get("/play?base=starter").text
    assert 'name="add" value="chalk"' in page
    assert 'name="find"' in page


def test_block_weights_are_saved_as_a_new_version(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    sent = filled(client, "/play?adapter=chalk:0.8::0.5 1 0") | {"place": "0"}
    saved = client.post("/play/blocks", data=sent, headers=FRAGMENT).text
    with state.database.read() as session:
        job = session.exec(select(IoJob).where(IoJob.kind == "scale_adapter")).one()
    assert job.args == {"blocks": {"input": 0.5, "middle": 1.0, "output": 0.0}}
    assert f'href="/adapters/chalk/tools?job={job.key}"' in saved
    plain = client.post("/play/blocks", data=sent, follow_redirects=False)
    assert plain.headers["location"].startswith("/adapters/chalk/tools?job=")
    for change, sentence in (
        ({"block-0-input": "x"}, "Enter a number."),
        ({"block-0-input": "1", "block-0-output": "1"}, "changes nothing"),
        ({"place": "7"}, "is not in the stack any more"),
    ):
        assert sentence in client.post("/play/blocks", data=sent | change, headers=FRAGMENT).text

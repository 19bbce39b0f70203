"""The pages of runs, as a browser without scripts gets them."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlmodel import col, select

from app.registry.datasets import service as datasets
from app.registry.jobs import service as jobs
from app.registry.runs import progress, requests
from app.registry.state import AppState
from app.registry.tables.datasets import DatasetVersion
from app.registry.tables.runs import WARNING, Checkpoint, Run
from app.registry.wording import size_text
from app.web.runs import plan
from app.web.runs.forms import SEARCH_TERMS
from tests import fake_workers
from tests.claims import claim
from tests.conftest import embedded_info
from worker.core.training.config import TrainConfig
from worker.core.training.presets import Preset, preset_config

HTML = {"accept": "text/html"}


def form_of(page: str, form_id: str = "train-form") -> dict[str, str]:
    """The fields of a form as a browser would send them back unchanged."""
    form = page[page.index(f'id="{form_id}"') :]
    form = form[: form.index("</form>")]
    fields = {}
    for tag in re.findall(r"<input[^>]*>", form):
        name, value = attribute(tag, "name"), attribute(tag, "value")
        kind = attribute(tag, "type")
        if name and (kind not in ("radio", "checkbox") or " checked" in tag):
            fields[name] = value
    for name, content in re.findall(
        r'<textarea[^>]* name="([^"]+)"[^>]*>\n?(.*?)</textarea>', form, re.S
    ):
        fields[name] = html.unescape(content)
    for name, content in re.findall(r'<select[^>]* name="([^"]+)"[^>]*>(.*?)</select>', form, re.S):
        chosen = re.search(r'<option value="([^"]*)"[^>]*selected', content)
        fields[name] = html.unescape(chosen[1]) if chosen else ""
    return fields


def attribute(tag: str, name: str) -> str:
    found = re.search(rf'\s{name}="([^"]*)"', tag)
    return html.unescape(found[1]) if found else ""


def runs_of(state: AppState) -> list[Run]:
    with state.database.read() as session:
        return list(session.exec(select(Run).order_by(col(Run.id).desc())))


def test_without_a_dataset_the_form_leads_to_datasets(client: TestClient) -> None:
    page = client.get("/train/new").text
    assert "No dataset yet" in page
    assert 'href="/datasets"' in page


def test_the_form_sent_unchanged_trains_exactly_the_preset(
    client: TestClient, state: AppState
) -> None:
    dataset = fake_workers.dataset(state, pictures=24)
    quick = fake_workers.embedded_preset(Preset.QUICK)
    page = client.get(f"/train/new?dataset={dataset.slug}&preset=quick")
    answer = client.post("/train/new", data=form_of(page.text), follow_redirects=False)
    (run,) = runs_of(state)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/runs/{run.key}"
    assert (run.name, run.preset, run.total_steps) == ("Chalk", "quick", quick.steps)
    prompts = {"sample_prompts"}  # with the trigger word of the dataset
    assert TrainConfig(**run.config).model_dump(exclude=prompts) == quick.model_dump(
        exclude=prompts
    )
    assert run.config["sample_prompts"][0] == "castle, chalkboard style"


def test_a_form_reads_each_preset_once(
    client: TestClient, state: AppState, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_workers.ready_base(state)
    fake_workers.dataset(state)
    shown: list[Preset] = []
    checked: list[Preset] = []
    for module, read in ((plan, shown), (requests, checked)):

        def counted(preset: Preset, *, read: list[Preset] = read, **facts: Any) -> TrainConfig:
            read.append(preset)
            return preset_config(preset, **facts)

        monkeypatch.setattr(module, "preset_config", counted)
    form = form_of(client.get("/train/new?preset=quick").text)
    assert (shown, checked) == (list(Preset), [Preset.QUICK])
    for address in ("/train/new/plan?part=fields", "/train/new/paste"):
        shown.clear()
        client.post(address, data=form | {"pasted": '{"rank": 3}'})
        assert shown == list(Preset)


def test_choosing_another_preset_without_scripts_keeps_only_what_was_changed(
    client: TestClient, state: AppState
) -> None:
    fake_workers.dataset(state)
    shown = form_of(client.get("/train/new?preset=quick").text)
    client.post("/train/new", data=shown | {"preset": "thorough", "alpha": "2"})
    (run,) = runs_of(state)
    preset = fake_workers.embedded_preset(Preset.THOROUGH)
    assert (run.total_steps, run.config["rank"]) == (preset.steps, preset.rank)
    assert run.config["alpha"] == 2.0 != preset.alpha


def test_a_changed_value_stays_when_a_preset_between_has_the_same(
    client: TestClient, state: AppState
) -> None:
    fake_workers.dataset(state)
    quick, thorough = map(fake_workers.embedded_preset, (Preset.QUICK, Preset.THOROUGH))
    fields = form_of(client.get("/train/new?preset=quick").text)
    fields |= {"preset": "thorough", "steps": str(thorough.steps)}
    for preset in ("thorough", "quick"):
        plan = client.post("/train/new/plan?part=fields", data=fields | {"preset": preset}).text
        fields |= form_of(f'<form id="train-form">{plan}</form>')
    assert fields["steps"] == str(thorough.steps) != str(quick.steps)
    assert "What you changed is kept when you choose another preset: Steps." in plan
    back = fields | {"steps": str(quick.steps)}
    client.post("/train/new", data=back | {"preset": "quick"})
    assert runs_of(state)[0].total_steps == quick.steps


def test_settings_are_found_by_the_names_of_other_programs(
    client: TestClient, state: AppState
) -> None:
    fake_workers.dataset(state)
    assert set(SEARCH_TERMS) <= set(TrainConfig.model_fields)
    page = client.get("/train/new").text
    terms = re.search(
        r'data-terms="([^"]*)"[^>]*>\s*<div class="label-line row"><label for="rank"', page
    )
    assert "network_dim" in terms[1].split()  # type: ignore[index]


def test_a_switch_that_is_off_is_off(client: TestClient, state: AppState) -> None:
    fake_workers.dataset(state)
    shown = form_of(client.get("/train/new").text)
    assert shown.pop("aspect_buckets") == "on"
    client.post("/train/new", data=shown)
    assert runs_of(state)[0].config["aspect_buckets"] is False


def test_wrong_settings_come_back_beside_their_fields_with_what_was_typed(
    client: TestClient, state: AppState
) -> None:
    fake_workers.dataset(state)
    sent = form_of(client.get("/train/new").text) | {
        "name": "x" * 130,
        "rank": "eight",
        "learning_rate": "-1",
        "sample_prompts": "a cat\n" + "y" * 1_200,
    }
    answer = client.post("/train/new", data=sent)
    page = answer.text
    assert answer.status_code == 422
    assert form_of(page)["rank"] == "eight"
    assert form_of(page)["name"] == "x" * 130
    assert form_of(page)["sample_prompts"].endswith("y" * 1_200)
    assert "This has 130 characters; use at most 120." in page
    assert re.search(r'id="rank-error"[^>]*>.*?Enter a whole number\.</p>', page, re.S)
    assert "More than 0." in page
    assert "This has 1,200 characters; use at most 1,000." in page
    for name in ("name", "rank", "learning_rate", "sample_prompts"):
        assert re.search(
            rf'id="{name}"[^>]*aria-invalid="true"|aria-invalid="true"[^>]*id="{name}"', page
        )
        assert f'<a href="#{name}" data-field-link>' in page  # the summary on top
    assert re.search(r'<details class="panel advanced"[^>]* open', page)
    opened = re.findall(r'<details class="settings-group" id="settings-(\w+)"[^>]* open', page)
    assert opened == ["length", "adapter", "learning"]
    assert runs_of(state) == []


def test_an_empty_dataset_and_a_missing_base_are_named(client: TestClient, state: AppState) -> None:
    empty = fake_workers.dataset(state, pictures=0)
    sent = form_of(client.get(f"/train/new?dataset={empty.slug}&base=sd-9").text)
    answer = client.post("/train/new", data=sent)
    assert answer.status_code == 422
    assert "has no images yet. Add some, then train." in answer.text or "sd-9" in answer.text
    sent = form_of(client.get(f"/train/new?dataset={empty.slug}").text)
    answer = client.post("/train/new", data=sent)
    assert answer.status_code == 422
    assert "“Chalk” has no images yet. Add some, then train." in answer.text


def test_pictures_without_caption_and_datasets_without_pictures_are_told_before_the_start(
    client: TestClient, state: AppState
) -> None:
    full = fake_workers.dataset(state, pictures=3)
    assert "no caption" not in client.get(f"/train/new?dataset={full.slug}").text
    with state.database.write() as session:
        image = datasets.list_images(session, full.key)[0]
        datasets.caption_image(session, image.key, "")
    page = client.get(f"/train/new?dataset={full.slug}").text
    assert "1 image has no caption. " in page
    assert f'href="/datasets/{full.slug}?show=uncaptioned"' in page
    empty = fake_workers.dataset(state, name="Bare", pictures=0)
    page = client.get(f"/train/new?dataset={empty.slug}").text
    assert "“Bare” has no images yet." in page
    assert f'<a href="/datasets/{empty.slug}">Add images</a>' in page


def test_a_form_that_lost_its_dataset_says_so(client: TestClient, state: AppState) -> None:
    fake_workers.dataset(state)
    sent = form_of(client.get("/train/new").text) | {"dataset_id": "999"}
    answer = client.post("/train/new", data=sent)
    assert answer.status_code == 422
    assert "This dataset does not exist" in answer.text


def test_a_form_of_nothing_is_no_server_error(client: TestClient, state: AppState) -> None:
    fake_workers.dataset(state)
    for body in ({}, {"shown": "{"}, {"shown": "[1]"}, {"dataset_id": "9" * 40, "preset": "x"}):
        assert client.post("/train/new", data=body).status_code == 422
        assert client.post("/train/new/plan?part=fields", data=body).status_code == 200


def test_the_plan_follows_the_settings(client: TestClient, state: AppState) -> None:
    fake_workers.measured_base(state)
    fake_workers.dataset(state, pictures=24)
    shown = form_of(client.get("/train/new").text)
    plan = client.post("/train/new/plan", data=shown | {"steps": "300", "rank": "16"}).text
    assert "<dt>Steps</dt><dd>300</dd>" in plan
    assert "Each image is seen 120 times." in plan
    assert "562,000 of 19.3 M" in plan
    assert "2 changed" in plan
    assert "data-poll" not in plan.partition("<dl")[0]  # measured: no need to ask again
    wrong = client.post("/train/new/plan", data=shown | {"rank": "0"}).text
    link = '<a href="#rank" data-field-link>Rank</a>'
    assert f"1 setting has an error ({link}); the estimate ignores it." in wrong


def test_the_form_says_how_many_images_an_evaluation_holds_out(
    client: TestClient, state: AppState
) -> None:
    dataset = fake_workers.dataset(state, pictures=24)
    address, said = f"/train/new?dataset={dataset.slug}", "images are held out and not trained on."
    page = client.get(address).text
    shown = form_of(page)
    assert (shown["evaluate"], shown["validation_share"]) == ("on", "0.167")
    assert f"4 of 24 {said}" in page
    plan = client.post("/train/new/plan", data=shown | {"validation_share": "0.5"}).text
    assert f"12 of 24 {said}" in plan
    unticked = {name: text for name, text in shown.items() if name != "evaluate"}
    plan = client.post("/train/new/plan?part=fields", data=unticked).text
    assert "held out" not in plan.partition("</section>")[0]
    again = form_of(f'<form id="train-form">{plan}</form>')
    assert ("evaluate" in again, again["validation_share"]) == (False, "0")
    for sent in (unticked, unticked | again):
        client.post("/train/new", data=sent)
        config = runs_of(state)[0].config
        assert (config["evaluate"], config["validation_share"]) == (False, 0)
    page = client.get(f"/runs/{runs_of(state)[0].key}").text
    assert "1 setting differs from the preset “Balanced”." in page
    few = fake_workers.dataset(state, "Ink")
    page = client.get(f"/train/new?dataset={few.slug}").text
    assert "No image is held out, so copying will not be measured." in page


def test_warnings_stand_above_the_button(client: TestClient, state: AppState) -> None:
    fake_workers.dataset(state)
    page = client.get("/train/new").text
    warning = page.index("captions lack the trigger word")
    assert page.index('id="this-run"') < warning < page.index("Start training <kbd>")
    assert "Add “chalkboard” to all 3</button>" in page
    sent = {"do": "add_trigger", "text": "chalkboard", "all": "1", "elsewhere": "1"}
    address = "/datasets/chalk/edits"
    assert f'hx-post="{address}"' in page
    answer = client.post(address, data=sent, headers={"hx-request": "true"})
    assert "Added “chalkboard” to 3 captions." in answer.text
    assert "lack the trigger word" not in client.get("/train/new").text
    undone = client.post(
        f"{address}/1/undo", data={"elsewhere": "1"}, headers={"hx-request": "true"}
    )
    assert 'id="toast-edit-1" hx-swap-oob="delete"' in undone.text


def test_the_plan_has_the_errors_of_the_whole_form_and_queues_nothing(
    client: TestClient, state: AppState
) -> None:
    dataset = fake_workers.dataset(state)
    empty = fake_workers.dataset(state, "Bare", pictures=0)
    fields = form_of(client.get(f"/train/new?dataset={dataset.slug}").text)

    def errors_of(changes: dict[str, str]) -> dict[str, str]:
        plan = client.post("/train/new/plan", data=fields | changes).text
        errors: dict[str, str] = json.loads(re.search("data-errors='(.*?)'", plan)[1])  # type: ignore[index]
        return errors

    assert errors_of({}) == {}
    for name, value in (
        ("name", "x" * 130),
        ("dataset_id", str(empty.key)),
        ("rank", "eight"),
        ("sample_prompts", "a castle --w 4000"),
        ("regularization_dataset_id", str(dataset.key)),
        ("adapter_id", "99"),
    ):
        assert [*errors_of({name: value})] == [name]
    with state.database.read() as session:
        assert session.exec(sa.select(sa.func.count()).select_from(DatasetVersion)).one() == (0,)
    assert runs_of(state) == []


def test_until_the_machine_is_measured_the_plan_asks_again(
    client: TestClient, state: AppState
) -> None:
    fake_workers.dataset(state)
    page = client.get("/train/new").text
    assert "measuring this machine…" in page
    assert re.search(r'id="this-run"[^>]*\s+hx-post="/train/new/plan"', page)


def test_the_estimate_says_that_it_is_longer_on_a_busy_machine(
    client: TestClient, state: AppState
) -> None:
    fake_workers.measured_base(state)
    fake_workers.queued_run(state, fake_workers.dataset(state))
    busy = "The machine is busy"
    assert busy not in client.get("/train/new").text
    with state.database.write() as session:
        claim(session, Run)
    assert busy in client.get("/train/new").text


def test_a_run_can_be_trained_again_with_its_settings(client: TestClient, state: AppState) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state), rank=3)
    page = client.get(f"/train/new?from={run.key}").text
    fields = form_of(page)
    assert (fields["rank"], fields["steps"], fields["preset"]) == ("3", "40", "quick")
    assert "2 changed" in page  # steps and rank; prompts are counted apart
    assert client.get("/train/new?from=999").status_code == 200


def test_a_waiting_run_says_what_it_waits_for(client: TestClient, state: AppState) -> None:
    of = fake_workers.dataset(state)
    first, second = fake_workers.queued_run(state, of), fake_workers.queued_run(state, of)
    page = client.get(f"/runs/{first.key}").text
    assert "no training worker is running" in page
    assert "<code>brushwork worker --queue train</code>" in page
    assert "2 waiting · no worker" in page
    assert "then a new row at each checkpoint." in page  # it has fewer steps than lie between rows
    assert "1 run ahead of it" in client.get(f"/runs/{second.key}").text
    fake_workers.worker_seen(state, "train")
    page = client.get(f"/runs/{first.key}").text
    assert "starts in a moment" in page
    assert "no worker" not in page
    assert "brushwork worker" not in page


def test_a_training_run_shows_progress_samples_loss_and_what_it_saves(
    client: TestClient, state: AppState
) -> None:
    fake_workers.ready_base(state)
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(10)
    training.sample(0)
    training.train(10)
    training.sample(20)
    training.checkpoint()
    page = client.get(f"/runs/{run.key}").text
    assert "<title>50 % · Chalk · Brushwork</title>" in page
    assert "Step 20 of 40" in page
    assert "4.0 steps/s · about 5 s left" in page
    assert page.index('id="sample-20-0"') < page.index('id="sample-0-0"')  # the base at the bottom
    assert "281,000 of 19.3 M" in page
    assert "1.5 %" in page
    assert "Checkpoints and samples" in page
    assert "Smoothed loss fell from 0.500 at step 1" in page


def test_the_live_part_sends_only_what_changed_and_ends_with_the_run(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(10)
    page = client.get(f"/runs/{run.key}").text
    address = html.unescape(re.search(r'hx-get="(/runs/\d+/live\?[^"]+)"', page)[1])  # type: ignore[index]
    quiet = client.get(address).text
    assert 'id="run-progress"' in quiet
    assert re.findall(r'id="([^"]+)"[^>]*hx-swap-oob', quiet) == ["running"]
    assert "1 training · 25 %" in quiet  # the bar says what the page says
    training.sample(0)
    news = client.get(address).text
    assert 'id="run-samples" aria-labelledby="samples-title" hx-swap-oob="true"' in news
    assert 'id="run-side"' not in news
    training.finish()
    last = client.get(address).text
    assert "<title>Chalk · Brushwork</title>" in last
    assert f'hx-get="/runs/{run.key}' not in last
    assert "1 training" not in last
    assert "Try it" in last


def test_a_finished_run_leads_to_its_adapter(client: TestClient, state: AppState) -> None:
    adapter = fake_workers.adapter(state)
    page = client.get("/runs/1").text
    assert "Trained 40 steps" in page
    assert "“starter” is a small teaching model." in page
    assert 'href="/train/new?dataset=chalk"' in page
    assert f'href="/adapters/{adapter.slug}?v=1"' in page
    assert f'href="/play?adapter={adapter.slug}@1&amp;prompt=a%20castle"' in page


def test_a_failed_run_says_what_to_do(client: TestClient, state: AppState) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(3)
    training.fail("diverged", "The loss was no longer a number at step 4.")
    page = client.get(f"/runs/{run.key}").text
    assert "The loss was no longer a number at step 4." in page
    assert "lower learning rate" in page
    assert "Traceback: here" in page
    assert f'href="/train/new?from={run.key}"' in page


def test_a_run_that_ended_before_its_first_step_promises_no_loss(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    for _ in range(2):
        client.post(f"/runs/{run.key}/cancel")
    page = client.get(f"/runs/{run.key}").text
    assert "No loss was measured." in page
    assert "data-chart=" not in page
    assert page.count("<span>Canceled</span>") == 1


def test_wishes_reach_a_run_that_trains_and_are_refused_after(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(3)
    for wish in ("sample", "save", "stop"):
        answer = client.post(f"/runs/{run.key}/{wish}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run.key}")
    row = runs_of(state)[0]
    assert (row.sample_requested, row.save_requested, row.stop_requested) == (True, True, True)
    page = client.get(f"/runs/{run.key}").text
    assert "stopping; the adapter will be kept" in page
    assert "Samples requested" in page
    training.finish()
    late = client.post(f"/runs/{run.key}/stop", headers=HTML)
    assert late.status_code == 409
    assert "only a running run can do that" in late.text
    assert client.post(f"/runs/{run.key}/no-such-wish", headers=HTML).status_code == 404


def test_cancel_twice_is_no_mistake(client: TestClient, state: AppState) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    for _ in range(2):
        assert client.post(f"/runs/{run.key}/cancel").status_code == 200
    assert "Canceled at step 0 of 40" in client.get(f"/runs/{run.key}").text


@pytest.mark.parametrize("address", ["/runs/99", "/runs/99/live", "/runs/99999999999", "/runs/x"])
def test_a_run_that_is_not_there_has_a_page_that_says_so(client: TestClient, address: str) -> None:
    answer = client.get(address, headers=HTML)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"].startswith("text/html")


def test_another_optimizer_brings_its_own_defaults_and_is_kept(
    client: TestClient, state: AppState
) -> None:
    fake_workers.dataset(state, pictures=24)
    fields = form_of(client.get("/train/new?preset=quick").text)
    chosen = client.post("/train/new/plan?part=fields", data=fields | {"optimizer": "prodigy"}).text
    rate = re.search(r'<input[^>]* id="learning_rate"[^>]*>', chosen)
    assert rate is not None
    assert attribute(rate[0], "value") == "1"
    assert "1 changed" in chosen
    answer = client.post(
        "/train/new", data=fields | {"optimizer": "prodigy"}, follow_redirects=False
    )
    assert answer.status_code == 303
    config = runs_of(state)[0].config
    assert (config["optimizer"], config["learning_rate"]) == ("prodigy", 1.0)


def test_a_run_goes_on_from_a_checkpoint_that_is_kept(client: TestClient, state: AppState) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(3)
    training.finish()
    with state.database.write() as session:
        session.add(Checkpoint(run_id=run.key, step=3, sha256="c" * 64, size_bytes=10))
    page = client.get(f"/runs/{run.key}").text
    place = f"/train/new?from={run.key}&amp;checkpoint=3"
    assert place in page
    form = client.get(html.unescape(place)).text
    assert "This continues from step 3" in form
    fields = form_of(form)
    assert fields["steps"] == str(3 + run.total_steps)
    short = client.post("/train/new", data=fields | {"steps": "3", "rank": "5"}, headers=HTML)
    assert short.status_code == 422
    assert "enter more than 3" in short.text
    assert "Use the same value" in short.text
    assert client.post("/train/new", data=fields, follow_redirects=False).status_code == 303
    again = runs_of(state)[0]
    assert (again.parent_id, again.step) == (run.key, 3)


def test_warnings_are_shown_loudly_and_held_out_loss_as_figures(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(3)
    with state.database.write() as session:
        for step, loss in ((0, 0.9), (3, 0.5)):
            values = dict(zip(progress.HELD_OUT, (loss, loss - 0.1, loss + 0.1), strict=True))
            progress.add_measures(session, training.claim, step, values)
        jobs.record(session, Run, run.key, WARNING, text="It went back to step 1.")
    page = client.get(f"/runs/{run.key}").text
    assert page.index('class="notice warn"') < page.index("It went back to step 1.")
    assert "Validation loss 0.900 at step 0, 0.500 at step 3; lowest 0.500 at step 3." in page
    assert "0.4000 to 0.6000" in page


def test_another_dataset_can_regularize_a_run(client: TestClient, state: AppState) -> None:
    style = fake_workers.dataset(state)
    other = fake_workers.dataset(state, "Photos")
    page = client.get(f"/train/new?dataset={style.slug}").text
    fields = form_of(page)
    assert fields["regularization_dataset_id"] == ""
    assert page.index('id="advanced"') < page.index('id="regularization_dataset_id"')
    chosen = fields | {"regularization_dataset_id": str(other.key)}
    assert client.post("/train/new", data=chosen, follow_redirects=False).status_code == 303
    (run,) = runs_of(state)
    assert run.regularization_version_id not in (None, run.dataset_version_id)
    same = fields | {"regularization_dataset_id": str(style.key)}
    wrong = client.post("/train/new", data=same, headers=HTML)
    assert wrong.status_code == 422
    assert "Choose another dataset." in wrong.text
    assert re.search(r'id="advanced" open>.*id="settings-pictures"[^>]* open>', wrong.text, re.S)


def test_sample_prompts_have_the_form_of_the_captions(client: TestClient, state: AppState) -> None:
    dataset = fake_workers.dataset(state)

    def first_prompt(*captions: str) -> str:
        with state.database.write() as session:
            images = datasets.list_images(session, dataset.key)
            for image, caption in zip(images, captions, strict=True):
                datasets.caption_image(session, image.key, caption)
        page = client.get(f"/train/new?dataset={dataset.slug}").text
        return form_of(page)["sample_prompts"].splitlines()[0]

    assert first_prompt("fox, chalkboard", "owl, chalkboard", "") == "castle, chalkboard"
    assert first_prompt("Chalkboard, a fox", "Chalkboard, an owl", "x") == "Chalkboard, castle"
    usual = "castle, chalkboard style"
    assert first_prompt("a chalkboard fox", "owl, chalkboard", "chalkboard, fox") == usual
    assert first_prompt("fox, chalkboard art", "owl, chalkboard art", "x") == (
        "castle, chalkboard art"
    )
    fields = form_of(client.get(f"/train/new?dataset={dataset.slug}").text)
    client.post("/train/new", data=fields, follow_redirects=False)
    (run,) = runs_of(state)
    assert run.config["sample_prompts"][0] == "castle, chalkboard art"
    assert "from the preset" not in client.get(f"/runs/{run.key}").text


def test_base_models_are_offered_with_their_times(client: TestClient, state: AppState) -> None:
    fake_workers.dataset(state)
    fake_workers.ready_base(state)
    page = client.get("/train/new").text
    assert 'data-words="A small teaching model' in page
    assert '<a href="/base-models" target="_blank">Add a base model…</a>' in page


def test_a_form_with_old_names_is_accepted(client: TestClient, state: AppState) -> None:
    style = fake_workers.dataset(state)
    other = fake_workers.dataset(state, "Photos")
    fields = form_of(client.get(f"/train/new?dataset={style.slug}").text)
    shown = {name: fields.pop(name) for name in [*fields] if name.startswith("regularization_")}
    old = {name.replace("ization", "isation"): value for name, value in shown.items()}
    old |= {"regularisation_dataset_id": str(other.key), "regularisation_weight": "0.5"}
    fields["shown"] = fields["shown"].replace("regularization", "regularisation")
    sent = client.post("/train/new", data=fields | old, follow_redirects=False)
    assert sent.status_code == 303
    (run,) = runs_of(state)
    assert run.regularization_version_id not in (None, run.dataset_version_id)
    assert run.config["regularization_weight"] == 0.5


def test_the_crop_of_each_picture_is_shown_before_the_training(
    client: TestClient, state: AppState
) -> None:
    fake_workers.dataset(state, pictures=3)
    fields = form_of(client.get("/train/new").text)
    shown = client.post("/train/new/crops", data=fields).text
    assert "3 images at" in shown
    assert shown.count("<svg") == 3
    squares = client.post("/train/new/crops", data=fields | {"aspect_buckets": ""}).text
    side = embedded_info().resolution
    assert f"3 images at {side} × {side}" in squares
    assert "80 % kept" in squares
    nothing = client.post("/train/new/crops", data={}).text
    assert "No images yet." in nothing


def test_a_run_says_what_full_fine_tuning_would_keep_in_memory(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    assert "Full fine-tuning" not in client.get(f"/runs/{run.key}").text
    fake_workers.FakeTraining(state).train(3)
    page = client.get(f"/runs/{run.key}").text
    needed = size_text(16 * fake_workers.BASE_PARAMETERS)
    assert f"Full fine-tuning of this base model would need {needed} of memory for weights" in page


def test_the_live_part_brings_the_new_points_of_the_chart(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(2)
    page = client.get(f"/runs/{run.key}").text
    assert "data-points" not in page  # the chart loads them itself
    address = html.unescape(re.search(r'hx-get="(/runs/\d+/live\?[^"]+)"', page)[1])  # type: ignore[index]
    assert address.endswith("&after=2")
    training.train(2)
    news = client.get(address).text
    points = json.loads(re.search(r"data-points='([^']+)'", news)[1])  # type: ignore[index]
    assert points["loss"] == {"steps": [3, 4], "values": [0.25, pytest.approx(0.2)]}
    assert points["learning_rate"]["steps"] == [3, 4]
    assert "&amp;after=4" in news
    assert 'id="run-loss-rows" hx-swap-oob="true"' in news
    assert 'id="loss-table"' not in news


def test_a_long_run_shows_its_samples_in_pages(client: TestClient, state: AppState) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    training.train(30)
    for step in range(31):
        training.sample(step)
    page = client.get(f"/runs/{run.key}").text
    steps = re.findall(r'id="sample-(\d+)-0"', page)
    assert steps == [*map(str, range(30, 6, -1)), "0"]
    older = client.get(f"/runs/{run.key}?before=7").text
    assert f'href="/runs/{run.key}?before=7#run-samples"' in page
    assert re.findall(r'id="sample-(\d+)-0"', older) == [*map(str, range(6, -1, -1))]
    assert f'href="/runs/{run.key}#run-samples"' in older
    assert "&amp;before=7" in older  # what is polled stays on this page


def test_a_run_says_what_it_waits_for_on_its_page_and_in_the_api(
    client: TestClient, state: AppState
) -> None:
    run = fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    sentence = "Waiting for space: the disk is full."
    with state.database.write() as session:
        progress.write_progress(session, training.claim, {"waits_for": sentence})
    assert sentence in client.get(f"/runs/{run.key}", headers=HTML).text
    with state.database.write() as session:
        jobs.give_back(session, Run, training.claim, waits_for=sentence)
    page = client.get(f"/runs/{run.key}", headers=HTML).text
    assert sentence in page
    assert "goes on by itself" in page
    assert client.get(f"/api/v1/runs/{run.key}").json()["waits_for"] == sentence
    fake_workers.FakeTraining(state)  # a worker claims it again
    assert sentence not in client.get(f"/runs/{run.key}", headers=HTML).text

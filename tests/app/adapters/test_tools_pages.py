"""The tools on the page of an adapter, as a browser with and without scripts gets them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlmodel import col, select

from app.registry.adapters.tools import KINDS
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.deletion.renders import delete_old_drafts
from app.registry.job_kinds.states import JobStatus
from app.registry.renders import listing
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.renders import Render
from tests import fake_workers
from tests.claims import end_io_job

HTML = {"accept": "text/html"}
FRAGMENT = HTML | {"hx-request": "true"}
MERGE = {
    "version": "1",
    "merge-name": "Both",
    "weight": "0.8",
    "other-1": "chalk",
    "weight-1": "-0,5",
    "text-weight-1": "0.25",
    "method": "svd",
    "rank": "8",
    "density": "0.5",
    "seed": "0",
}
FUSE = {
    "version": "1",
    "fuse-name": "Inked",
    "weight": "0.7",
    "text-weight": "0",
    "other-3": "chalk",
    "weight-3": "-0.5",
    "base": "starter",
    "dtype": "bf16",
    "output": "base_model diffusers",
}


@pytest.fixture(autouse=True)
def adapters(state: AppState) -> None:
    base = fake_workers.ready_base(state)
    for name in ("Ink", "Chalk"):
        sha256 = fake_workers.blob(state, name.encode())
        with state.database.write() as session:
            publish(session, NewVersion(name, "sd1", sha256, 5, 8, 8.0, base_model_id=base.key))


def newest(state: AppState) -> IoJob:
    """The work of a tool that was ordered last."""
    with state.database.read() as session:
        ordered = select(IoJob).where(col(IoJob.kind).in_(KINDS))
        return session.exec(ordered.order_by(col(IoJob.id).desc())).first()  # type: ignore[return-value]


def end(state: AppState, status: JobStatus, **values: object) -> IoJob:
    return end_io_job(state.database, lambda job: job.kind != "inspect_base", status, **values)


def test_the_page_of_an_adapter_leads_to_the_tools(client: TestClient) -> None:
    page = client.get("/adapters/ink", headers=HTML).text
    assert 'hx-get="/adapters/ink/tools?v=1"' in page
    assert '<a href="/adapters/ink/tools?v=1">' in page
    forms = client.get("/adapters/ink/tools?v=1", headers=FRAGMENT).text
    assert "<html" not in forms
    assert '<option value="chalk">Chalk</option>' in forms
    assert '<option value="ink">' not in forms
    for tool in ("merge", "resize", "fuse"):
        assert f'action="/adapters/ink/tools/{tool}"' in forms
    assert "there is only one." in forms  # to extract takes two bases


def test_only_what_fits_is_offered(client: TestClient, state: AppState) -> None:
    with state.database.write() as session:
        publish(session, NewVersion("Real", "sd1", "c" * 64, 5, 8, 8.0))
        publish(session, NewVersion("Moss", "sd1", "d" * 64, 5, 8, 8.0))
    own = client.get("/adapters/ink/tools", headers=FRAGMENT).text
    assert '<option value="chalk">' in own
    assert '<option value="real">' not in own
    real = client.get("/adapters/real/tools", headers=FRAGMENT).text
    assert '<option value="moss">' in real
    assert '<option value="chalk">' not in real
    assert "No base model fits this adapter." in real
    refused = client.post(
        "/adapters/ink/tools/merge", data=MERGE | {"other-1": "real"}, headers=FRAGMENT
    )
    assert "“Ink” was made for “starter” and “Real” for SD 1.x" in refused.text


def test_a_merge_is_ordered_without_scripts(client: TestClient, state: AppState) -> None:
    answer = client.post(
        "/adapters/ink/tools/merge", data=MERGE, headers=HTML, follow_redirects=False
    )
    job = newest(state)
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        f"/adapters/ink/tools?job={job.key}#tool-merge",
    )
    assert (job.args["method"], job.args["rank"]) == ("svd", 8)
    assert [part["weight"] for part in job.args["parts"]] == [0.8, -0.5]
    assert [part["text_encoder_weight"] for part in job.args["parts"]] == [None, 0.25]
    page = client.get(answer.headers["location"], headers=HTML).text
    assert page.count("waiting for a worker") == 1
    again = client.get("/adapters/chalk/tools", headers=FRAGMENT).text
    assert f'hx-get="/tool-jobs/{job.key}"' in again


def test_the_fragment_of_work_stops_asking_once_it_has_ended(
    client: TestClient, state: AppState
) -> None:
    waiting = client.post("/adapters/ink/tools/merge", data=MERGE, headers=FRAGMENT)
    job = newest(state).key
    assert f'hx-get="/tool-jobs/{job}" hx-trigger="poll"' in waiting.text
    result = {
        "adapter_id": 3,
        "slug": "both",
        "version": 1,
        "name": "<Both>",
        "rank_min": 8,
        "rank_max": 8,
        "energy_min": 0.912,
        "energy_mean": 0.95,
        "relative_error": 0.25,
    }
    end(state, JobStatus.SUCCEEDED, result=result)
    done = client.get(f"/tool-jobs/{job}", headers=FRAGMENT).text
    assert 'hx-trigger="poll"' not in done
    assert '<a href="/adapters/both?v=1">&lt;Both&gt;, version 1</a>' in done
    assert "91.2 % in the weakest layer; relative error 25.0 %" in done


def test_a_tool_shows_an_image_before_and_after(client: TestClient, state: AppState) -> None:
    client.post("/adapters/ink/tools/resize", data={"resize-rank": "4"}, headers=FRAGMENT)
    sha256 = fake_workers.blob(state, b"smaller")
    with state.database.write() as session:
        publish(session, NewVersion("", "sd1", sha256, 5, 4, 4.0, base_model_id=1), adapter_id=1)
    named = {"adapter_id": 1, "slug": "ink", "name": "Ink", "version": 2}
    figures = {"rank_min": 4, "rank_max": 4, "energy_min": 0.9, "energy_mean": 0.9}
    result = named | figures | {"relative_error": 0.2}
    job = end(state, JobStatus.SUCCEEDED, result=result)
    place = f"/tool-jobs/{job.key}/images"
    assert (
        f'hx-post="{place}" hx-trigger="load, submit"' in client.get(f"/tool-jobs/{job.key}").text
    )
    assert "Generating an image before and after" in client.post(place, headers=FRAGMENT).text
    assert "Generating" in client.post(place).text  # again, without a script
    assert client.post(f"/api/v1{place}").json() == {"before": 1, "second": None, "after": 2}
    before, after = fake_workers.draw(state)
    assert (before.prompt, before.seed) == (after.prompt, after.seed) == ("a castle", 0)
    shown = client.get(place, headers=FRAGMENT).text
    assert 'class="comparison" data-comparison>' in shown
    assert shown.index("Ink, version 1") < shown.index("Ink, version 2")
    assert "hx-trigger" not in shown
    with state.database.write() as session:
        assert listing.recent_renders(session) == []  # nobody asked for them
        assert listing.adapter_renders(session, 1) == []
        long_ago = datetime(2000, 1, 1, tzinfo=UTC)
        session.connection().execute(sa.update(Render).values(finished_at=long_ago))
        assert delete_old_drafts(session).goes == []
    client.delete("/api/v1/renders/1")
    client.delete("/api/v1/storage/forever/renders/1")
    client.post("/adapters/ink/delete")
    refused = client.post(place, headers=FRAGMENT).text
    assert "No image before and after: “Ink” was deleted." in refused


def test_a_merge_is_shown_beside_both_adapters_with_their_trigger_words(
    client: TestClient, state: AppState
) -> None:
    named = MERGE | {"other-1": "CHALK @1", "method": "linear"}
    client.post("/adapters/ink/tools/merge", data=named, headers=FRAGMENT)
    with state.database.write() as session:
        for adapter in session.exec(select(Adapter)):
            adapter.trigger_words = [f"{adapter.slug} style"]
        publish(session, NewVersion("Both", "sd1", "e" * 64, 5, 8, 8.0, base_model_id=1))
    figures = {"rank_min": 4, "rank_max": 8, "energy_min": 1.0, "energy_mean": 1.0}
    made = {"adapter_id": 3, "slug": "both", "name": "Both", "version": 1, "relative_error": 0.0}
    job = end(state, JobStatus.SUCCEEDED, result=figures | made)
    place = f"/tool-jobs/{job.key}/images"
    client.post(place, headers=FRAGMENT)
    assert client.post(f"/api/v1{place}").json() == {"before": 1, "second": 2, "after": 3}
    renders = fake_workers.draw(state)
    assert {render.prompt for render in renders} == {"a castle, ink style, chalk style"}
    shown = client.get(place, headers=FRAGMENT).text
    places = [shown.index(f">{name}, version 1<") for name in ("Ink", "Chalk", "Both")]
    assert places == sorted(places)
    with state.database.read() as session:
        covers = [session.get_one(Adapter, key).cover_sha256 for key in (1, 2, 3)]
        drawn = listing.first_images(session, renders)
    assert covers == [None, None, drawn[renders[2].key].sha256]  # only what the tool made


def test_a_name_of_several_adapters_is_refused_with_their_slugs(
    client: TestClient, state: AppState
) -> None:
    with state.database.write() as session:
        publish(session, NewVersion("Chalk", "sd1", "e" * 64, 5, 8, 8.0, base_model_id=1))
    typed = MERGE | {"other-1": "chalk "}
    assert client.post("/adapters/ink/tools/merge", data=typed, headers=FRAGMENT).status_code == 200
    with state.database.write() as session:
        session.exec(select(Adapter).where(Adapter.slug == "chalk")).one().slug = "white"
    refused = client.post("/adapters/ink/tools/merge", data=typed, headers=FRAGMENT).text
    assert "Several adapters are called “chalk”: name one of white and chalk-2." in refused
    found = client.post("/adapters/ink/tools/find", data={"find": "cha"}, headers=FRAGMENT).text
    assert found.count('name="add"') == 2


def test_an_exact_merge_and_a_fused_base_are_described(client: TestClient, state: AppState) -> None:
    figures = {"rank_min": 4, "rank_max": 8, "energy_min": 1.0, "energy_mean": 1.0}
    made = {"adapter_id": 3, "slug": "both", "version": 1, "name": "Both", "relative_error": 0.0}
    fused = {"layers": 3, "size_bytes": 7_000_000}
    base = {"base_model_id": 2, "slug": "inked", "name": "Inked"}
    kept = {"sha256": "a" * 64, "filename": "inked.safetensors"}
    for tool, data, result, words in (
        ("merge", MERGE | {"method": "linear"}, figures | made, "ranks 4 to 8. The exact sum."),
        ("fuse", FUSE, fused | base, "Inked is now one of the"),
        ("fuse", FUSE | {"output": "download single"}, fused | kept, "inked.safetensors</a>, 7"),
    ):
        client.post(f"/adapters/ink/tools/{tool}", data=data, headers=FRAGMENT)
        job = end(state, JobStatus.SUCCEEDED, result=result)
        done = client.get(f"/tool-jobs/{job.key}", headers=FRAGMENT).text
        assert words in " ".join(done.split()), done


def test_a_failure_is_told_and_a_cancel_too(client: TestClient, state: AppState) -> None:
    client.post("/adapters/ink/tools/resize", data={"resize-rank": "4"}, headers=FRAGMENT)
    job = end(state, JobStatus.FAILED, error="The disk became full.", error_code="adapter")
    failed = client.get(f"/tool-jobs/{job.key}", headers=FRAGMENT).text
    assert "The disk became full." in failed
    assert "hx-trigger" not in failed
    client.post("/adapters/ink/tools/resize", data={"energy": "95"}, headers=FRAGMENT)
    waiting = newest(state)
    assert waiting.args["energy"] == pytest.approx(0.95)
    canceled = client.post(f"/tool-jobs/{waiting.key}/cancel", headers=FRAGMENT).text
    assert "Canceled. Nothing was created." in canceled


def test_a_fuse_with_another_adapter_is_ordered(client: TestClient, state: AppState) -> None:
    client.post("/adapters/ink/tools/fuse", data=FUSE, headers=FRAGMENT)
    job = newest(state)
    assert (job.kind, job.args["dtype"], job.args["layout"]) == (
        "fuse_adapter",
        "bf16",
        "diffusers",
    )
    assert job.args["keep"] == "base_model"
    parts = [
        (part["slug"], part["version"], part["weight"], part["text_encoder_weight"])
        for part in job.args["parts"]
    ]
    assert parts == [("ink", 1, 0.7, 0.0), ("chalk", 1, -0.5, None)]
    alone = FUSE | {"other-3": ""}
    client.post("/adapters/ink/tools/fuse", data=alone, headers=FRAGMENT)
    assert [part["slug"] for part in newest(state).args["parts"]] == ["ink"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"other-3": "nobody"}, "other-3"),
        ({"weight-3": "11"}, "weight-3"),
        ({"text-weight-3": "x"}, "text-weight-3"),
        ({"text-weight": "-99"}, "text-weight"),
        ({"weight": "0", "text-weight": "", "weight-3": "0"}, "weight"),
        ({"other-1": "chalk"}, "other-1"),
    ],
)
@pytest.mark.parametrize("headers", [HTML, FRAGMENT], ids=["page", "script"])
def test_errors_of_a_fuse_stand_at_their_fields_and_the_input_is_kept(
    client: TestClient, headers: dict[str, str], changes: dict[str, str], field: str
) -> None:
    typed = FUSE | changes
    answer = client.post("/adapters/ink/tools/fuse", data=typed, headers=headers)
    assert answer.status_code == 422
    card = answer.text.partition('<details class="panel tool" id="tool-fuse"')[2]
    form = card.partition("</form>")[0]
    assert form.startswith(' name="tool" open>')
    assert f'id="tool-fuse-{field}-error"' in form
    assert form.count('aria-invalid="true"') == 1
    for name, value in typed.items():
        assert f'name="{name}"' in form
        assert f'value="{value}"' in form
    merge = answer.text.partition('id="tool-merge"')[2].partition("</form>")[0]
    assert 'value="chalk"' not in merge  # its fields have the same names, but were not sent


def test_a_form_that_was_mended_is_no_longer_marked(client: TestClient) -> None:
    refused = client.post(
        "/adapters/ink/tools/fuse", data=FUSE | {"weight": "much"}, headers=FRAGMENT
    )
    assert "Nothing was started." in refused.text
    ordered = client.post("/adapters/ink/tools/fuse", data=FUSE, headers=FRAGMENT)
    assert 'id="tool-fuse" name="tool" open>' in ordered.text
    assert "Nothing was started." not in ordered.text
    assert 'value="0.7"' in ordered.text


@pytest.mark.parametrize(
    ("tool", "changes", "words"),
    [
        ("merge", {"other-1": ""}, "Choose at least two adapters"),
        ("merge", {"other-1": "<nobody>"}, "There is no adapter “&lt;nobody&gt;”."),
        ("merge", {"weight-1": "much"}, "Enter a number."),
        ("merge", {"weight-1": "nan"}, "Enter a number."),
        ("merge", {"rank": "1.5"}, "Enter a whole number."),
        ("merge", {"rank": "--5"}, "Enter a whole number."),
        ("merge", {"other-1": "chalk@best"}, "“Chalk” has no version “best”."),
        ("merge", {"other-1": "chalk@99"}, "“Chalk” has no version 99; it may have been deleted."),
        ("merge", {"other-1": "ink"}, "“Ink” is named twice"),
        ("resize", {}, "Choose either"),
        ("scale", {}, "All factors are 1"),
        ("scale", {"block-middle": "much"}, "Enter a number."),
        ("scale", {"block-output": "1e9"}, "weights from -10 to 10 are accepted"),
        ("fuse", {"fuse-name": "x", "output": "nonsense"}, "not one of the choices"),
    ],
)
def test_what_is_wrong_comes_back_with_what_was_typed(
    tool: str, changes: dict[str, str], words: str, client: TestClient
) -> None:
    data = (MERGE if tool == "merge" else {}) | changes
    answer = client.post(f"/adapters/ink/tools/{tool}", data=data, headers=FRAGMENT)
    assert answer.status_code == 422
    assert words in answer.text
    page = client.post(f"/adapters/ink/tools/{tool}", data=data, headers=HTML)
    assert page.status_code == 422
    assert words in page.text
    if tool == "merge":
        assert 'value="Both"' in page.text


def test_a_merged_adapter_says_of_what_it_was_made(client: TestClient, state: AppState) -> None:
    ink = fake_workers.adapter(state, "Ink")
    part = {"adapter_id": ink.key, "slug": "ink", "name": "Ink", "version": 1, "weight": 0.8}
    part |= {"text_encoder_weight": None}
    made = {
        "tool": "merge",
        "method": "ties",
        "relative_error": 0.125,
        "energy_min": 0.9,
        "energy_mean": 0.95,
        "parts": [part, part | {"name": "Chalk", "text_encoder_weight": 0.5}],
    }
    resized = {
        "tool": "resize",
        "version": 1,
        "rank_before": 8,
        "energy_min": 0.9,
        "energy_mean": 0.987,
        "relative_error": 0.1,
    }
    extracted = {
        "tool": "extract",
        "base": "starter",
        "tuned": "mine",
        "unchanged": 12,
        "beyond": 1,
        "relative_error": 0.03,
    }
    shown = []
    scaled = {"tool": "scale", "version": 1, "relative_error": 0.0}
    scaled |= {"blocks": {"input": 0.5, "middle": 1.0, "output": 0.0}}
    for number, details in enumerate((made, resized, extracted, scaled)):
        new = NewVersion(f"Made {number}", "sd1", "0" * 64, 5, 8, 8.0, details={"made": details})
        with state.database.write() as session:
            version: AdapterVersion = publish(session, new)
            assert version.details["made"] == details
        shown.append(client.get(f"/adapters/made-{number}", headers=HTML).text)
    assert "(TIES) from" in shown[0]
    assert '<a href="/adapters/ink?v=1">Ink</a> v1 × 0.8' in shown[0]
    assert "(text 0.5)" in shown[0]
    assert "Relative error 12.5 %." in shown[0]
    assert "Resized from version 1, rank 8." in shown[1]
    assert "98.7 % of its effect on average, 90.0 % in the weakest layer" in shown[1]
    assert "Extracted from mine, compared with starter. 12 layers are identical; 1 norm" in shown[2]
    assert "Block weights of version 1: input 0.5, middle 1, output 0." in shown[3]
    assert "Relative error" not in shown[3]

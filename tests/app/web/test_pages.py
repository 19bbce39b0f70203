"""The frame around every page: places, strip, theme, static files, errors in human words."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from app.registry.blobs import ownership
from app.registry.code_version import code_version
from app.registry.datasets import service as datasets
from app.registry.db import utcnow
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.presence import Presence
from app.registry.paths import STATIC
from app.registry.runs.service import ActiveRuns
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Run
from app.web import templates
from app.web.shortcuts import SHORTCUTS

HTML = {"accept": "text/html"}


def run(status: JobStatus, step: int = 0) -> Run:
    return Run(
        id=7,
        name="Boats",
        status=status,
        step=step,
        total_steps=300,
        dataset_id=1,
        dataset_version_id=1,
        base_model_id=1,
        config={},
    )


@pytest.mark.parametrize(
    ("address", "place"), [("/datasets", "Datasets"), ("/patterns", None), ("/", None)]
)
def test_the_place_one_is_at_is_marked(client: TestClient, address: str, place: str | None) -> None:
    marked = re.findall(
        r'aria-current="[a-z]+" data-shortcut="[^"]+">.*?</svg>(\w+)</a>', client.get(address).text
    )
    assert marked == ([place] if place else [])


@pytest.mark.parametrize("address", ["/", "/datasets", "/system", "/patterns"])
def test_a_page_is_whole(client: TestClient, address: str) -> None:
    answer = client.get(address, headers=HTML)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    text = answer.text
    assert text.lstrip().startswith("<!doctype html>")
    assert '<html lang="en"' in text
    assert len(re.findall(r"<h1\b", text)) == 1
    assert '<main class="page" id="content"' in text
    assert 'href="#content"' in text
    assert re.search(r"<title>[^<]+ · Brushwork</title>", text)
    identifiers = re.findall(r'\sid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))


def test_the_strip_tells_what_trains_and_what_waits() -> None:
    training, waiting = run(JobStatus.RUNNING, step=186), run(JobStatus.QUEUED)
    assert templates.strip_of(ActiveRuns([], 0, 0)) is None
    assert templates.strip_of(ActiveRuns([training], 1, 0)) == templates.RunningStrip(
        "1 training · 62 %", "/runs/7", True
    )
    both = templates.strip_of(ActiveRuns([training], 1, 1))
    assert both is not None
    assert (both.text, both.more) == ("1 training · 62 %", " · 1 waiting")
    for count, href in ((1, "/runs/7"), (1_000, "/runs")):
        strip = templates.strip_of(ActiveRuns([waiting], 0, count))
        assert strip == templates.RunningStrip(f"{count:,} waiting", href, False)


def test_the_strip_asks_again_even_when_nothing_trains(client: TestClient) -> None:
    answer = client.get("/running", headers={"hx-request": "true"})
    assert answer.status_code == 200
    assert 'hx-trigger="poll"' in answer.text
    assert "<a" not in answer.text


def test_the_theme_is_remembered_and_written_into_the_page(client: TestClient) -> None:
    assert 'data-theme="system"' in client.get("/").text
    answer = client.post(
        "/theme", data={"theme": "dark", "back": "/datasets?q=a"}, follow_redirects=False
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/datasets?q=a")
    assert 'data-theme="dark"' in client.get("/").text


def test_a_theme_there_is_not_is_refused_and_a_strange_cookie_is_no_error(
    client: TestClient,
) -> None:
    assert client.post("/theme", data={"theme": "pink"}).status_code == 422
    client.cookies.set("theme", "pink")
    assert 'data-theme="system"' in client.get("/").text


@pytest.mark.parametrize("back", ["https://example.org/", "//example.org", "/\\example.org", "x"])
def test_the_theme_switch_sends_nobody_to_another_site(client: TestClient, back: str) -> None:
    answer = client.post("/theme", data={"theme": "dark", "back": back}, follow_redirects=False)
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("address", ["/nowhere", "/datasets/nowhere", "/runs/99999999999999"])
def test_an_address_without_anything_is_a_page_with_a_way_back(
    client: TestClient, address: str
) -> None:
    answer = client.get(address, headers=HTML)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"].startswith("text/html")
    assert 'href="/"' in answer.text
    assert answer.text.count("deleted") <= 1


def test_programs_get_problems_and_people_get_pages(client: TestClient) -> None:
    answer = client.get("/api/v1/datasets/999", headers=HTML)
    assert answer.headers["content-type"] == "application/problem+json"
    answer = client.get("/datasets/nowhere", headers={"accept": "application/json"})
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_script_that_asks_for_a_part_gets_an_error_as_a_part(client: TestClient) -> None:
    answer = client.get("/datasets/nowhere", headers={"hx-request": "true"})
    assert answer.status_code == 404
    assert "<html" not in answer.text
    assert "There is no such dataset" in answer.text


def test_what_breaks_says_so_in_words_and_the_page_still_stands(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(datasets, "page_datasets", broken)
    answer = client.get("/datasets", headers=HTML)
    assert answer.status_code == 500
    assert "nothing was changed" in answer.text
    assert "Try again" in answer.text
    assert "secret detail" not in answer.text


def test_what_people_typed_is_text_and_never_markup(client: TestClient, state: AppState) -> None:
    with state.database.write() as session:
        datasets.create_dataset(session, "<script>alert(1)</script>")
    text = client.get("/datasets").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_every_single_key_in_the_list_of_shortcuts_is_listened_to() -> None:
    source = "".join(path.read_text() for path in templates.TEMPLATES.rglob("*.html"))
    listened = set(re.findall(r'data-shortcut="([^"{]+)"', source))
    listened |= {f"g {letter}" for letter in "dtap"}  # the places in the bar
    scripts = ("viewer.js", "zoom.js", "tiles.js")
    viewer = "".join((STATIC / "js" / name).read_text() for name in scripts)
    arrows = {"←": "ArrowLeft", "→": "ArrowRight", "↑": "ArrowUp", "↓": "ArrowDown"}
    for shortcut in SHORTCUTS:
        keys = [key for key in shortcut.keys if key not in ("Shift", "Space")]  # Space is the box's
        is_in_viewer = all(arrows.get(key, f'"{key}"') in viewer for key in keys)
        if "Ctrl" not in shortcut.keys and not is_in_viewer:
            assert " ".join(shortcut.keys) in listened


def test_the_dialog_shows_only_what_works_on_the_page(client: TestClient) -> None:
    for words, place in (("Next caption", "/datasets"), ("in a large sample", "/runs")):
        assert words in client.get(place).text
        assert words not in client.get("/").text


def test_the_system_page_tells_what_is_kept_and_who_works(client: TestClient) -> None:
    text = client.get("/system").text
    assert code_version() in text
    assert "GPU" not in text
    assert "No worker is running" in text
    assert "SQLite" in text


def test_the_system_page_says_whose_the_files_are_and_what_is_in_the_trash(
    client: TestClient, state: AppState
) -> None:
    lost = state.store.put_bytes(b"lost").sha256
    state.store.discard(lost, before=utcnow() + timedelta(minutes=1))
    ownership.claim(state.database, state.store)
    text = client.get("/system").text
    assert "1 file, 4 B, each for 14 days" in text
    assert "brushwork sweep --adopt" not in text
    state.store.write_marker(b"damaged")
    text = client.get("/system").text
    assert "The file registry.json beside the files is damaged." in text
    assert 'data-copy="brushwork sweep --adopt"' in text


def test_the_system_page_says_why_the_last_sweep_only_reported(
    client: TestClient, state: AppState
) -> None:
    report = "31 of 40 files (12 MB) are unknown to this database."
    with state.database.write() as session:
        ended = {"status": JobStatus.SUCCEEDED, "finished_at": utcnow()}
        session.add(IoJob(kind="sweep", result={"files": 31, "report": report}, **ended))
    ownership.claim(state.database, state.store)
    assert report in client.get("/system").text
    ownership.adopt(state.database, state.store)
    assert report not in client.get("/system").text


def test_the_system_page_names_a_gpu_that_is_not_used_and_the_way_out(
    client: TestClient, state: AppState
) -> None:
    for queue in ("train", "render"):
        Presence(queue).announce(
            state.database, device="CPU", problem="torch is a CPU build.", remedy="pip <install>"
        )
    text = client.get("/system").text
    assert text.count("torch is a CPU build.") == 1
    assert "<code>pip &lt;install&gt;</code>" in text
    assert 'data-copy="pip &lt;install&gt;"' in text

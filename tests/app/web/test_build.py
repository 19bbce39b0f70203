"""Answers name the running build; what a page from before an update sends is taken or explained."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.registry.paths import STATIC
from app.registry.state import AppState
from app.web import build
from app.web.static_files import static_url
from tests import fake_workers

HTML = {"accept": "text/html"}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Copies of the templates and static files, which the fingerprint is made of."""
    for name in ("TEMPLATES", "STATIC"):
        copy = shutil.copytree(getattr(build, name), tmp_path / name)
        monkeypatch.setattr(build, name, copy)
    build.fingerprint.cache_clear()
    yield tmp_path
    build.fingerprint.cache_clear()


def fresh() -> str:
    """The fingerprint of a process that starts now."""
    build.fingerprint.cache_clear()
    return build.fingerprint()


@pytest.mark.parametrize(
    "address", ["/", "/running", "/nowhere", "/api/v1/runs", "/api/v1/runs/99", "/healthz"]
)
def test_every_answer_names_the_build(client: TestClient, address: str) -> None:
    answer = client.get(address, headers=HTML)
    assert answer.headers["brushwork-build"] == build.fingerprint()


def test_a_page_knows_the_build_that_made_it(client: TestClient) -> None:
    for address in ("/datasets", "/nowhere"):
        page = client.get(address, headers=HTML).text
        (named,) = re.findall(r'<meta name="brushwork-build" content="([0-9a-f]{12})">', page)
        assert named == build.fingerprint()


def test_what_a_browser_keeps_over_an_update_does_not_name_the_build(client: TestClient) -> None:
    for address in (static_url("js/update.js"), "/media/" + "0" * 64):
        assert "brushwork-build" not in client.get(address).headers


def test_another_release_template_or_static_file_is_another_build(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [fresh()]
    assert fresh() == seen[0]
    monkeypatch.setattr(build, "release", lambda: "99.0.0")
    seen.append(fresh())
    with (folders / "TEMPLATES" / "base.html").open("a") as file:
        file.write("<p>New</p>")
    seen.append(fresh())
    (folders / "STATIC" / "js" / "toast.js").rename(folders / "STATIC" / "js" / "toasts.js")
    seen.append(fresh())
    assert len(set(seen)) == 4
    with (folders / "STATIC" / "js" / "toasts.js").open("a") as file:
        file.write("// new")
    assert build.fingerprint() == seen[-1]  # this process did not restart
    assert fresh() not in seen


def test_scripts_request_in_the_one_way_that_sees_an_update() -> None:
    for script in (STATIC / "js").glob("*.js"):
        text = script.read_text()
        if script.name != "update.js":
            assert not re.search(r"(?<![\w.])fetch\(|window\.fetch\(", text), script.name
        assert text.count("new XMLHttpRequest") == text.count("brushwork.checkBuild(request)")


def test_a_form_from_before_an_update_works_with_fields_that_are_gone_or_new(
    client: TestClient, state: AppState
) -> None:
    dataset = fake_workers.dataset(state)
    # `shown` and more are missing as from an older form; `brush_size` is a setting that is gone
    old = {"dataset_id": str(dataset.key), "base_model": "1", "preset": "quick", "name": "Old"}
    answer = client.post("/train/new", data=old | {"brush_size": "7"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs/1")
    made = client.post("/datasets", data={"name": "Ink", "gone": "x"}, follow_redirects=False)
    assert made.status_code == 303


def test_a_form_whose_address_is_gone_is_told_so(client: TestClient) -> None:
    page = client.post("/train/old", data={"name": "Typed"}, headers=HTML)
    assert page.status_code == 404
    assert "There is nothing at this address." in page.text
    assert "the link is outdated" in page.text
    part = client.post("/train/old", data={"name": "Typed"}, headers={"hx-request": "true"})
    assert part.status_code == 404
    assert 'class="notice' in part.text  # toast.js shows its words

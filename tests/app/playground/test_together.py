"""The panel that says whether the adapters of the stack go together."""

from __future__ import annotations

from fastapi.testclient import TestClient

from app.registry.state import AppState
from tests import fake_workers
from tests.app.adapters.test_overlap import LITTLE, SOME, end, ordered
from tests.app.playground.test_pages import FRAGMENT, filled

ADDRESS = "/play?adapter=chalk:0.5&adapter=night:0.8&prompt=a+castle"


def panel(client: TestClient, address: str = ADDRESS) -> str:
    answer = client.post("/play/together", data=filled(client, address), headers=FRAGMENT)
    assert answer.status_code == 200
    return answer.text


def test_two_adapters_are_compared_once_the_page_is_there(
    client: TestClient, state: AppState
) -> None:
    for name in ("Chalk", "Night"):
        fake_workers.adapter(state, name)
    page = client.get(ADDRESS).text
    assert 'hx-post="/play/together" hx-trigger="load"' in page
    assert ordered(state) == 0  # by opening a page nothing is queued
    waiting = panel(client)
    assert 'hx-trigger="poll"' in waiting
    assert "together-told" not in waiting
    end(state, SOME)
    found = panel(client)
    assert 'hx-trigger="poll"' not in found
    assert "strong" not in found
    form = filled(client, ADDRESS) | {"weight-0": "1", "weight-1": "1", "told": "1"}
    strong = client.post("/play/together", data=form, headers=FRAGMENT).text
    assert "Together they are strong (sum 2): " in strong
    assert "together-told" not in strong  # what overlaps was told before
    assert found.count("2 of 32 layers pull the same way (cosine 0.84 and 0.76)") == 2  # once told
    assert '<span class="chip warn">Some overlap</span>' in found
    assert (found.count("<rect"), found.count('<rect class="same"')) == (32, 2)
    assert found.count('<th scope="row">') == 20
    assert 'name="pair" value="0-1"' in found
    assert ordered(state) == 1


def test_the_panel_is_hidden_for_one_adapter_and_works_without_scripts(
    client: TestClient, state: AppState
) -> None:
    for name in ("Chalk", "Night"):
        fake_workers.adapter(state, name)
    one = client.get("/play?adapter=chalk").text
    assert 'id="together" aria-labelledby="together-title"  hidden' in one
    gone = panel(client, "/play?adapter=chalk&adapter=gone")
    assert "Comparing" not in gone
    form = filled(client, ADDRESS)
    whole = client.post("/play/together", data=form).text
    assert "<h1" in whole
    assert "Comparing: both adapters are read layer by layer." in whole
    end(state, LITTLE)
    whole = client.post("/play/together", data=form).text
    assert '<span class="chip ">Little overlap</span>' in whole
    assert whole.count("Little overlap") == 1  # the sentence for screen readers is for fragments
    twice = panel(client, "/play?adapter=chalk&adapter=chalk@1")
    assert "chip" not in twice


def test_many_layers_share_bars(client: TestClient, state: AppState) -> None:
    for name in ("Chalk", "Night"):
        fake_workers.adapter(state, name)
    panel(client)
    layers = [(f"unet.{n}", -0.7 if n == 100 else 0.1, 0.9, 0.1) for n in range(722)]
    end(state, layers)
    found = panel(client)
    assert found.count("<rect") == 46  # of 16 layers each
    assert found.count('<rect class="against"') == 1
    assert "Layers with the highest cosines" in found
    assert "1 of 722 layers pulls against each other (cosine −0.70)" in found

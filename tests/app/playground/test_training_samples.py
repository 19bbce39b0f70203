"""The playground shows the training sample of an adapter until there is an image of it."""

from __future__ import annotations

from fastapi.testclient import TestClient

from app.registry.adapters.usual_weight import set_usual_weight
from app.registry.state import AppState
from tests import fake_workers
from tests.app.playground.test_pages import filled
from tests.images import make_png

EMPTY = "Your image appears here"


def test_try_shows_the_sample_of_the_prompt_and_takes_over_its_seed(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    address = "/play?adapter=chalk@1&prompt=a+rocket"
    page = client.get(address).text
    assert f"/media/{fake_workers.blob(state, make_png(401))}" in page
    assert "Training sample, step 40, seed 1" in page
    assert EMPTY not in page
    fields = filled(client, address)
    assert (fields["prompt"], fields["seed"], fields["weight-0"]) == ("a rocket", "1", "1")


def test_try_of_a_checkpoint_shows_its_own_sample(client: TestClient, state: AppState) -> None:
    fake_workers.queued_run(state, fake_workers.dataset(state))
    training = fake_workers.FakeTraining(state)
    for _ in range(2):
        training.train(20)
        training.sample(training.step)
        training.checkpoint()
    page = client.get("/play?adapter=chalk-run-1@20&prompt=a+castle").text
    assert f"/media/{fake_workers.blob(state, make_png(200))}" in page
    assert "Training sample, step 20, seed 0" in page


def test_without_a_prompt_the_first_sample_is_taken_and_a_typed_one_is_kept(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    fields = filled(client, "/play?adapter=chalk")
    assert (fields["prompt"], fields["seed"]) == ("a castle", "0")
    other = "/play?adapter=chalk&prompt=a+whale"
    assert "Training sample, step 40, seed 0: “a castle”" in client.get(other).text
    fields = filled(client, other)
    assert (fields["prompt"], fields["seed"]) == ("a whale", "")


def test_an_equal_image_that_was_generated_takes_the_place_of_the_sample(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    address = "/play?adapter=chalk&prompt=a+castle"
    client.post("/play", data=filled(client, address))
    fake_workers.draw(state)
    page = client.get(address).text
    assert "Training sample" not in page
    assert page.count('class="comparison-side"') == 2


def test_the_options_of_a_sample_prompt_become_settings(
    client: TestClient, state: AppState
) -> None:
    line = "a castle --d 7 --w 96 --l 3.5 --s 12 --n blur --a 0.8"
    config = {"sample_prompts": [line], "sample_steps": 30}
    fake_workers.queued_run(state, fake_workers.dataset(state), **config)
    training = fake_workers.FakeTraining(state)
    training.train(40)
    training.sample(40, [line])
    training.finish()
    fields = filled(client, "/play?adapter=chalk")
    names = ("prompt", "steps", "guidance", "width", "height", "negative", "weight-0")
    assert [fields[name] for name in names] == ["a castle", "12", "3.5", "96", "", "blur", "0.8"]


def test_a_usual_weight_stays_and_another_weight_or_seed_shows_no_sample(
    client: TestClient, state: AppState
) -> None:
    adapter = fake_workers.adapter(state)
    for address in (
        "adapter=chalk:0.5&prompt=a+castle",
        "adapter=chalk&prompt=a+castle&seed=8",
        "adapter=chalk&prompt=a+castle&count=2",
        "prompt=a+castle",
    ):
        assert EMPTY in client.get(f"/play?{address}").text
    with state.database.write() as session:
        set_usual_weight(session, adapter.key, None, 0.7)
    usual = "/play?adapter=chalk&prompt=a+castle"
    assert "Training sample, step 40, seed 0, weight 1" in client.get(usual).text
    assert filled(client, usual)["weight-0"] == "0.7"

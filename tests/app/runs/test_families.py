"""Settings of a run by the family of its base model: what is shown, kept and refused."""

from __future__ import annotations

import json
import re

import pytest
from sqlmodel import select
from starlette.testclient import TestClient

from app.registry.jobs.presence import Presence
from app.registry.runs.presets import with_changes
from app.registry.state import AppState
from app.registry.tables.added_models import BaseModel
from app.registry.tables.datasets import Image
from app.registry.wording import size_text
from tests import fake_workers
from tests.app.runs.test_pages import form_of
from worker.core.families.family import BaseFamily
from worker.core.training.presets import Preset, preset_config

ONLY_FLOW = {"flow_shift", "level_density", "base_weights"}
NOT_FLOW = {"clip_skip", "noise_offset", "prediction_type", "loss_weighting", "blocks", "kind"}


def fields_of(fragments: str) -> dict[str, str]:
    """The advanced settings in what a choice of the form is answered with."""
    return form_of(fragments + "</form>", "advanced-fields")


@pytest.fixture
def zimage(state: AppState) -> str:
    """The address of a base of another family."""
    with state.database.write() as session:
        row = BaseModel(slug="z", name="Z", source=str(state.settings.data_dir))
        row.status, row.family, row.resolution, row.fingerprint = "ready", "zimage", 64, "f" * 64
        session.add(row)
    return "z"


def test_a_form_has_the_settings_of_its_base_model(
    client: TestClient, state: AppState, zimage: str
) -> None:
    fake_workers.dataset(state)
    starter, other = client.get("/train/new").text, client.get(f"/train/new?base={zimage}").text
    for name in ONLY_FLOW:
        assert f'id="{name}"' not in starter
        assert f'id="{name}"' in other
    for name in NOT_FLOW:
        assert f'id="{name}"' in starter
        assert f'id="{name}"' not in other
    assert 'value="all"' not in other[other.index('id="targets"') :].partition("</select>")[0]


def test_what_was_changed_for_one_base_model_comes_back_with_it(
    client: TestClient, state: AppState, zimage: str
) -> None:
    fake_workers.dataset(state)
    typed = form_of(client.get("/train/new").text) | {"clip_skip": "2", "rank": "3"}
    page = client.post("/train/new/plan?part=fields", data=typed | {"base_model": zimage}).text
    assert 'id="clip_skip"' not in page
    assert "CLIP skip at 1" not in page
    shown = json.loads(fields_of(page)["shown"])
    other = fields_of(page) | {"base_model": zimage, "dataset_id": typed["dataset_id"]}
    assert "clip_skip" not in shown
    page = client.post("/train/new/plan?part=fields", data=other | {"base_model": "starter"}).text
    assert fields_of(page)["clip_skip"] == "2"
    assert fields_of(page)["rank"] == "3"


def test_a_form_starts_a_run_of_its_base_model(
    client: TestClient, state: AppState, zimage: str
) -> None:
    fake_workers.dataset(state)
    form = form_of(client.get(f"/train/new?base={zimage}").text)
    sent = form | {"flow_shift": "2"}
    answer = client.post("/train/new", data=sent, follow_redirects=False)
    assert answer.headers["location"] == "/runs/1"
    settings = {
        row["name"]: row for row in client.get("/api/v1/runs/1/settings").json()["settings"]
    }
    assert settings["flow_shift"]["value"] == 2
    assert settings["flow_shift"]["changed"]
    assert not NOT_FLOW & settings.keys()


def test_the_api_refuses_what_a_base_model_does_not_have_by_name(
    client: TestClient, state: AppState, zimage: str
) -> None:
    body = {"dataset_id": fake_workers.dataset(state).key, "base_model": zimage}
    wrong = {"clip_skip": 2, "targets": "all", "precision": "fp16", "kind": "lokr", "rank": 4}
    answer = client.post("/api/v1/runs", json=body | {"config": wrong})
    assert answer.status_code == 422
    reasons = {one["field"]: one["detail"] for one in answer.json()["errors"]}
    assert reasons.keys() == wrong.keys() - {"rank"}
    assert reasons["clip_skip"] == "Z-Image has no CLIP text encoder: leave CLIP skip at 1."
    config = {"config": {"flow_shift": 1.5}}
    answer = client.post("/api/v1/runs", json=body | {"base_model": "starter"} | config)
    (error,) = answer.json()["errors"]
    assert error["field"] == "flow_shift"
    assert client.post("/api/v1/runs", json=body | config).status_code == 202


@pytest.mark.parametrize(
    ("config", "field", "reason"),
    [
        ({"resolution": 72}, "resolution", "multiples of 16 pixels: use 64 or 80 instead of 72."),
        ({"resolution": 30}, "resolution", "multiple of 8"),
        ({"sample_prompts": ["a fox --w 40"]}, "sample_prompts", "use 32 or 48 instead of 40."),
        ({"sample_prompts": ["a fox --h 30"]}, "sample_prompts", "from 32 to 2,048"),
    ],
)
def test_sides_that_its_images_cannot_have_are_refused_before_the_start(
    client: TestClient, state: AppState, zimage: str, config: dict[str, object], field: str,
    reason: str,
) -> None:  # fmt: skip
    body = {"dataset_id": fake_workers.dataset(state).key, "base_model": zimage, "config": config}
    answer = client.post("/api/v1/runs", json=body)
    errors = {one["field"]: one["detail"] for one in answer.json()["errors"]}
    assert (answer.status_code, list(errors)) == (422, [field])
    assert reason in errors[field]


def test_a_sweep_offers_what_the_base_model_has(
    client: TestClient, state: AppState, zimage: str
) -> None:
    fake_workers.dataset(state)
    form = form_of(client.get(f"/train/new?base={zimage}").text) | {"sweep": "1"}
    page = client.post("/train/new", data=form).text
    assert 'value="flow_shift"' in page
    for name in ("noise_offset", "snr_gamma", "kind", "train_text_encoder"):
        assert f'value="{name}"' not in page
    sent = form_of(page, "sweep-form") | {"setting_0": "noise_offset", "values_0": "0, 0.1"}
    answer = client.post("/sweeps/new", data=sent)
    assert answer.status_code == 422
    assert "needs no other noise" in answer.text
    starter = form_of(client.get("/train/new").text) | {"sweep": "1"}
    page = client.post("/train/new", data=starter).text
    assert 'value="noise_offset"' in page
    assert 'value="flow_shift"' not in page


def test_a_preset_of_ones_own_leaves_out_what_a_base_model_does_not_have() -> None:
    shipped = preset_config(Preset.QUICK, resolution=1024, images=9, family=BaseFamily.ZIMAGE)
    own = {"clip_skip": 2, "rank": 12, "targets": "all", "flow_shift": 2.0}
    config = with_changes(shipped, own, family="zimage")
    assert (config.clip_skip, config.rank, config.targets) == (1, 12, shipped.targets)
    assert config.flow_shift == 2.0
    assert with_changes(shipped, own, family="sd1").flow_shift == 3.0


@pytest.mark.parametrize("preset", Preset)
def test_presets_of_zimage_suit_it(preset: Preset) -> None:
    config = preset_config(preset, resolution=1024, images=40, family=BaseFamily.ZIMAGE)
    assert with_changes(config, {}, family="zimage") == config
    assert config.steps // config.checkpoint_every >= 10
    assert config.keep_adapters is None
    assert (config.sample_guidance, config.sample_steps) == (4.0, 28)
    assert config.gradient_checkpointing
    assert config.learning_rate * config.alpha / config.rank == 1e-4


def needs_of(client: TestClient, base: str, **typed: str) -> dict[str, str]:
    """What the form says of memory and disk, by title, and its warning."""
    form = form_of(client.get(f"/train/new?base={base}").text) | typed
    page = client.post("/train/new/plan", data=form).text
    facts = dict(re.findall(r"<dt>([^<]+)</dt><dd[^>]*>([^<]*)</dd>", page))
    warning = re.search(r"<p data-warning>(.*?GPU has.*?)</p>", page)
    return facts | ({"warning": warning[1]} if warning else {})


def test_the_form_says_the_frozen_weights_and_what_they_take_before_the_start(
    client: TestClient, state: AppState, zimage: str
) -> None:
    fake_workers.dataset(state)
    with state.database.write() as session:
        row = session.exec(select(BaseModel).where(BaseModel.slug == zimage)).one()
        row.parameters = {"unet": 6_154_908_736, "text_encoder": 4_022_468_096, "vae": 83_819_683}
        row.resolution = 1024
    unknown = needs_of(client, zimage)
    assert unknown["Frozen weights"] == "bf16, or int8 rows where that does not fit"
    assert unknown["GPU memory"] == "17.1 GB or 11.8 GB"
    assert "Frozen weights" not in needs_of(client, "starter")

    worker = Presence("train")
    worker.announce(state.database, device="CPU, 2 threads")
    on_cpu = needs_of(client, zimage)
    assert on_cpu["Frozen weights"] == "bf16 or fp32, as is faster"
    assert "GPU memory" not in on_cpu

    worker.announce(state.database, device="A GPU", memory_bytes=24_000_000_000)
    large = needs_of(client, zimage)
    assert (large["Frozen weights"], large["GPU memory"]) == ("bf16", "17.1 GB of 24 GB")

    exact = needs_of(client, zimage, precision="fp32")  # 24.6 GB of weights
    assert exact["Frozen weights"] == "int8 rows"
    exact = needs_of(client, zimage, precision="fp32", base_weights="bf16")
    assert "Frozen weights in fp32 take 29.4 GB" in exact["warning"]

    worker.announce(state.database, device="A GPU", memory_bytes=12_000_000_000)
    small = needs_of(client, zimage)
    assert (small["Frozen weights"], small["GPU memory"]) == ("int8 rows", "11.8 GB of 12 GB")
    assert "warning" not in small
    forced = needs_of(client, zimage, base_weights="bf16")
    assert "Choose int8 rows, which take 11.8 GB." in forced["warning"]
    assert 'href="#base_weights" id="warning-link-1" data-field-link' in forced["warning"]

    worker.announce(state.database, device="A GPU", memory_bytes=8_000_000_000)
    tiny = needs_of(client, zimage)
    assert "even with int8 rows" in tiny["warning"]
    assert 'href="#resolution"' in tiny["warning"]


def test_the_form_says_what_the_captions_take_on_disk(
    client: TestClient, state: AppState, zimage: str
) -> None:
    dataset = fake_workers.dataset(state)
    with state.database.write() as session:
        row = session.exec(select(BaseModel).where(BaseModel.slug == zimage)).one()
        row.parameters = {"unet": 6_154_908_736, "vae": 83_819_683}
        image = session.exec(select(Image).where(Image.dataset_id == dataset.key)).first()
        assert image is not None
        image.caption = "x" * 2_000
        others = session.exec(select(Image.caption).where(Image.id != image.id)).all()
    tokens = 8 + 500 + sum(8 + -(-len(text) // 4) for text in set(others))
    said = needs_of(client, zimage)["Captions on disk"]
    assert said == size_text(tokens * 5_120)


def test_training_on_turbo_is_refused_with_the_way_that_works(
    client: TestClient, state: AppState, zimage: str
) -> None:
    body = {"dataset_id": fake_workers.dataset(state).key, "base_model": zimage}
    for variant, status in (("turbo", 422), ("dedistilled", 202), ("base", 202)):
        with state.database.write() as session:
            session.exec(select(BaseModel).where(BaseModel.slug == zimage)).one().variant = variant
        answer = client.post("/api/v1/runs", json=body)
        assert answer.status_code == status
        form = client.get(f"/train/new?base={zimage}").text
        list_ = client.get("/base-models").text
        shown = f'href="/train/new?base={zimage}"' in list_
        assert (shown, "Train on Z-Image, and use" in form) == (status == 202, status == 422)
        if status == 422:
            (error,) = answer.json()["errors"]
            assert error["field"] == "base_model"
            assert "Train on Z-Image, and use the adapter on Turbo." in error["detail"]

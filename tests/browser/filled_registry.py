"""A registry with something of everything, for tests that look at every page."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any
from unittest.mock import patch

import httpx
from sqlmodel import col, select

from app.registry.adapters.service import delete_adapter
from app.registry.adapters.usual_weight import keep_weight_card
from app.registry.adapters.versions.create_version import NewVersion, publish
from app.registry.added_models import service as added_models
from app.registry.base_models import service as base_models
from app.registry.base_models.service import RETIRED
from app.registry.blind_tests import service as blind_tests
from app.registry.blind_tests.plan import BlindRequest, CandidateRequest, plan_blind_test
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.datasets import pinned
from app.registry.datasets import service as datasets
from app.registry.db import utcnow
from app.registry.deletion.adapters import discard_version
from app.registry.deletion.runs import discard_checkpoint, discard_run
from app.registry.job_kinds.caption_kinds import CaptionImagesArgs
from app.registry.job_kinds.kinds import RoundTrip
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.runs import dry_runs
from app.registry.runs.own_presets import delete_preset, save_run_as_preset
from app.registry.runs.requests import RunRequest
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel, CaptionModel, ModelStatus
from app.registry.tables.blind_tests import Question
from app.registry.tables.datasets import CaptionProposal, Image, ImageCaption, ProposalState
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Sweep
from tests import fake_sweeps, fake_workers
from tests.app.blind_tests.test_judging import better, judge
from tests.app.likeness.looked import measure_by_chance
from tests.app.runs.test_dry_runs import MEASURED
from tests.browser.conftest import Live
from tests.claims import end_io_job
from tests.fake_workers import FakeTraining
from tests.images import make_png
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.core.evaluation import preferences
from worker.core.lora_files.weights import WeightCard

Ids = dict[str, int | str]
"""Ids of rows by the names that the addresses of page states have for them."""

REASON = "The loss on fixed images is 1.200, and 0.400 without the adapter."


def fill(live: Live) -> Ids:
    """Add rows of every kind and state; gives the ids that addresses need."""
    # uvicorn closes an idle connection after as many seconds as httpx does, which may collide
    limits = httpx.Limits(max_keepalive_connections=0)
    html = {"accept": "text/html"}
    with httpx.Client(base_url=live.url, headers=html, limits=limits, timeout=60) as client:
        return fill_state(live.state, client)


def fill_state(state: AppState, client: httpx.Client) -> Ids:
    """The same with a client of the server that has this state."""
    fake_workers.measured_base(state)
    ids = add_datasets(state, client) | add_runs(state) | add_adapters(state, client)
    ids |= add_jobs(state, client, ids)
    ids |= add_sweeps(state)
    add_waiting_runs(state, ids)
    fake_workers.worker_seen(state, "train")
    add_bases(state)
    add_caption_models(state)
    measure_by_chance(state.database)
    return ids


def post(client: httpx.Client, address: str, **data: str) -> httpx.Response:
    """Send a form as a browser without scripts would; it leads to another page."""
    answer = client.post(address, data=data)
    assert answer.status_code == 303, (address, answer.status_code)
    return answer


def add_datasets(state: AppState, client: httpx.Client) -> Ids:
    """Boats lacks captions and has deleted images, Broken lacks a file, Old is deleted."""
    fake_workers.dataset(state, "Empty", pictures=0)
    boats = fake_workers.dataset(state, "Boats", pictures=4)
    with state.database.write() as session:
        version = pinned.pin_version(session, boats)
        images = datasets.list_images(session, boats.key)
        images[1].caption = ""
        session.add(images[1])
        order = IoJob(
            kind="caption_images", subject_id=boats.key, status="failed", error="It ended."
        )
        order.args = CaptionImagesArgs(
            provider=ProviderKind.OLLAMA, image_ids=(1, 2, 3), mode=CaptionMode.REPLACE
        ).stored()
        session.add(order)
        session.flush()
        for image, text, note in ((images[0], "a boat", ""), (images[1], "", "It was cut off.")):
            state_ = ProposalState.FAILED if note else ProposalState.PROPOSED
            row = {"image_id": image.key, "caption": text, "note": note, "state": state_}
            session.add(CaptionProposal(job_id=order.key, mode=CaptionMode.REPLACE, **row))
        unsure = CaptionProposal(job_id=order.key, image_id=images[2].key, guess="church")
        unsure.state, unsure.confidence = ProposalState.EMPTY, 0.68
        unsure.mode, unsure.seen_version = CaptionMode.REPLACE, images[2].caption_version
        session.add(unsure)
        images[0].width = 240  # so that a part of it is cropped
        images[0].focus_x, images[0].focus_y = 0.25, 0.5
        session.add(images[0])
        session.add(ImageCaption(image_id=images[0].key, kind="tags", caption="boat, sea"))
        deleted = images[3].key
        datasets.delete_image(session, deleted)
    old = fake_workers.dataset(state, "Old", pictures=1)
    broken = fake_workers.dataset(state, "Broken", pictures=0)
    sha256 = fake_workers.blob(state, b"it will be missing")
    with state.database.write() as session:
        datasets.delete_dataset(session, old.key)
        session.add(
            Image(
                dataset_id=broken.key,
                filename="gone.png",
                sha256=sha256,
                clean_sha256=sha256,
                thumbnail_sha256=images[0].thumbnail_sha256,
                width=80,
                height=64,
                size_bytes=18,
                caption="a boat",
            )
        )
    state.store.delete(sha256)
    assert client.get(f"/media/{sha256}").status_code == 404  # and notes that it is missing
    return {
        "old": old.key,
        "deleted_image": deleted,
        "image": images[0].key,
        "version": version.key,
    }


def add_runs(state: AppState) -> Ids:
    """Runs that have ended, in every way; Chalk has an adapter and checkpoints."""
    of = fake_workers.dataset(state)
    fake_workers.queued_run(state, of, rank=3, sample_every=10)
    trained = FakeTraining(state)
    trained.sample(0)
    for _ in range(4):
        trained.train(10)
        trained.checkpoint()
        trained.sample(trained.step)
    trained.finish()
    fake_workers.queued_run(state, of)
    failed = FakeTraining(state)
    failed.train(10)
    failed.fail("out_of_memory", "The device has too little memory.")
    fake_workers.queued_run(state, of)
    canceled = FakeTraining(state)
    canceled.cancel()
    fake_workers.queued_run(state, of)
    deleted = FakeTraining(state)
    deleted.cancel()
    fake_workers.queued_run(state, fake_workers.dataset(state, "Ruins"))
    ruined = FakeTraining(state)
    for step in (10, 20):
        ruined.train(10)
        ruined.checkpoint()
        ruined.sample(step)
    ruined.finish(ruined=REASON, good_steps=[10])
    with state.database.write() as session:
        dry_run = dry_runs.order_dry_run(session, RunRequest(of.key))
        drawn = state.store.put_bytes(make_png(1)).sha256
        shown = RoundTrip(before=drawn, after=drawn, psnr=21.5)
        dry_run.result = MEASURED.model_copy(update={"round_trips": (shown,)}).stored()
        jobs.store_finished(session, dry_run)
        save_run_as_preset(session, trained.run_id, "My preset")
        old = save_run_as_preset(session, trained.run_id, "Old preset")
        delete_preset(session, old.key)
        discard_run(session, deleted.run_id)
        discard_checkpoint(session, ruined.run_id, 20)
        row = session.get_one(fake_workers.Run, trained.run_id)
        row.notes = "Rank 3 is enough for chalk."
        session.add(row)
        checkpoints = session.exec(select(Adapter).where(Adapter.run_id == trained.run_id)).all()
    unlisted = next(row.slug for row in checkpoints if not row.is_listed)
    return {
        "dry_run": dry_run.key,
        "trained": trained.run_id,
        "failed": failed.run_id,
        "canceled": canceled.run_id,
        "deleted_run": deleted.run_id,
        "deleted_preset": old.key,
        "ruined": ruined.run_id,
        "checkpoints": unlisted,
    }


def add_sweeps(state: AppState) -> Ids:
    """A sweep over ranks that has a winner, and one that is deleted."""
    sweep_id = fake_sweeps.start(state, fake_sweeps.request(fake_sweeps.images_of_style(state)))
    fake_sweeps.run_to_the_end(
        state, lambda _, place, seed: 0.3 + 0.2 * place + 0.01 * seed * place
    )
    plan = fake_sweeps.read(state, sweep_id).plan
    with state.database.write() as session:
        old = Sweep(title="Old", status="succeeded", stage="full", plan=plan, deleted_at=utcnow())
        session.add(old)
        session.flush()
        return {"sweep": sweep_id, "deleted_sweep": old.key}


def add_waiting_runs(state: AppState, ids: Ids) -> None:
    """One run trains and one waits."""
    of = fake_workers.dataset(state, "Night", trigger_word="nightboard")
    ids["running"] = fake_workers.queued_run(state, of).key
    training = FakeTraining(state)
    training.sample(0)
    training.train(20)
    training.checkpoint()
    training.sample(20)
    ids["queued"] = fake_workers.queued_run(state, of).key


def add_adapters(state: AppState, client: httpx.Client) -> Ids:
    """Chalk has three versions, a deleted one and images; Ink was imported, and Gone is deleted."""
    with state.database.write() as session:
        chalk = session.exec(select(Adapter).where(Adapter.slug == "chalk")).one()
        made = {"tool": "resize", "version": 1, "rank_before": 8}
        made |= {"energy_min": 0.9, "energy_mean": 0.987, "relative_error": 0.1}
        for number in (2, 3, 4):
            sha256 = fake_workers.blob(state, f"version {number}".encode())
            details = {"made": made} if number == 3 else {}
            new = NewVersion("x", "sd1", sha256, 9, 4, 4.0, base_model_id=1, details=details)
            publish(session, new, adapter_id=chalk.key)
        discard_version(session, chalk.key, 4)
        imported = {"imported": "ink.safetensors", "import_notes": ["The alpha was missing."]}
        sha256 = fake_workers.blob(state, b"ink")
        new = NewVersion("Ink", "sd1", sha256, 3, 4, 4.0, base_model_id=1, details=imported)
        publish(session, new)
        sha256 = fake_workers.blob(state, b"gone")
        gone = publish(session, NewVersion("Gone", "sd1", sha256, 4, 4, 4.0, base_model_id=1))
        delete_adapter(session, gone.adapter_id)
    about = {"name": "Chalk", "trigger_words": "chalkboard", "tags": "chalk, board"}
    post(client, "/adapters/chalk?v=1&done=1", **about, license="CC0-1.0", notes="Best at 0.8.")
    post(client, "/adapters/chalk/aliases", version="1", alias="best")
    post(client, "/adapters/chalk/aliases", version="1", alias="latest")
    renders = [
        int(client.post("/api/v1/renders", json=body).json()["id"])
        for body in (
            {"prompt": "a castle", "adapters": [{"id": chalk.key, "weight": 0.8}], "twin": True},
            {"prompt": "a hidden fox", "adapters": [{"id": chalk.key}]},
            {"prompt": "a deleted fox", "adapters": [{"id": chalk.key}]},
        )
    ]
    asked = {
        "adapter-0": "chalk",
        "weight-0": "0.8",
        "on-0": "1",
        "prompt": "a castle",
        "seed": "7",
    }
    other = {"adapter-1": "ink", "weight-1": "0.4", "on-1": "1"}
    post(client, "/play/strip", **asked, **other)
    post(client, "/play/strip", **asked, checkpoints="0", slot="f" * 16)
    grid = {
        "request": {"prompt": "a castle", "seed": 7, "adapters": [{"id": chalk.key}]},
        "columns": {"kind": "weight", "values": "0.5, 1"},
        "rows": {"kind": "prompt", "values": "a fox\nan owl"},
        "sheets": {"kind": "steps", "values": "10, 20"},
    }
    wide = {"columns": {"kind": "weight", "values": "0.2 to 1 by 0.2"}}
    grids = [
        client.post("/api/v1/grids", json=grid | {"title": title} | more)
        for title, more in (("", {}), ("Gone", wide), ("Old", {}))
    ]
    client.post(f"/grids/{grids[1].json()['id']}/cancel")
    client.post(f"/grids/{grids[2].json()['id']}/delete")
    fake_workers.draw(state)
    kept = {"prompt": "a castle", "seed": 7, "adapters": [{"id": chalk.key, "weight": 0.8}]}
    client.post("/api/v1/recipes", json={"name": "Evening chalk", "request": kept})
    assert client.post("/api/v1/prompt-sets", json={"name": "Everyday"}).status_code == 201
    post(client, f"/adapters/chalk/renders/{renders[1]}/hide")
    post(client, f"/adapters/chalk/renders/{renders[2]}/delete")
    waiting = client.post("/api/v1/renders", json={"prompt": "a boat"}).json()["id"]
    refused = client.post("/api/v1/renders", json={"prompt": "a cat", "seed": 5}).json()["id"]
    client.post(f"/renders/{refused}/cancel")
    searched = client.post("/api/v1/style-searches", files={"file": ("a.png", make_png(1))})
    return {
        "search": searched.json()["id"],
        "render": renders[0],
        "waiting_render": waiting,
        "canceled_render": refused,
        "grid": grids[0].json()["id"],
        "canceled_grid": grids[1].json()["id"],
        "deleted_grid": grids[2].json()["id"],
        "gone": gone.adapter_id,
        "chalk": chalk.key,
    }


def end_resize(state: AppState, status: JobStatus, **values: object) -> int:
    """End the oldest waiting job that resizes an adapter."""
    return end_io_job(
        state.database, lambda job: job.kind == "resize_adapter", status, **values
    ).key


def start_blind_tests(state: AppState, run: int) -> Ids:
    """Blind tests of checkpoints, with a quarter of the images that they really draw."""
    usual = preferences.planned

    def planned(candidates: int, **options: Any) -> preferences.Plan:
        return replace(usual(candidates, **options), scenes=24)

    steps = [CandidateRequest(run_id=run, step=step) for step in (20, 40, 30)]
    asked = {"blind_decided": steps[:2], "blind_open": steps[:2], "blind_three": steps}
    found: Ids = {}
    with patch.object(preferences, "planned", planned), state.database.write() as session:
        for name, candidates in asked.items():
            wanted = BlindRequest(question=Question.KEEP, candidates=candidates)
            plan = plan_blind_test(session, wanted)
            found[name] = blind_tests.start(session, plan, state.store).key
    return found


def judge_blind_tests(state: AppState, ids: Ids) -> None:
    """One is decided and one is ended early."""
    for name, most in (("blind_decided", 30), ("blind_three", 6)):
        with state.database.read() as session:
            test = blind_tests.get_blind_test(session, int(ids[name]))
        judge(state, test, better(1), most=most)
    with state.database.write() as session:
        blind_tests.end(session, int(ids["blind_three"]))


def add_jobs(state: AppState, client: httpx.Client, ids: Ids) -> Ids:
    """Imports and tools: waiting, done, refused."""
    data = {"resize-rank": "4", "version": "1"}
    post(client, "/adapters/chalk/tools/resize", **data)
    result = {"adapter_id": 1, "slug": "chalk", "name": "Chalk", "version": 3}
    result |= {"rank_min": 4, "rank_max": 4, "energy_min": 0.9, "energy_mean": 0.9}
    with state.database.read() as session:
        chalk = session.exec(select(Adapter).where(Adapter.slug == "chalk")).one()
    result |= {"adapter_id": chalk.key, "relative_error": 0.2}
    tool = end_resize(state, JobStatus.SUCCEEDED, result=result)
    post(client, f"/tool-jobs/{tool}/images")
    client.post(f"/renders/{ids['waiting_render']}/cancel")
    post(client, f"/runs/{ids['trained']}/evaluation", subjects="6", checkpoints="2")
    blind = start_blind_tests(state, int(ids["trained"]))
    fake_workers.draw(state)
    judge_blind_tests(state, blind)
    steps = [
        {"step": step, "style": style, "low": style - 0.1, "high": style + 0.1, "variety": 1.0}
        | {"adherence": 0.9, "copy_ratio": None, "is_equal": step == 40, "closest": [[0, 0.4]]}
        for step, style in ((20, 0.6), (40, 0.65))
    ]
    found = {"steps": steps, "recommended": 20, "reason": "Both look equally close."}
    found |= {"deciding": [2, 0], "notes": ["Copying is not measured: no images were held out."]}
    end_io_job(
        state.database, lambda job: job.kind == "evaluate_run", JobStatus.SUCCEEDED, result=found
    )
    style = fake_workers.dataset(state, "Chalk drawings", pictures=8)
    post(client, "/adapters/chalk/weights?v=1", subjects="6", dataset_id=str(style.key))
    fake_workers.draw(state)
    card = WeightCard(start=0.37, best=0.8, breaks=1.5, base="starter")
    rows = [
        {"weight": weight, "style": style, "low": style - 0.1, "high": style + 0.1}
        | {"patches": style, "adherence": 1 - weight / 4}
        for weight, style in ((0.2, 0.05), (0.4, 0.4), (0.6, 0.7), (0.8, 0.8), (1.0, 0.79))
    ]
    found = {"weights": rows, "card": asdict(card)}
    end_io_job(
        state.database,
        lambda job: job.kind == "evaluate_weights",
        JobStatus.SUCCEEDED,
        result=found,
    )
    with state.database.write() as session:
        version = session.exec(
            select(AdapterVersion).where(
                AdapterVersion.adapter_id == chalk.key, AdapterVersion.version == 1
            )
        ).one()
        keep_weight_card(session, chalk, version, base_models.ensure_embedded(session), card)
    waiting = client.post("/api/v1/renders", json={"prompt": "a boat at night"}).json()["id"]
    post(client, "/adapters/chalk/tools/resize", **data | {"resize-rank": "2"})
    failed = end_resize(state, JobStatus.FAILED, error="The disk became full.")
    client.post("/hub-imports", data={"source": "acme/ink"})
    with state.database.read() as session:
        newest = session.exec(select(IoJob).order_by(col(IoJob.id).desc())).first()
    assert newest is not None
    return blind | {
        "tool": tool,
        "failed_tool": failed,
        "waiting_render": waiting,
        "hub_import": newest.key,
    }


def add_bases(state: AppState) -> None:
    """Base models in every state beside the embedded one."""
    own = BaseModel(slug="own", name="own", source="/models/own", status=ModelStatus.READY)
    own.family, own.resolution, own.size_bytes = "sd1", 512, 2_000_000_000
    own.parameters, own.prediction_type = {"unet": 859_520_964}, "v_prediction"
    bad = BaseModel(slug="bad", name="bad", source="/models/bad", status=ModelStatus.FAILED)
    bad.error = "This folder holds no UNet."
    new = BaseModel(slug="new", name="new", source="/models/new")
    past = BaseModel(slug="past", name="past", source=f"{RETIRED}1")
    past.status = ModelStatus.REMOVED
    past.family, past.created_at = "sd1", utcnow()
    size = BaseModel(slug="size", name="size", source="hf://acme/size", status=ModelStatus.FAILED)
    size.error, size.size_bytes = f"{added_models.NOT_YET} its files take 20.5 GB.", 20_500_000_000
    counts = {"unet": 6_154_908_736, "text_encoder": 4_022_468_096, "vae": 83_819_683}
    flows = [
        BaseModel(slug=name, name=name, source=f"/models/{name}", variant=name, parameters=counts)
        for name in ("base", "turbo")
    ]
    for flow in flows:
        flow.status, flow.family, flow.resolution = ModelStatus.READY, "zimage", 1024
    with state.database.write() as session:
        session.add_all([own, bad, new, past, size, *flows])


def add_caption_models(state: AppState) -> None:
    """Caption models in every state."""
    blip = CaptionModel(slug="blip", name="blip", source=str(state.settings.data_dir))
    blip.status, blip.family, blip.size_bytes = ModelStatus.READY, "blip", 990_000_000
    bad = CaptionModel(slug="bad", name="bad", source="/models/bad")
    bad.status, bad.error = ModelStatus.FAILED, "/models/bad has no config.json."
    new = CaptionModel(slug="new", name="new", source="/models/new")
    with state.database.write() as session:
        session.add_all([blip, bad, new])
        added_models.add(session, CAPTION_MODELS, "acme/tagger", state.settings)

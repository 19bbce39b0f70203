"""Work for the screenshots to show, done through the REST API by a real stack."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from app.cli.demo import Api
from worker.core.starter.examples import CHALKBOARD
from worker.core.training.presets import Preset

POLL_SECONDS = 0.2
JOB_SECONDS = 3_600.0
"""Longest wait for a job; a preset takes minutes on two busy cores."""

SEED = 7  # of every image that is generated
SUBJECTS = ("dog", "dragon", "cat", "umbrella")
"""Prompts to try: no image of the example shows them, and no sample of the runs."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that succeeded, with the adapter it trained."""

    run_id: int
    dataset_id: int
    adapter_id: int
    adapter_slug: str


@dataclass(frozen=True)
class Pair:
    """PNG images of one prompt and seed, without and with the adapter."""

    without: bytes
    with_adapter: bytes


def wait_for_base(api: Api) -> None:
    """Wait until an io worker has inspected the embedded base model. Raises TimeoutError."""
    deadline = time.monotonic() + JOB_SECONDS
    while not any(base["status"] == "ready" for base in api.get("/api/v1/base-models").json()):
        if time.monotonic() > deadline:
            raise TimeoutError("The embedded base model did not become ready.")
        time.sleep(POLL_SECONDS)


def start_run(api: Api, dataset_id: int, name: str, preset: Preset) -> int:
    """Queue a run on the embedded base model, with the seed of every preset; return its id."""
    config = {"evaluate": False}  # what is drawn meanwhile would be in the photographs
    body = {"dataset_id": dataset_id, "name": name, "preset": preset, "config": config}
    return int(api.make("/api/v1/runs", body)["id"])


def wait_for_share(api: Api, run_id: int, share: float) -> None:
    """Wait until this share (0 to 1) of the run's steps is done. Raises TimeoutError."""
    deadline = time.monotonic() + JOB_SECONDS
    while time.monotonic() < deadline:
        run = api.get(f"/api/v1/runs/{run_id}").json()
        if run["status"] not in ("queued", "running"):
            raise RuntimeError(f"Run {run_id} is {run['status']}, not training: {run['error']}")
        if run["step"] >= share * run["total_steps"] > 0:
            return
        time.sleep(POLL_SECONDS)
    raise TimeoutError(f"Run {run_id} did not get so far in {JOB_SECONDS:.0f} s.")


def wait_for_run(api: Api, run_id: int) -> FinishedRun:
    """Wait until the run has succeeded. Raises DemoError if it fails."""
    run = api.wait(f"/api/v1/runs/{run_id}", seconds=JOB_SECONDS)
    adapter = api.get(f"/api/v1/adapters/{run['adapter_id']}").json()
    return FinishedRun(run_id, run["dataset_id"], adapter["id"], adapter["slug"])


def describe_adapter(url: str, adapter_id: int) -> None:
    """Fill in what a person would note about the adapter of the example."""
    notes = {"tags": ["chalk", "drawing"], "license": "Apache-2.0", "starred": True}
    notes["notes"] = "Colored chalk on a green board, learned from 24 captioned drawings."
    httpx.patch(f"{url}/api/v1/adapters/{adapter_id}", json=notes).raise_for_status()


def newest_run(api: Api) -> FinishedRun:
    """The newest run that succeeded. Raises LookupError if there is none."""
    for run in api.get("/api/v1/runs", params={"status": "succeeded"}).json():
        return wait_for_run(api, run["id"])
    raise LookupError("No finished run is in this data folder: run without --reuse first.")


def prompt_of(subject: str) -> str:
    """The prompt for a subject in the style of the example."""
    return CHALKBOARD.caption(subject)


def subject_of(prompt: str) -> str:
    """The subject of such a prompt."""
    return prompt.split(",")[0]


def render_pairs(api: Api, adapter_id: int, subjects: Sequence[str] = SUBJECTS) -> list[Pair]:
    """Generate one image per subject with the adapter at weight 1, and the same without it."""
    created = []
    for subject in subjects:
        body = {"prompt": prompt_of(subject), "seed": SEED, "twin": True}
        created.append(api.make("/api/v1/renders", body | {"adapters": [{"id": adapter_id}]}))
    return [
        Pair(
            without=_render_image(api, each["twin_id"]), with_adapter=_render_image(api, each["id"])
        )
        for each in created
    ]


def _render_image(api: Api, render_id: int) -> bytes:
    render = api.wait(f"/api/v1/renders/{render_id}", seconds=JOB_SECONDS)
    return api.get(render["images"][0]["url"]).content

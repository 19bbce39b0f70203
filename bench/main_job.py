"""Measures the cost of the main job on this machine: `python bench/main_job.py`.

Runs the real stack in a temporary folder and prints, each from this one run: page times, the time
from an accepted run to its first training step, the quick preset on the example, a 20-step
preview, the memory of every process, and what a `kill -9` of the trainer and of the train worker
costs: resumed after how long, at which step, and whether the file is bit-equal to that of an
uninterrupted run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from app.cli.demo import Api, Stopwatch, running_stack
from worker.core import starter

PAGES = (
    "/",
    "/datasets",
    "/datasets/{slug}",
    "/train/new",
    "/runs",
    "/runs/{run}",
    "/adapters",
    "/adapters/{adapter}",
    "/play",
)
PAGE_LOADS = 30
PREVIEWS = 9
FINAL = ("succeeded", "failed", "canceled")


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, help="shorten the trainings (for a trial)")
    steps = arguments.parse_args().steps
    with (
        tempfile.TemporaryDirectory(prefix="brushwork-bench-") as folder,
        running_stack(Path(folder), Stopwatch()) as url,
        Api(url) as api,
    ):
        dataset = upload_example(api)
        wait_for(lambda: api.get("/api/v1/base-models").json()[0]["status"] == "ready")
        time.sleep(15)  # the spare is warm and has measured the machine
        config = {"steps": steps} if steps else {}
        calm = train(api, dataset["id"], "calm", config)
        report("run accepted → first step", f"{calm['first_step']:.2f} s")
        report("quick preset on the example", f"{calm['seconds']:.1f} s")
        report("peak memory of the trainer", megabytes(calm["peak_memory_bytes"]))
        previews(api, calm["adapter_id"])
        page_times(api, dataset["slug"], calm)
        for name, size in sorted(memory(url).items()):
            report(f"memory of {name}", megabytes(size))
        for victim in ("trainer", "train worker"):
            killed(api, dataset["id"], config, calm, victim, url)


def report(what: str, value: str) -> None:
    """One line of the table."""
    print(f"{what:<52} {value}", flush=True)


def megabytes(size: int) -> str:
    """A size in MB."""
    return f"{size / 1e6:.0f} MB"


def wait_for(look: Callable[[], Any], *, seconds: float = 600, pause: float = 0.02) -> float:
    """Seconds until `look` finds something."""
    began = time.monotonic()
    while not look():
        if time.monotonic() - began > seconds:
            raise TimeoutError("gave up waiting")
        time.sleep(pause)
    return time.monotonic() - began


def upload_example(api: Api) -> dict[str, Any]:
    """The dataset of the bundled example."""
    dataset = api.post("/api/v1/datasets", {"name": "Chalk", "trigger_word": "chalkboard"})
    rows = [
        json.loads(row) for row in (starter.EXAMPLE / "metadata.jsonl").read_text().splitlines()
    ]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for row in rows:
            caption = Path(folder) / f"{Path(row['file_name']).stem}.txt"
            caption.write_text(row["text"])
            files += [starter.EXAMPLE / row["file_name"], caption]
        began = time.monotonic()
        api.upload(f"/api/v1/datasets/{dataset['id']}/images", files)
    report(f"upload of {len(rows)} pictures with captions", f"{time.monotonic() - began:.2f} s")
    return dataset


def train(api: Api, dataset_id: int, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """A finished run of the preset quick, with `first_step` and `seconds` since it was accepted."""
    began = time.monotonic()
    place = start(api, dataset_id, name, config)
    wait_for(lambda: api.get(place).json()["step"] > 0 or ended(api, place))
    first_step = time.monotonic() - began
    wait_for(lambda: ended(api, place), pause=0.2)
    run: dict[str, Any] = api.get(place).json()
    if run["status"] != "succeeded":
        raise SystemExit(f"run {name} {run['status']}: {run['error']}")
    return run | {"first_step": first_step, "seconds": time.monotonic() - began}


def start(api: Api, dataset_id: int, name: str, config: dict[str, Any]) -> str:
    """The address of a run that was just accepted."""
    body = {"dataset_id": dataset_id, "preset": "quick", "name": name, "config": config}
    return f"/api/v1/runs/{api.post('/api/v1/runs', body)['id']}"


def ended(api: Api, place: str) -> bool:
    """True once the job at `place` is over."""
    return api.get(place).json()["status"] in FINAL


def previews(api: Api, adapter_id: int) -> None:
    """Median time of a 20-step image at a new weight, alone and with its twin."""
    for twin in (False, True):
        seconds = []
        for number in range(PREVIEWS):
            body = {
                "prompt": f"castle, chalkboard style {'twin' if twin else ''}",
                "seed": 100 + number,
                "steps": 20,
                "twin": twin,
                "adapters": [{"id": adapter_id, "weight": 0.5 + number / 20}],
            }
            began = time.monotonic()
            created = api.post("/api/v1/renders", body)
            wait_for(lambda: ended(api, f"/api/v1/renders/{created['id']}"))  # noqa: B023
            seconds.append(time.monotonic() - began)
        label = "20-step preview" + (" and its twin without the adapter" if twin else "")
        report(label, f"{statistics.median(seconds):.2f} s (slowest {max(seconds):.2f} s)")


def page_times(api: Api, slug: str, run: dict[str, Any]) -> None:
    """Median time of each page."""
    adapter = api.get(f"/api/v1/adapters/{run['adapter_id']}").json()["slug"]
    for page in PAGES:
        place = page.format(slug=slug, run=run["id"], adapter=adapter)
        seconds = []
        for _ in range(PAGE_LOADS):
            began = time.monotonic()
            api.get(place)
            seconds.append(time.monotonic() - began)
        report(f"page {page}", f"{statistics.median(seconds) * 1000:.0f} ms")


def memory(url: str) -> dict[str, int]:
    """Resident bytes of each process of the stack, by role."""
    sizes: dict[str, int] = {}
    for process in stack_processes(url):
        name = process_name(process)
        if name:
            sizes[name] = sizes.get(name, 0) + process.memory_info().rss
    return sizes


def stack_processes(url: str) -> list[psutil.Process]:
    """The supervisor that serves `url`, and its descendants."""
    port = int(url.rsplit(":", 1)[1])
    for child in psutil.Process().children():
        below = child.children(recursive=True)
        ports = {
            connection.laddr.port
            for process in [child, *below]
            for connection in process.net_connections("tcp")
        }
        if port in ports:
            return [child, *below]
    raise LookupError("no process of this stack was found")


def process_name(process: psutil.Process) -> str:
    """The role of a process of the stack; empty for guards of another process."""
    line = " ".join(process.cmdline())
    if "guard" in line:
        return "guards"
    for sign, name in (
        ("worker.runtime.trainer", "trainer (warm spare)"),
        ("valkey", "broker"),
        ("redis-server", "broker"),
        ("-m app serve", "supervisor"),
        ("-m app web", "web"),
        ("--queue train", "train worker"),
        ("--queue render", "render worker"),
        ("--queue io", "io worker"),
        ("multiprocessing", "render worker"),
        ("billiard", "render worker"),
        ("app.registry.datasets", "picture decoder"),
    ):
        if sign in line:
            return name
    return "other"


def killed(
    api: Api, dataset_id: int, config: dict[str, Any], calm: dict[str, Any], victim: str, url: str
) -> None:
    """Kill a process during a run; report when and where the run resumed, and how it ended."""
    place = start(api, dataset_id, f"{victim} killed", config)
    half = calm["total_steps"] * 0.6
    wait_for(lambda: api.get(place).json()["step"] >= half)
    step = api.get(place).json()["step"]
    target = "worker.runtime.trainer" if victim == "trainer" else "--queue train"
    processes = [p for p in stack_processes(url) if target in " ".join(p.cmdline())]
    busiest = max(processes, key=lambda process: sum(process.cpu_times()[:2]))
    busiest.kill()
    seconds = wait_for(
        lambda: (
            (run := api.get(place).json())["attempt"] > 1
            and run["resumed_at_step"] is not None
            and run["step"] > run["resumed_at_step"]
        )
    )
    wait_for(lambda: ended(api, place), pause=0.2)
    run = api.get(place).json()
    report(f"kill -9 of the {victim} at step {step}", f"first new step after {seconds:.1f} s")
    report("  resumed at step", str(run["resumed_at_step"]))
    hashes = [
        api.get(f"/api/v1/adapters/{row['adapter_id']}").json()["sha256"] for row in (calm, run)
    ]
    equal = "yes" if hashes[0] == hashes[1] else "NO"
    report("  final file equal to the uninterrupted one", equal)


if __name__ == "__main__":
    main()

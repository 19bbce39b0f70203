"""Measures the cost of the main job on this machine: `python bench/main_job.py`.

Runs the real stack in temporary folders. `--part first` measures the first seconds several times
(`--times`), and prints the median and the worst: from start to page, the first image after it, a
cached image, the first step of a run that is accepted as the page answers and of one straight after
another run, and the memory of the idle stack, as the sum of proportional set sizes (PSS).

`--part job` prints, each from one run: page times, the time from an accepted run to its first
training step, the quick preset on the example, a 20-step preview, the memory of every process, and
what a `kill -9` of the trainer and of the train worker costs: resumed after how long, at which
step, and whether the file is bit-equal to that of an uninterrupted run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from app.cli.demo import Api, Stopwatch, running_stack
from worker.core.starter.examples import CHALKBOARD

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
IDLE_SECONDS = 20  # until everything is warm and the machine is measured
SHORT_RUN = {"steps": 20, "sample_every": 0}
FORKS = {
    "web": "web",
    "worker-train": "train worker",
    "worker-render": "render worker",
    "worker-io": "io worker",
    "fork-libraries": "fork server: libraries",
    "trainer": "trainer (warm spare)",
}
"""The role of a fork by its name."""
FINAL = ("succeeded", "failed", "canceled")


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--part", choices=("first", "job"), help="only this one")
    arguments.add_argument("--times", type=int, default=3, help="repeats of the first seconds")
    arguments.add_argument("--steps", type=int, help="shorten the trainings (for a trial)")
    chosen = arguments.parse_args()
    config = {"steps": chosen.steps} if chosen.steps else {}
    report("load of this machine", " ".join(f"{one:.1f}" for one in os.getloadavg()))
    if chosen.part != "job":
        first_seconds(chosen.times)
    if chosen.part != "first":
        main_job(config)


def first_seconds(times: int) -> None:
    """The first seconds of a new installation and of a start after it, median and worst."""
    found: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {}
    for _ in range(times):
        with tempfile.TemporaryDirectory(prefix="brushwork-bench-") as folder:
            for name, value in [*first_images(Path(folder), sizes), *first_runs(Path(folder))]:
                found.setdefault(name, []).append(value)
    for name, seconds in found.items():
        report(name, f"{statistics.median(seconds):.2f} s (slowest {max(seconds):.2f} s)")
    for name, values in sorted(sizes.items()):
        report(f"idle memory (PSS): {name}", megabytes(max(values)))


def first_images(folder: Path, sizes: dict[str, list[float]]) -> list[tuple[str, float]]:
    """Page, first image, warm and cached image of a first start; `sizes` gets its idle memory."""
    began = time.monotonic()
    with running_stack(folder, Stopwatch()) as url, Api(url) as api:
        page = time.monotonic()
        await_base(api)
        image_seconds(api, seed=0)
        first = time.monotonic() - page
        time.sleep(IDLE_SECONDS)
        warm = statistics.median(image_seconds(api, seed=seed) for seed in range(1, 4))
        cached = image_seconds(api, seed=0)
        time.sleep(IDLE_SECONDS)
        by_role = idle_memory(url)
        for name, size in (by_role | {"all": sum(by_role.values())}).items():
            sizes.setdefault(name, []).append(size)
        add_example(api)
    return [
        ("start → page", page - began),
        ("page → first image", first),
        ("warm image", warm),
        ("first image, later than a warm one by", first - warm),
        ("cached image", cached),
    ]


def first_runs(folder: Path) -> list[tuple[str, float]]:
    """The first step of a run that is accepted as the page answers, and of one straight after."""
    with running_stack(folder, Stopwatch()) as url, Api(url) as api:
        dataset = api.get("/api/v1/datasets").json()[0]["id"]
        first, second = (train(api, dataset, name, SHORT_RUN) for name in ("first", "second"))
    return [
        ("run at the page's first answer → first step", first["first_step"]),
        ("run straight after another → first step", second["first_step"]),
    ]


def await_base(api: Api) -> None:
    """Wait until the embedded base model can be used."""
    wait_for(lambda: [one["status"] for one in api.get("/api/v1/base-models").json()] == ["ready"])


def image_seconds(api: Api, *, seed: int) -> float:
    """Seconds until a 20-step image was asked for and is there."""
    began = time.monotonic()
    created = api.make("/api/v1/renders", {"prompt": "a castle", "seed": seed, "steps": 20})
    if created["status"] not in FINAL:
        wait_for(lambda: ended(api, f"/api/v1/renders/{created['id']}"))
    return time.monotonic() - began


def main_job(config: dict[str, Any]) -> None:
    """The main job, once."""
    with (
        tempfile.TemporaryDirectory(prefix="brushwork-bench-") as folder,
        running_stack(Path(folder), Stopwatch()) as url,
        Api(url) as api,
    ):
        dataset = add_example(api)
        await_base(api)
        time.sleep(IDLE_SECONDS)  # the spare is warm and has measured the machine
        calm = train(api, dataset["id"], "calm", config)
        report("run accepted → first step", f"{calm['first_step']:.2f} s")
        report("quick preset on the example", f"{calm['seconds']:.1f} s")
        report("peak memory of the trainer", megabytes(calm["peak_memory_bytes"]))
        previews(api, calm["adapter_id"])
        page_times(api, dataset["slug"], calm)
        for name, size in sorted(idle_memory(url).items()):
            report(f"memory (PSS) of {name}", megabytes(size))
        for victim in ("trainer", "train worker"):
            killed(api, dataset["id"], config, calm, victim, url)


def report(what: str, value: str) -> None:
    """One line of the table."""
    print(f"{what:<52} {value}", flush=True)


def megabytes(size: float) -> str:
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


def add_example(api: Api) -> dict[str, Any]:
    """The dataset of the bundled example."""
    began = time.monotonic()
    dataset = api.make("/api/v1/examples", {"style": CHALKBOARD.key})
    taken = f"{time.monotonic() - began:.2f} s"
    report(f"intake of {dataset['image_count']} pictures with captions", taken)
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
    return f"/api/v1/runs/{api.make('/api/v1/runs', body)['id']}"


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
            created = api.make("/api/v1/renders", body)
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


def idle_memory(url: str) -> dict[str, float]:
    """Bytes of each process of the stack by role; memory that n processes share counts 1/n."""
    sizes: dict[str, float] = {}
    for process in stack_processes(url):
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            kibibytes = int(rollup.partition("\nPss:")[2].split()[0])
            name = process_name(process)
            sizes[name] = sizes.get(name, 0.0) + kibibytes * 1024
    return sizes


def stack_processes(url: str) -> list[psutil.Process]:
    """The supervisor that serves `url`, and its descendants."""
    port = int(url.rsplit(":", 1)[1])
    for child in psutil.Process().children():
        below = child.children(recursive=True)
        if any(port in ports(process) for process in [child, *below]):
            return [child, *below]
    raise LookupError("no process of this stack was found")


def ports(process: psutil.Process) -> set[int]:
    """The local TCP ports of a process; none if it has just ended."""
    try:
        return {connection.laddr.port for connection in process.net_connections("tcp")}
    except psutil.NoSuchProcess:
        return set()


def process_name(process: psutil.Process) -> str:
    """The role of a process of the stack."""
    line = " ".join(process.cmdline())
    if "guard.py" in line or "forking/client.py" in line:
        return "guards and clients of forks"
    if forked := FORKS.get(process.name()):
        return forked
    for sign, name in (
        ("forking.server", "fork server: registry"),
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
    target = "trainer (warm spare)" if victim == "trainer" else victim
    processes = [p for p in stack_processes(url) if process_name(p) == target]
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

"""Measures the playground while many tabs move a weight: `python -m bench.load`.

Runs the real stack on an empty data folder and trains an adapter briefly. Then one tab alone
and many at once (`--tabs`) do what a person does, each for `--seconds`: move the weight of the
adapter several times, a little faster than an image takes; wait for the image; look at it. They
send the requests of the page and poll as it does.

wait      from the last move to the image with that weight, median and 95th percentile
in turn   the median wait of the slowest tab as a multiple of that of the quickest one
wasted    denoising steps of redraws that a newer one replaced, of all steps, as last reported
answer    how long the server took to accept a redraw
memory    proportional set size of a process before, in the middle of and after the load

It ends with an error if an image had another weight than the tab's last one, or if a redraw is
unfinished at the end.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlmodel import col, select

from app.cli.demo import Api, Stopwatch, running_stack
from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.renders import Render
from bench.main_job import (
    SHORT_RUN,
    add_example,
    await_base,
    idle_memory,
    megabytes,
    report,
    train,
)
from bench.registry import percentile

MOVES = 5
MOVE_SECONDS = 0.3  # the page waits 0.15 s after a movement; nobody is much quicker
POLL_SECONDS = 0.25
LOOK_SECONDS = 1.0
LATEST_SECONDS = 300.0
RENDER_LINK = re.compile(r'hx-get="/renders/(\d+)/live')
SHOWN = re.compile(r'name="shown" value="(\d+)"')


class LoadError(Exception):
    """A tab saw what it must not see."""


@dataclass
class Tab:
    """A browser tab with the playground.

    `waits` and `answers` are seconds, `seen` the weight that was asked for last before the image of
    a render was shown.
    """

    url: str
    adapter: str
    stop: float
    steps: int | None  # None: the usual ones
    waits: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    seen: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._slot = secrets.token_hex(16)
        self._seed = str(secrets.randbelow(2**32))

    def run(self) -> None:
        """Move the weight, wait and look, until the time is over. Raises LoadError."""
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while time.monotonic() < self.stop:
                for _ in range(MOVES):
                    weight = round(secrets.randbelow(2_001) / 1_000, 3)
                    moved = time.monotonic()
                    render = self._redraw(client, weight)
                    time.sleep(max(0.0, moved + MOVE_SECONDS - time.monotonic()))
                self._await_image(client, render, weight)
                self.waits.append(time.monotonic() - moved)
                time.sleep(LOOK_SECONDS)

    def _redraw(self, client: httpx.Client, weight: float) -> int:
        began = time.monotonic()
        form = {
            "prompt": "a castle, chalkboard style",
            "seed": self._seed,
            "keep_seed": "1",
            "adapter-0": self.adapter,
            "on-0": "1",
            "weight-0": f"{weight}",
            "slot": self._slot,
            "live": "1",
        }
        if self.steps is not None:
            form["steps"] = str(self.steps)
        answer = client.post("/play/live", data=form, headers={"hx-request": "true"})
        self.answers.append(time.monotonic() - began)
        answer.raise_for_status()
        found = RENDER_LINK.search(answer.text) or SHOWN.search(answer.text)
        if found is None:
            raise LoadError(f"A redraw was refused: {answer.text[:300]}")
        return int(found[1])

    def _await_image(self, client: httpx.Client, render: int, weight: float) -> None:
        deadline = time.monotonic() + LATEST_SECONDS
        place, headers = f"/renders/{render}/live", {"hx-request": "true"}
        while RENDER_LINK.search(client.get(place, headers=headers).raise_for_status().text):
            if time.monotonic() > deadline:
                raise LoadError(f"No image after {LATEST_SECONDS:.0f} s.")
            time.sleep(POLL_SECONDS)
        self.seen[render] = weight


@dataclass(frozen=True)
class Load:
    """The view of some tabs in some seconds, and the memory (PSS) of each role at three moments."""

    tabs: Sequence[Tab]
    memory: Sequence[dict[str, float]]

    @property
    def waits(self) -> list[float]:
        """Seconds that all tabs waited for their images."""
        return [seconds for tab in self.tabs for seconds in tab.waits]

    @property
    def unfairness(self) -> float:
        """The median wait of the slowest tab, as a multiple of that of the quickest."""
        medians = [statistics.median(tab.waits) for tab in self.tabs if tab.waits]
        return max(medians) / min(medians)


def load(url: str, adapter: str, *, tabs: int, seconds: float, steps: int | None = None) -> Load:
    """Let tabs move the weight of an adapter for some seconds. Raises LoadError."""
    memory = [idle_memory(url)]
    stop = time.monotonic() + seconds
    all_tabs = [Tab(url, adapter, stop, steps) for _ in range(tabs)]
    middle = threading.Timer(seconds / 2, lambda: memory.append(idle_memory(url)))
    middle.start()
    with ThreadPoolExecutor(tabs) as pool:
        for done in [pool.submit(tab.run) for tab in all_tabs]:
            done.result()
    middle.join()
    return Load(all_tabs, [*memory, idle_memory(url)])


def drafts_since(data_dir: Path, first: int) -> list[Render]:
    """The redraws with this id or a later one."""
    database = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    with database.read() as session:
        query = select(Render).where(col(Render.draft_slot).is_not(None), col(Render.id) >= first)
        return list(session.exec(query))


def check(found: Load, drafts: Sequence[Render]) -> None:
    """Raise LoadError if a tab saw an older weight, or a redraw is unfinished."""
    finished = {
        one.key: one.stack[0].weight
        for one in drafts
        if one.stack and one.state is JobStatus.SUCCEEDED
    }
    for tab in found.tabs:
        if wrong := tab.seen.items() - finished.items():
            raise LoadError(f"A tab was shown another weight than its last one: {wrong}")
    if unfinished := [one.key for one in drafts if one.state.is_active]:
        raise LoadError(f"Redraws are unfinished: {unfinished}")


def print_load(found: Load, drafts: Sequence[Render], seconds: float) -> None:
    """The lines of one load. Raises LoadError as `check`."""
    check(found, drafts)
    waits, answers = found.waits, [one for tab in found.tabs for one in tab.answers]
    report("images seen", f"{len(waits)} in {seconds:.0f} s and the time to finish them")
    report(
        "wait after the last move",
        f"{statistics.median(waits):.2f} s, p95 {percentile(waits, 0.95):.2f} s",
    )
    report("slowest tab : quickest tab", f"{found.unfairness:.2f}")
    drawn = [one for one in drafts if one.state is JobStatus.SUCCEEDED and not one.from_cache]
    canceled = [one for one in drafts if one.state is JobStatus.CANCELED]
    wasted, made = (sum(one.progress for one in rows) for rows in (canceled, drawn))
    report("redraws", f"{len(drawn)} finished, {len(canceled)} replaced")
    report("wasted steps", f"{wasted} of {wasted + made} = {wasted / (wasted + made):.0%}")
    usual, slow = (1000 * one for one in (statistics.median(answers), percentile(answers, 0.95)))
    report("answer to a redraw", f"{usual:.0f} ms, p95 {slow:.0f} ms")
    for role in ("render worker", "web"):
        report(
            f"memory (PSS) of {role}",
            " → ".join(megabytes(sizes.get(role, 0.0)) for sizes in found.memory),
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tabs", type=int, default=20)
    arguments.add_argument("--seconds", type=float, default=120.0)
    chosen = arguments.parse_args(argv)
    report("load of this machine", " ".join(f"{one:.1f}" for one in os.getloadavg()))
    report("processors", f"{os.cpu_count()} ({platform.machine()})")
    with (
        tempfile.TemporaryDirectory(prefix="brushwork-bench-") as folder,
        running_stack(Path(folder), Stopwatch()) as url,
        Api(url) as api,
    ):
        await_base(api)
        run = train(api, add_example(api)["id"], "load", SHORT_RUN)
        adapter: dict[str, Any] = api.get(f"/api/v1/adapters/{run['adapter_id']}").json()
        data_dir, medians = Path(folder) / "data", []
        load(url, adapter["slug"], tabs=1, seconds=5)  # everything is loaded
        for tabs in dict.fromkeys((1, chosen.tabs)):
            print(f"\n{tabs} {'tab' if tabs == 1 else 'tabs'}")
            first = max((one.key for one in drafts_since(data_dir, 0)), default=0) + 1
            found = load(url, adapter["slug"], tabs=tabs, seconds=chosen.seconds)
            print_load(found, drafts_since(data_dir, first), chosen.seconds)
            medians.append(statistics.median(found.waits))
        share = medians[-1] / (chosen.tabs * medians[0])
        print()
        report(f"wait with {chosen.tabs} tabs, of {chosen.tabs} × that of one", f"{share:.2f}")


if __name__ == "__main__":
    main()

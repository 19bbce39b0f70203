"""Load with random kills on a real stack, then a check that nothing is lost: `make soak`.

    python -m tests.faults.soak --seconds 1200 --seed 7 --json build/soak.json

The exit code is 1 if a promise was broken. Leases have their usual 20 seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import tempfile
import time
from pathlib import Path

import psutil

from app.registry.paths import ROOT
from tests.faults.soak import integrity
from tests.faults.soak.figures import Figures
from tests.faults.soak.growth import Growth
from tests.faults.soak.kills import Kills
from tests.faults.soak.load import Load
from tests.faults.stacks import FaultyStack, running_stack

SECONDS = 20 * 60
SAVED = ROOT / "build" / "soak.json"
LEASE = {"BRUSHWORK_LEASE_SECONDS": "20"}
REPORT_SECONDS = 60.0


def main() -> int:
    """Soak, print the figures, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--json", type=Path, default=SAVED)
    asked = parser.parse_args()
    print(f"Soak of {asked.seconds:.0f} s with the seed {asked.seed}.", flush=True)
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="brushwork-soak-") as folder:
        data_dir = Path(folder)
        with running_stack(data_dir, LEASE) as stack:
            growth = soak(stack, figures, seconds=asked.seconds, seed=asked.seed)
            processes = [psutil.Process(pid) for pid in stack.pids() if psutil.pid_exists(pid)]
        for process in processes:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                figures.break_promise(f"a process is left: {process.cmdline()}")
        for sentence in (*integrity.check_files(data_dir), *growth.broken()):
            figures.break_promise(sentence)
    for line in (*figures.tables(), *growth.tables()):
        print(line)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    about = {"seconds": asked.seconds, "seed": asked.seed, "machine": platform.platform()}
    about |= {"cores": psutil.cpu_count(), "growth": growth.as_json()}
    asked.json.write_text(json.dumps(about | figures.as_json(), indent=1) + "\n")
    print(f"All figures are in {asked.json}.")
    for sentence in figures.broken:
        print(f"BROKEN: {sentence}")
    print("A promise was broken." if figures.broken else "Every promise was kept.")
    return 1 if figures.broken else 0


def soak(stack: FaultyStack, figures: Figures, *, seconds: float, seed: int) -> Growth:
    """Load and kill for so long, then wait until all jobs are done and check them."""
    load, kills, growth = Load(stack, figures, seed), Kills(stack, figures, seed), Growth(stack)
    for part in (growth, load, kills):
        part.start()
    try:
        ends = time.monotonic() + seconds
        while (rest := ends - time.monotonic()) > 0:
            time.sleep(min(REPORT_SECONDS, rest))
            done, killed = sum(figures.requests.values()), sum(figures.kills.values())
            print(f"{done:,} requests, {killed} kills, {len(figures.broken)} broken", flush=True)
    finally:
        kills.stop()
        load.stop()
    began = time.monotonic()
    if not integrity.wait_until_quiet(stack.registry):
        figures.break_promise("jobs were still waiting long after the load had ended")
    print(f"The jobs that still waited took {time.monotonic() - began:.0f} s.", flush=True)
    integrity.check_jobs(stack.registry, load.ledger, figures)
    growth.stop()
    return growth


if __name__ == "__main__":
    raise SystemExit(main())

"""Measures how datasets of 5,000 images go in and out: `python -m bench.dataset_transfer`.

Draws images, each another one, imports them as a folder, exports the dataset, and imports that
archive into the same dataset and into a new one, as `brushwork datasets` does; then sends and gets
the archive over HTTP from a real web server. Every part runs in a process of its own and is printed
with its wall time, its CPU time with that of the decoders, and the most memory that the process
itself had, beside the same parts of a tenth of the images: memory that grows with their number
shows. Last a ZIP archive of 500 images beside 500 requests with an image each, fifty of each kind
in turn.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from PIL import Image, ImageDraw

from app.registry import migrate
from app.registry.config import Settings
from app.registry.datasets import service, uploads
from app.registry.datasets.transfer.exporting import dataset_contents, export_chunks
from app.registry.db import make_engine
from app.registry.state import AppState, make_state
from app.registry.uploads import UploadedFile
from bench.registry import describe_machine

IMAGES = 5_000
SIDE = 256  # pixels
ROUNDS = 10
A_ROUND = 50  # images one by one, then as many in an archive
MIB = 1 << 20
PROGRESS = {"accept": "application/x-ndjson"}


@dataclass(frozen=True)
class Cost:
    """The cost of a part: seconds, CPU seconds with children, and MiB of the process at most."""

    outcome: str
    wall: float
    cpu: float
    memory: float


def draw(number: int, side: int) -> bytes:
    """A PNG of shapes on a noisy ground, another one for every number."""
    dice = random.Random(number)
    small = Image.frombytes("RGB", (32, 32), dice.randbytes(32 * 32 * 3))
    image = small.resize((side, side), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        left, top = dice.randrange(side), dice.randrange(side)
        box = (left, top, left + dice.randint(10, side), top + dice.randint(10, side))
        pen.ellipse(box, fill=tuple(dice.randbytes(3)))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def draw_folder(folder: Path, images: int, side: int) -> None:
    """Draw images with a caption beside each."""
    folder.mkdir()
    for number in range(images):
        (folder / f"drawing {number:05}.png").write_bytes(draw(number, side))
        (folder / f"drawing {number:05}.txt").write_text(f"inkwash, shape {number} of many\n")


def settings_of(folder: Path) -> Settings:
    """Settings of a registry in this folder."""
    return Settings(
        _env_file=None,
        data_dir=folder / "data",
        database_url=f"sqlite:///{folder}/brushwork.db",
        broker_url=f"filesystem://{folder}/broker",
        allowed_hosts="localhost,127.0.0.1",
    )


def import_files(state: AppState, paths: Sequence[Path], into: str) -> str:
    """Add files to the dataset of this slug, which is made if there is none."""
    with state.database.write() as session:
        known = {row.dataset.slug: row.dataset for row in service.list_datasets(session)}
        dataset = known.get(into) or service.create_dataset(session, into)
    files = [UploadedFile(path.name, path) for path in paths]
    seen = 0

    def count(progress: uploads.UploadProgress) -> None:
        nonlocal seen
        seen += 1

    outcome = uploads.receive(state, dataset.key, files, on_image=count)
    again = sum(added.duplicate for added in outcome.accepted)
    return (
        f"{len(outcome.accepted) - again} added, {again} there already, "
        f"{len(outcome.rejected)} refused, {seen} times progress"
    )


def import_folder(folder: Path) -> str:
    """Import the drawn images."""
    return _with_state(
        folder, lambda state: import_files(state, sorted((folder / "drawn").iterdir()), "drawn")
    )


def export(folder: Path) -> str:
    """Write the archive of the dataset."""

    def write(state: AppState) -> str:
        with state.database.snapshot() as session:
            contents = dataset_contents(session, service.dataset_by_slug(session, "drawn").key)
        with (folder / "export.zip").open("wb") as file:
            file.writelines(export_chunks(state.store, contents))
            return f"{file.tell() / MIB:.0f} MiB"

    return _with_state(folder, write)


def import_again(folder: Path) -> str:
    """Import the archive into the dataset it is of."""
    return _with_state(folder, lambda state: import_files(state, [folder / "export.zip"], "drawn"))


def import_as_new(folder: Path) -> str:
    """Import the archive into another dataset."""
    return _with_state(folder, lambda state: import_files(state, [folder / "export.zip"], "copy"))


PARTS: dict[str, Callable[[Path], str]] = {
    "import a folder": import_folder,
    "export": export,
    "import again": import_again,
    "import as a new one": import_as_new,
}


def _with_state(folder: Path, work: Callable[[AppState], str]) -> str:
    state = make_state(settings_of(folder))
    try:
        return work(state)
    finally:
        state.close()


def run_part(name: str, folder: Path) -> Cost:
    """Carry out a part in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure, (name, folder))


def _measure(name: str, folder: Path) -> Cost:
    wall, cpu = time.perf_counter(), _cpu_seconds()
    outcome = PARTS[name](folder)
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    return Cost(outcome, wall, cpu, peak_memory(psutil.Process()))


def _cpu_seconds() -> float:
    """CPU time of this process and of the children that have ended."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in found)


@contextmanager
def web_server(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A web server of the registry in this folder: its address and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = settings_of(folder)
    environment = os.environ | {
        "BRUSHWORK_DATA_DIR": str(settings.data_dir),
        "BRUSHWORK_DATABASE_URL": str(settings.database_url),
        "BRUSHWORK_BROKER_URL": str(settings.broker_url),
    }
    command = [sys.executable, "-m", "app", "web", "--port", str(port)]
    with (folder / "web.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{url}/healthz")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def over_http(folder: Path) -> dict[str, Cost]:
    """Export and import of the archive by a browser."""
    found = {}
    for name, work in (("export over HTTP", _get), ("import again over HTTP", _send)):
        with web_server(folder) as (url, process):
            wall, cpu = time.perf_counter(), cpu_of(process)
            outcome = work(url, folder)
            wall, cpu = time.perf_counter() - wall, cpu_of(process) - cpu
            found[name] = Cost(outcome, wall, cpu, peak_memory(process))
    return found


def _get(url: str, folder: Path) -> str:
    size = 0
    with httpx.stream("GET", f"{url}/datasets/drawn/export", timeout=None) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_raw():
            size += len(chunk)
    return f"{size / MIB:.0f} MiB"


def _send(url: str, folder: Path) -> str:
    lines, last = 0, ""
    with (folder / "export.zip").open("rb") as file:
        files = {"files": ("export.zip", file, "application/zip")}
        send = httpx.stream(
            "POST", f"{url}/api/v1/datasets/1/images", files=files, headers=PROGRESS, timeout=None
        )
        with send as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                lines, last = lines + 1, line
    accepted = last.count('"duplicate"')
    again = last.count('"duplicate": true')
    return f"{accepted - again} added, {again} there already, {lines - 1} times progress"


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children, also of those that ended."""
    own = process.cpu_times()
    children = [child.cpu_times() for child in process.children(recursive=True)]
    ended = own.children_user + own.children_system
    return float(own.user + own.system + ended + sum(one.user + one.system for one in children))


def peak_memory(process: psutil.Process) -> float:
    """The most MiB that a running process had; Linux tells it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def archive_or_images(folder: Path, rounds: int, side: int) -> dict[str, Cost]:
    """The same number of images in archives and one by one, in turn, into two datasets."""
    totals = {"one by one": [0.0, 0.0, 0.0], "in an archive": [0.0, 0.0, 0.0]}
    with web_server(folder) as (url, process), httpx.Client(base_url=url, timeout=None) as client:
        ids = {}
        for name in totals:
            answer = client.post("/api/v1/datasets", json={"name": name})
            answer.raise_for_status()
            ids[name] = answer.json()["id"]
        number = 10**6  # none that was drawn before
        for _ in range(rounds):
            for name, total in totals.items():
                drawn = {f"{number + n}.png": draw(number + n, side) for n in range(A_ROUND)}
                number += A_ROUND
                address = f"/api/v1/datasets/{ids[name]}/images"
                requests = [{key: data} for key, data in drawn.items()]
                if name == "in an archive":
                    requests = [{"all.zip": _packed(drawn)}]
                wall, cpu = time.perf_counter(), cpu_of(process)
                for one in requests:
                    files = [("files", item) for item in one.items()]
                    answer = client.post(address, files=files)
                    answer.raise_for_status()
                    total[2] += len(answer.json()["accepted"])
                total[0] += time.perf_counter() - wall
                total[1] += cpu_of(process) - cpu
    return {
        name: Cost(f"{added:.0f} images", wall, cpu, 0)
        for name, (wall, cpu, added) in totals.items()
    }


def _packed(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def measure(images: int, side: int) -> dict[str, Cost]:
    """Every part for so many images."""
    with tempfile.TemporaryDirectory(prefix="brushwork-bench-") as name:
        folder = Path(name)
        engine = make_engine(settings_of(folder).sqlalchemy_url)
        migrate.upgrade(engine)
        engine.dispose()
        draw_folder(folder / "drawn", images, side)
        found = {part: run_part(part, folder) for part in PARTS}
        return found | over_http(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every part and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.dataset_transfer", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of {A_ROUND} images")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of the images")
    options = parser.parse_args(arguments)
    print(f"{describe_machine()}\n")
    few, many = (
        measure(number, options.side) for number in (max(1, options.images // 10), options.images)
    )
    print(
        f"| {options.images:,} images of {options.side} px | wall | CPU | most memory (a tenth) | |"
    )
    print("|---|---|---|---|---|")
    for part, cost in many.items():
        print(
            f"| {part} | {cost.wall:.1f} s | {cost.cpu:.1f} s | {cost.memory:.0f} MiB "
            f"({few[part].memory:.0f}) | {cost.outcome} |",
            flush=True,
        )
    with tempfile.TemporaryDirectory(prefix="brushwork-bench-") as name:
        engine = make_engine(settings_of(Path(name)).sqlalchemy_url)
        migrate.upgrade(engine)
        engine.dispose()
        found = archive_or_images(Path(name), options.rounds, options.side)
    for part, cost in found.items():
        print(f"| {part} | {cost.wall:.1f} s | {cost.cpu:.1f} s | | {cost.outcome} |")


if __name__ == "__main__":
    main()

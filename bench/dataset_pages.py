"""Measures the pages of a dataset of 5,000 images: `python -m bench.dataset_pages`.

Fills an empty database with a dataset of many images and one of a single page (48), and requests
the same addresses of both in turn, in this process (httpx over ASGI: routing, services, SQL and
templates, but no socket). Prints for each address the median and the 95th percentile of the CPU
time in milliseconds, then the median right after a caption was changed, when nothing holds any
longer that is kept for the dataset, and the median of the small dataset; last the shortest wall
time, which has the database server in it. Of three requests the shortest counts, because other work
may share the machine. SQLite is in a temporary folder and never analyzed, as in the app; PostgreSQL
is vacuumed and analyzed once, as its autovacuum does.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx
from fastapi import FastAPI

from app.registry.datasets.filters import Show, Sort
from app.registry.datasets.listing.pages import IMAGES_A_PAGE
from bench.dataset_rows import FilledDataset, fill_datasets
from bench.registry import describe_machine, filled_app, fresh_database, percentile

IMAGES = 5_000
SAMPLES = 20
REQUESTS_EACH = 3
AFTER_A_CHANGE = 5
GOAL = 50  # ms
FRAGMENT = {"hx-request": "true"}


@dataclass(frozen=True)
class Address:
    """A page of a dataset, or a part that its page loads."""

    name: str
    path: str
    is_fragment: bool = False


class Spent(NamedTuple):
    """Milliseconds of a request: CPU time of this process, and wall time."""

    cpu: float
    wall: float


@dataclass
class Times:
    """Times of requests of one address: of the large dataset, after a change, of the small one."""

    many: list[Spent] = field(default_factory=list)
    changed: list[Spent] = field(default_factory=list)
    few: list[Spent] = field(default_factory=list)


def addresses(made: FilledDataset) -> list[Address]:
    """The addresses of a dataset: each filter, each order, scrolling, panels and other pages."""
    page, api = f"/datasets/{made.slug}", f"/api/v1/datasets/{made.id}"
    middle = made.images[len(made.images) // 2]
    pages = -(-len(made.images) // IMAGES_A_PAGE)
    after = f"&after={made.images[IMAGES_A_PAGE - 1]}&first=1"
    return [
        Address("the dataset", page),
        *(Address(f"filter {show.value}", f"{page}?show={show.value}") for show in Show),
        *(Address(f"order {sort.value}", f"{page}?sort={sort.value}") for sort in Sort),
        Address("2 filters, likeness", f"{page}?show=small&show=no_trigger&sort=similar"),
        Address("words", f"{page}?with=forest&without=red"),
        Address("search", f"{page}?q=harb"),
        Address("search, nothing found", f"{page}?q=zzzzqx"),
        Address("last page", f"{page}?page={pages}"),
        Address("all selected", f"{page}?select=all"),
        Address("scrolled", f"{page}/tiles?page=2{after}", is_fragment=True),
        Address("scrolled, search", f"{page}/tiles?q=harb&page=2", is_fragment=True),
        Address(
            "scrolled, likeness", f"{page}/tiles?sort=similar&page=2&after={middle}&first=1", True
        ),
        Address("counts of filters", f"{page}/filters", is_fragment=True),
        Address("words and sizes", f"{page}/statistics", is_fragment=True),
        Address("with words and sizes", f"{page}?statistics=1"),
        Address("checks, panel", f"{page}/checks/panel", is_fragment=True),
        Address("checks, in brief", f"{page}/checks/brief", is_fragment=True),
        Address("checks, page", f"{page}/checks"),
        Address("one image", f"{page}/images/{middle}"),
        Address("one image, likeness", f"{page}/images/{middle}?show=no_trigger&sort=similar"),
        Address("completion of a tag", f"{page}/tags?q=fo"),
        Address("captions by a model", f"{page}/captions/auto"),
        Address("versions", f"{page}/versions"),
        Address("list of datasets", "/datasets"),
        Address("form of a run", f"/train/new?dataset={made.slug}"),
        Address("API, images", f"{api}/images?limit=48"),
        Address("API, likeness", f"{api}/images?limit=48&sort=similar"),
        Address("API, statistics", f"{api}/statistics"),
        Address("API, checks", f"{api}/checks"),
    ]


class Visitor:
    """Requests addresses of two datasets and keeps their times."""

    def __init__(self, client: httpx.AsyncClient, many: FilledDataset, few: FilledDataset) -> None:
        self._client = client
        self._many, self._few = many, few
        self._changes = 0

    async def _shortest(self, address: Address) -> Spent:
        spent = [await self._time(address) for _ in range(REQUESTS_EACH)]
        return Spent(*map(min, zip(*spent, strict=True)))

    async def _time(self, address: Address) -> Spent:
        headers = FRAGMENT if address.is_fragment else {}
        cpu, wall = time.process_time(), time.perf_counter()
        answer = await self._client.get(address.path, headers=headers)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if answer.status_code != 200:
            raise RuntimeError(f"{address.path}: {answer.status_code} {answer.text[:300]}")
        return Spent(1_000 * cpu, 1_000 * wall)

    async def _change_a_caption(self) -> None:
        self._changes += 1
        image = self._many.images[self._changes % len(self._many.images)]
        body = {"caption": f"inkwash, a fox with {self._changes} hats in a forest"}
        (await self._client.patch(f"/api/v1/images/{image}", json=body)).raise_for_status()

    async def visit(self, samples: int) -> dict[str, Times]:
        """The times of every address, by name."""
        pairs = list(zip(addresses(self._many), addresses(self._few), strict=True))
        times = {large.name: Times() for large, _ in pairs}
        for large, small in pairs:
            found = times[large.name]
            await self._time(large)
            await self._time(small)
            for _ in range(samples):
                found.many.append(await self._shortest(large))
                found.few.append(await self._shortest(small))
            for _ in range(AFTER_A_CHANGE):
                await self._change_a_caption()
                found.changed.append(await self._time(large))
        return times


async def visit(app: FastAPI, made: Sequence[FilledDataset], samples: int) -> dict[str, Times]:
    """The times of every address of the large and the small dataset."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await Visitor(client, *made).visit(samples)


@contextmanager
def datasets_app(kind: str, images: int) -> Iterator[tuple[FastAPI, Sequence[FilledDataset]]]:
    """The app on a database of this kind that has two datasets: `images`, and those of a page."""
    sizes = {"many": images, "few": IMAGES_A_PAGE}
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with (
        tempfile.TemporaryDirectory(prefix="brushwork-bench-") as name,
        fresh_database(kind, Path(name)) as url,
        filled_app(url, Path(name), lambda engine: fill_datasets(engine, sizes)) as filled,
    ):
        yield filled


def table(kind: str, images: int, times: dict[str, Times]) -> list[str]:
    """A table in Markdown: a row for each address; what is above the goal is bold."""
    lines = [
        f"| {kind}, {images:,} images, ms | median | p95 | after a change | {IMAGES_A_PAGE} images "
        "| wall, shortest (after a change) |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in times.items():
        values = (
            statistics.median(spent.cpu for spent in found.many),
            percentile([spent.cpu for spent in found.many], 0.95),
            statistics.median(spent.cpu for spent in found.changed),
            statistics.median(spent.cpu for spent in found.few),
        )
        wall, changed = (min(spent.wall for spent in one) for one in (found.many, found.changed))
        cells = [*map(_cell, values), f"{_cell(wall)} ({_cell(changed)})"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _cell(value: float) -> str:
    return f"**{value:.0f}**" if value > GOAL else f"{value:.0f}"


def option_parser(module: str, about: str) -> argparse.ArgumentParser:
    """The options of a benchmark of datasets: their size, and the databases."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument(
        "--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"]
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure on every database and print a table for each."""
    parser = option_parser("bench.dataset_pages", __doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each address")
    options = parser.parse_args(arguments)
    print(f"{describe_machine()}\n")
    for kind in options.databases:
        with datasets_app(kind, options.images) as (app, made):
            times = asyncio.run(visit(app, made, options.samples))
        print("\n".join([*table(kind, options.images, times), ""]), flush=True)


if __name__ == "__main__":
    main()

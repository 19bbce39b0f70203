"""Measures changes of all 5,000 images of a dataset: `python -m bench.dataset_edits`.

Fills a database as `bench.dataset_pages` does, with a dataset of many images and one of 48, and
carries out the same requests on both in turn, in this process, each three times: bulk edits with
preview and undo, a regular expression that `re` would never end, a run that pins a version, what
differs from a version, an order of captions, a copy. Prints the median wall and CPU time. First,
once, come the results that are kept until the dataset changes, while nothing is kept yet.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import httpx
from fastapi import FastAPI

from app.registry.datasets.listing.pages import IMAGES_A_PAGE
from bench.dataset_pages import FRAGMENT, Spent, datasets_app, option_parser
from bench.dataset_rows import FilledDataset
from bench.registry import describe_machine

TIMES = 3
ENDLESS = r"^(([a-z ,])+)+[^a-z ,]$"
SWAPPED = {"find": r"(\w+), (\w+)", "replacement": r"\2, \1", "regex": True}


class Changer:
    """Changes a dataset through the API and notes what each request took, by name."""

    def __init__(self, client: httpx.AsyncClient, made: FilledDataset, other: int) -> None:
        self._client = client
        self._made = made
        self._other = other  # a dataset to copy to
        self._api = f"/api/v1/datasets/{made.id}"
        self.spent: dict[str, list[Spent]] = {}

    async def look(self) -> None:
        """Ask for what takes long the first time."""
        page = f"/datasets/{self._made.slug}"
        await self._request("first: checks before training", "GET", f"{self._api}/checks")
        await self._request("first: counts of all filters", "GET", f"{page}/filters")
        await self._request("first: words and sizes", "GET", f"{page}/statistics")
        await self._request("first: order by likeness", "GET", f"{page}/tiles?sort=similar")

    async def change(self) -> None:
        """Carry out every change once, and undo it."""
        append = {"action": "append", "text": "on paper"}
        seen = (await self._edit("preview: add a word", append, preview=True))["seen"]
        form = {"do": "append", "text": "on paper", "all": "1"}
        await self._post("the same on the page", f"/datasets/{self._made.slug}/edits/preview", form)
        await self._edit("apply it", append, seen=seen)
        await self._edit("preview: swap two words (regex)", {"action": "replace"} | SWAPPED, True)
        edits = {
            "swap two words (regex)": {"action": "replace"} | SWAPPED,
            "set aside": {"action": "set_aside"},
            "delete": {"action": "delete"},
            "copy to another dataset": {"action": "copy", "dataset_id": self._other},
        }
        for name, body in edits.items():
            step = await self._edit(name, body)
            await self._post(f"undo: {name}", f"{self._api}/edits/{step['id']}/undo")
        endless = {"action": "replace", "find": ENDLESS, "regex": True}
        await self._edit("a regex that re would never end", endless, preview=True)
        run = await self._post(
            "a run: pin the version", "/api/v1/runs", json={"dataset_id": self._made.id}, expect=202
        )
        (await self._client.post(f"/api/v1/runs/{run['id']}/cancel")).raise_for_status()
        address = f"/datasets/{self._made.slug}/versions/compare?a={self._made.id}&b=now"
        await self._request("what differs from a version", "GET", address)
        order = await self._post(
            "order captions",
            f"{self._api}/captions/orders",
            json={"provider": "builtin", "mode": "replace"},
            expect=202,
        )
        stop = f"{self._api}/captions/orders/{order['id']}/cancel"
        (await self._client.post(stop)).raise_for_status()
        await self._post("duplicate the dataset", f"{self._api}/duplicate", json={}, expect=201)

    async def _edit(
        self, name: str, body: dict[str, Any], preview: bool = False, *, seen: str = ""
    ) -> Any:
        sent = body | {"all": True, "preview": preview} | ({"seen": seen} if seen else {})
        return await self._post(name, f"{self._api}/edits", json=sent)

    async def _post(self, name: str, address: str, data: Any = None, **more: Any) -> Any:
        return await self._request(name, "POST", address, data=data, **more)

    async def _request(
        self, name: str, method: str, address: str, *, expect: int = 200, **sent: Any
    ) -> Any:
        headers = {} if address.startswith("/api") else FRAGMENT
        cpu, wall = time.process_time(), time.perf_counter()
        answer = await self._client.request(method, address, headers=headers, **sent)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if answer.status_code != expect:
            raise RuntimeError(f"{name}: {answer.status_code} {answer.text[:300]}")
        self.spent.setdefault(name, []).append(Spent(1_000 * cpu, 1_000 * wall))
        is_json = answer.headers["content-type"].startswith("application/json")
        return answer.json() if is_json else None


async def change_both(app: FastAPI, made: Sequence[FilledDataset], times: int) -> list[Changer]:
    """Change the large and the small dataset in turn."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/api/v1/datasets", json={"name": "Copies"})
        copies = answer.raise_for_status().json()["id"]
        changers = [Changer(client, one, copies) for one in made]
        for changer in changers:
            await changer.look()
        for _ in range(times):
            for changer in changers:
                await changer.change()
    return changers


def table(kind: str, images: int, changers: Sequence[Changer]) -> list[str]:
    """A table in Markdown: a row for each change."""
    many, few = (changer.spent for changer in changers)
    lines = [
        f"| {kind}, {images:,} images, ms | wall | CPU | CPU, {IMAGES_A_PAGE} images |",
        "|---|---|---|---|",
    ]
    for name, spent in many.items():
        wall = statistics.median(one.wall for one in spent)
        cpu, small = (statistics.median(one.cpu for one in of[name]) for of in (many, few))
        lines.append(f"| {name} | {wall:,.0f} | {cpu:,.0f} | {small:,.0f} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure on every database and print a table for each."""
    parser = option_parser("bench.dataset_edits", __doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=TIMES)
    options = parser.parse_args(arguments)
    print(f"{describe_machine()}\n")
    for kind in options.databases:
        with datasets_app(kind, options.images) as (app, made):
            changers = asyncio.run(change_both(app, made, options.times))
        print("\n".join([*table(kind, options.images, changers), ""]), flush=True)


if __name__ == "__main__":
    main()

"""Measures the pages of a full registry: `python -m bench.registry`.

Fills an empty database through the migrations and requests pages of the real app, one after the
other, in this process (httpx over ASGI: routing, services, SQL and templates, but no socket).
Prints the 95th percentile of each kind and the median in brackets, in milliseconds of wall time;
each URL counts with the shortest of five requests, because other work may share the machine:

list     a page of the list in every order, the first and those that it links to
search   words, parts of words, two words, while typing, common, rare and unknown
filter   family, tags, stars, with and without words and another order
detail   the page of an adapter, also of those with most images
like     all adapters by the nearness of their style to that of one, with the pairs of images

With `--accounts` every page is requested without and with accounts in turn, there by a member: a
tenth of the adapters is private and hidden, a tenth is private and shared with the member, a tenth
is the member's own. The ratio is the median of those of the same URLs.

Each kind is requested as page and API (`… API`). SQLite is in a temporary folder and is never
analyzed, as in the app; PostgreSQL is vacuumed and analyzed once it is filled, as its autovacuum
does.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import httpx
import psycopg
import sqlalchemy as sa
from fastapi import FastAPI
from sqlmodel import col, select

from app.registry import migrate
from app.registry.actor import Role
from app.registry.config import Settings
from app.registry.db import make_engine
from app.registry.people import service as people
from app.registry.people import tokens
from app.registry.tables.adapters import Adapter
from app.registry.tables.people import Share
from app.web.access.login import Login
from app.web.main import create_app
from bench.registry_rows import FilledRegistry, commonly, fill

POSTGRES = os.environ.get(
    "BRUSHWORK_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres"
)
SIZES = (1_000, 10_000, 100_000)
RENDERS = 100_000
REQUESTS = 100
WARM_UP = 5
REQUESTS_EACH = 5
SORTS = ("newest", "oldest", "name", "name-down")
PEOPLE = " with accounts"
KINDS = ("list", "search", "filter", "detail", "like")
Addresses = Callable[[random.Random, FilledRegistry], Iterator[str]]
Times = dict[str, list[float]]


def percentile(values: Sequence[float], share: float) -> float:
    """The percentile: the least value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def query(**values: str | Sequence[str]) -> str:
    """The query string of a URL, without empty values."""
    return urlencode({key: value for key, value in values.items() if value}, doseq=True)


def searched(dice: random.Random, made: FilledRegistry) -> str:
    """A random search query."""
    word, other = commonly(dice, made.words), commonly(dice, made.words)
    rare = dice.choice(made.words)
    start = dice.randrange(max(1, len(rare) - 3))
    return dice.choice(
        (word, rare, word[: dice.randrange(1, 5)], rare[start : start + 3], f"{word} {other}",
         f"{word[:4]} {rare}", f'"{word} {other}"', f"{rare}qx", f"{commonly(dice, made.tags)}")
    )  # fmt: skip


def searches(dice: random.Random, made: FilledRegistry) -> Iterator[str]:
    """An endless iterator of search URLs."""
    while True:
        yield f"/adapters?{query(q=searched(dice, made))}"


def filters(dice: random.Random, made: FilledRegistry) -> Iterator[str]:
    """An endless iterator of URLs with filters."""
    while True:
        tags = [commonly(dice, made.tags) for _ in range(dice.choice((0, 1, 1, 2)))]
        words = searched(dice, made) if dice.random() < 0.3 else ""
        base, starred = dice.choice(("", "sd1", "sdxl", "sd2")), dice.choice(("", "", "1"))
        order = dice.choice(SORTS)
        yield f"/adapters?{query(q=words, base=base, tag=tags, starred=starred, sort=order)}"


def details(dice: random.Random, made: FilledRegistry) -> Iterator[str]:
    """An endless iterator of adapter pages; half of them of those with most images."""
    while True:
        few = dice.random() < 0.5
        yield f"/adapters/{dice.choice(made.slugs[:20] if few else made.slugs)}"


def likes(dice: random.Random, made: FilledRegistry) -> Iterator[str]:
    """An endless iterator of URLs of styles like that of an adapter."""
    while True:
        yield f"/adapters/{dice.choice(made.slugs)}/like"


class Visitor:
    """Requests pages and records their times, with each of these logins in turn."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, logins: Sequence[Login]) -> None:
        self._app, self._client, self._logins = app, client, logins
        self.times: list[Times] = [{} for _ in logins]

    async def request(self, kind: str, address: str) -> httpx.Response:
        """The response to the last login; all must be successful."""
        spent: list[list[float]] = [[] for _ in self._logins]
        for _ in range(REQUESTS_EACH):
            for login, seconds in zip(self._logins, spent, strict=True):
                self._app.state.login = login
                begun = time.perf_counter()
                answer = await self._client.get(address)
                seconds.append(time.perf_counter() - begun)
                if answer.status_code != 200:
                    raise RuntimeError(f"{address}: {answer.status_code} {answer.text[:300]}")
        for times, seconds in zip(self.times, spent, strict=True):
            times.setdefault(kind, []).append(1_000 * min(seconds))
        return answer

    async def walk(self, dice: random.Random, prefix: str, kind: str, requests: int) -> None:
        """Lists in every order: the first page, and the pages that it links to."""
        address = ""
        for number in range(requests):
            if number % 8 == 0 or not address:
                address = f"{prefix}/adapters?sort={dice.choice(SORTS)}"
            answer = await self.request(kind, address)
            address = next_page(answer)


def next_page(answer: httpx.Response) -> str:
    """The address of the page after this one; empty after the last."""
    if "link" in answer.headers:
        return str(answer.links.get("next", {}).get("url", ""))
    _, found, rest = answer.text.partition('rel="next" href="')
    return rest.partition('"')[0].replace("&amp;", "&") if found else ""


async def visit(
    app: FastAPI,
    made: FilledRegistry,
    requests: int,
    logins: Sequence[Login],
    headers: Mapping[str, str] | None = None,
) -> list[Times]:
    """The times of every kind, page and API, with each of these logins."""
    dice = random.Random(1)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers
    ) as client:
        visitor = Visitor(app, client, logins)
        await visitor.walk(dice, "", "list", requests)
        await visitor.walk(dice, "/api/v1", "list API", requests)
        asked = {"search": searches, "filter": filters, "detail": details, "like": likes}
        for kind, addresses in asked.items():
            for address, _ in zip(addresses(dice, made), range(requests), strict=False):
                await visitor.request(kind, address)
                if kind == "detail":
                    number = address.rpartition("-")[2]
                    await visitor.request("detail API", f"/api/v1/adapters/{number}")
                elif kind == "like":
                    slug = address.split("/")[2]
                    similar = f"/api/v1/adapters/{slug}/similar?limit=24"
                    await visitor.request("like API", similar)
                else:
                    await visitor.request(f"{kind} API", f"/api/v1{address}")
    return [
        {kind: times[WARM_UP:] or times for kind, times in of_login.items()}
        for of_login in visitor.times
    ]


def add_people(app: FastAPI, made: FilledRegistry) -> tuple[FilledRegistry, dict[str, str]]:
    """Add two people; what a member sees, and the header of their token."""
    with app.state.brushwork.database.write() as session:
        people.add_user(session, "Eva", Role.ADMIN)
        member = people.add_user(session, "Ben", Role.MEMBER)
        token, _ = tokens.make_token(session, member, "bench", "admin")
        tenth = col(Adapter.id) % 10
        own, private = tenth == 3, tenth.in_((1, 2))
        unsynchronized = {"synchronize_session": False}
        for condition, values in (
            (own, {"owner_id": member.key}),
            (private, {"visibility": "private"}),
        ):
            changed = sa.update(Adapter).where(condition).values(**values)
            session.exec(changed, execution_options=unsynchronized)
        for key in session.exec(select(Adapter.id).where(tenth == 2)):
            session.add(Share(kind="adapter", thing_id=key, user_id=member.key))
        hidden = set(session.exec(select(Adapter.slug).where(tenth == 1)))
    vacuum(app.state.brushwork.database.engine)
    seen = [slug for slug in made.slugs if slug not in hidden]
    return replace(made, slugs=seen), {"authorization": f"Bearer {token}"}


def measure(
    url: str, folder: Path, *, adapters: int, renders: int, requests: int, accounts: bool = False
) -> list[Times]:
    """Fill an empty database, then measure; `accounts`: with accounts, too."""

    def fill_timed(engine: sa.Engine) -> FilledRegistry:
        begun = time.perf_counter()
        made = fill(engine, adapters=adapters, renders=renders)
        print(f"  filled in {time.perf_counter() - begun:.0f} s", end="", flush=True)
        return made

    with filled_app(url, folder, fill_timed) as (app, made):
        logins = [Login(password=None)]
        if not accounts:
            return asyncio.run(visit(app, made, requests, logins))
        seen, headers = add_people(app, made)
        logins.append(Login(password=None, accounts=True))
        return asyncio.run(visit(app, seen, requests, logins, headers))


Made = TypeVar("Made")


@contextmanager
def filled_app(
    url: str, folder: Path, fill_database: Callable[[sa.Engine], Made]
) -> Iterator[tuple[FastAPI, Made]]:
    """The app on an empty database that is migrated and filled, and what it was filled with."""
    settings = Settings(
        _env_file=None,
        data_dir=folder,
        database_url=url,
        broker_url=f"filesystem://{folder}/broker",
        allowed_hosts="localhost",
    )
    engine = make_engine(settings.sqlalchemy_url)
    migrate.upgrade(engine)
    made = fill_database(engine)
    vacuum(engine)
    engine.dispose()
    app = create_app(settings)
    try:
        yield app, made
    finally:
        app.state.brushwork.close()


def vacuum(engine: sa.Engine) -> None:
    """What the autovacuum of PostgreSQL does; nothing on SQLite."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))


@contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database, which is deleted afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/brushwork.db"
        return
    name = f"brushwork_bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{POSTGRES.rsplit('/', 1)[0]}/{name}"
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def describe_machine() -> str:
    """The machine of a measurement."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size on every database and print a table for each."""
    options = read_options(arguments)
    print(describe_machine())
    for kind in options.databases:
        results: dict[str, Times] = {}
        for size in options.sizes:
            with tempfile.TemporaryDirectory(prefix="brushwork-bench-") as name:
                print(
                    f"{kind}, {size:,} adapters, {options.renders:,} renders:", end="", flush=True
                )
                begun = time.perf_counter()
                with fresh_database(kind, Path(name)) as url:
                    found = measure(
                        url,
                        Path(name),
                        adapters=size,
                        renders=options.renders,
                        requests=options.requests,
                        accounts=options.accounts,
                    )
                results |= dict(zip((f"{size:,}", f"{size:,}{PEOPLE}"), found, strict=False))
                print(f", measured, {time.perf_counter() - begun:.0f} s in all", flush=True)
        print("\n".join(table(kind, results)), flush=True)


def table(kind: str, results: Mapping[str, Times]) -> list[str]:
    """A table in Markdown: a row for each kind of page, a column for each size."""
    sizes = list(results)
    lines = [
        f"\n| {kind}: p95 (median), ms | " + " | ".join(sizes) + " |",
        "|---|" + "---|" * len(sizes),
    ]
    for page in (name for kind in KINDS for name in (kind, f"{kind} API")):
        cells = [
            f"{percentile(results[size][page], 0.95):.0f} "
            f"({statistics.median(results[size][page]):.0f})"
            for size in sizes
        ]
        for place, size in enumerate(sizes):
            if size.endswith(PEOPLE):
                pairs = zip(*(results[one][page] for one in sizes[place - 1 :][:2]), strict=True)
                cells[place] += f" × {statistics.median(b / a for a, b in pairs):.2f}"
        lines.append(f"| {page} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.registry", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), metavar="ADAPTERS")
    parser.add_argument("--renders", type=int, default=RENDERS)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each kind")
    parser.add_argument(
        "--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"]
    )
    parser.add_argument("--accounts", action="store_true", help="measure with accounts, too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()

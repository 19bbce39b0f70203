"""Faults to stage, and real stacks to stage them on.

`make faults` runs these tests. Leases last two seconds there, so that an outage of fifteen leases
takes half a minute. A stack is started once and shared by the tests of a file: each test leaves it
at work, which is what it is about.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import empty_database, skip_unless_ci
from tests.faults import clock, recovery, s3_server
from tests.faults.jobs import Work, begin_work
from tests.faults.proxy import Proxy
from tests.faults.recovery import Stopwatch
from tests.faults.redis_server import RedisServer
from tests.faults.stacks import FaultyStack, running_stack

LOGS = recovery.SUMMARY.parent / "logs"
JOB_TIME_FACTOR = 0.05  # the 5 minutes of an import are 15 seconds
_running: list[FaultyStack] = []


@pytest.fixture
def stopwatch(request: pytest.FixtureRequest, record_property: Any) -> Stopwatch:
    """Measures how long a recovery takes, for the summary."""
    return Stopwatch(request.node.name, record_property)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep what the stacks wrote when a test fails, in a file that the report names."""
    report: pytest.TestReport = yield
    if report.failed and _running:
        written = "\n".join(one.stack.logs() for one in _running)
        LOGS.mkdir(parents=True, exist_ok=True)
        file = LOGS / f"{re.sub(r'[^a-z0-9_]+', '-', item.name)}-{report.when}.log"
        file.write_text(written)
        report.sections.append(("stack", f"What its processes wrote is in {file}."))
    return report  # type: ignore[return-value] # pytest wants it returned


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how long each recovery took, and write it to a file."""
    reports = [one for group in terminalreporter.stats.values() for one in group]
    found = [
        one
        for report in reports
        if getattr(report, "when", "") == "call"
        for one in recovery.recoveries(report.user_properties)
    ]
    if not found:
        return
    terminalreporter.section("recovery times, leases of 2 s")
    for one in found:
        terminalreporter.write_line(f"{one.seconds:7.2f} s  {one.what}  ({one.test})")
    recovery.write_summary(found)


@contextlib.contextmanager
def watched_stack(data_dir: Path, *arguments: Any, **options: Any) -> Iterator[FaultyStack]:
    """A running stack whose logs are shown when a test fails."""
    with running_stack(data_dir, *arguments, **options) as stack:
        _running.append(stack)
        try:
            yield stack
        finally:
            _running.remove(stack)


@pytest.fixture(scope="session")
def works() -> list[Work]:
    """The work of every stack."""
    return []


def work_of(stack: FaultyStack, works: list[Work]) -> Work:
    """The work of this stack; new work, where a fault has ended it."""
    for work in works:
        if work.stack is stack and work.is_at_work():
            return work
    works.append(begin_work(stack))
    return works[-1]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyStack]:
    """`brushwork serve` with everything its own: SQLite, a folder, a private broker."""
    limits = {"BRUSHWORK_JOB_TIME_FACTOR": f"{JOB_TIME_FACTOR:g}"}
    with watched_stack(tmp_path_factory.mktemp("embedded"), limits) as stack:
        yield stack


@pytest.fixture(scope="session")
def faketime() -> str:
    """The library that fakes clocks."""
    library = clock.library()
    if library is None:
        skip_unless_ci("libfaketime is not installed (Debian: apt install libfaketime)")
    return library


@dataclass(frozen=True)
class Clockwork:
    """A stack and the clock that all its processes read."""

    stack: FaultyStack
    clock: clock.Clock


@pytest.fixture(scope="module")
def clockwork(tmp_path_factory: pytest.TempPathFactory, faketime: str) -> Iterator[Clockwork]:
    """An embedded stack whose clock a test can set."""
    ticking = clock.Clock(tmp_path_factory.mktemp("clock") / "time", faketime)
    data_dir = tmp_path_factory.mktemp("clockwork")
    with watched_stack(data_dir, ticking.environment()) as stack:
        yield Clockwork(stack, ticking)


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of an S3 server with an empty bucket."""
    with s3_server.s3_server() as port:
        yield port


@dataclass(frozen=True)
class ScaledOut:
    """A stack on PostgreSQL, Redis and S3, each behind a proxy that can fail."""

    stack: FaultyStack
    postgres: Proxy
    redis: Proxy
    s3: Proxy
    redis_server: RedisServer
    services: Mapping[str, str]
    database_url: str


@pytest.fixture(scope="module")
def scaled_out(tmp_path_factory: pytest.TempPathFactory, s3_port: int) -> Iterator[ScaledOut]:
    """Web and workers on services of their own."""
    with (
        empty_database("brushwork_faults") as postgres_url,
        RedisServer(tmp_path_factory.mktemp("redis")) as redis_server,
        contextlib.closing(Proxy(urlsplit(postgres_url).port or 5432)) as postgres,
        contextlib.closing(Proxy(redis_server.port)) as redis,
        contextlib.closing(Proxy(s3_port)) as s3,
    ):
        services = {
            "BRUSHWORK_DATABASE_URL": _behind(postgres_url, postgres.port),
            "BRUSHWORK_BROKER_URL": f"redis://127.0.0.1:{redis.port}/0",
            **s3_server.environment(s3.port),
        }
        data_dir = tmp_path_factory.mktemp("scaled-out")
        with watched_stack(data_dir, services, database_url=postgres_url) as stack:
            yield ScaledOut(stack, postgres, redis, s3, redis_server, services, postgres_url)


def _behind(url: str, port: int) -> str:
    parts = urlsplit(url)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return parts._replace(netloc=f"{user}127.0.0.1:{port}").geturl()

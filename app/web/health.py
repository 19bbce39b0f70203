"""Liveness, readiness and metrics, for probes and Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Generic, Literal, TypeVar

import structlog
from fastapi import Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import Field

from app.registry import health
from app.registry.errors import AppError, NotReady
from app.registry.health import Counts
from app.registry.state import AppState
from app.web.access.needs import Action, Router
from app.web.problems import problems
from app.web.state import State
from worker.core.documented import DocumentedModel

router = Router(tags=["server"])
log = structlog.get_logger()

DEADLINE_SECONDS = 1.8  # of each question, all at once: the answer comes within two seconds
COUNT_SECONDS = 5.0

LabelsT = TypeVar("LabelsT", bound=tuple[str, ...])
AnswerT = TypeVar("AnswerT")
PartStatus = Literal["ok", "degraded", "failed"]


class Probe(Generic[AnswerT]):
    """A question that may hang, such as to a bucket that does not answer; asked in a thread.

    A question that hangs is not asked a second time, so probes never pile up threads.
    """

    def __init__(self, name: str, ask: Callable[[], AnswerT]) -> None:
        self.name = name
        self._ask = ask
        self._lock = threading.Lock()
        self._running: Future[AnswerT] | None = None

    async def answer(self, seconds: float) -> AnswerT:
        """The answer. Raises what the question raises, and TimeoutError after `seconds`."""
        asked = asyncio.wrap_future(self._start())
        return await asyncio.wait_for(asyncio.shield(asked), seconds)

    def _start(self) -> Future[AnswerT]:
        """The question that is running, or a new one."""
        with self._lock:
            if self._running is None or self._running.done():
                self._running = Future()
                threading.Thread(
                    target=self._run, args=(self._running,), name=f"probe-{self.name}", daemon=True
                ).start()
            return self._running

    def _run(self, future: Future[AnswerT]) -> None:
        try:
            found = self._ask()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(found)


@dataclass(frozen=True)
class Probes:
    """The questions about the parts of an app, and the last figures of its registry."""

    state: AppState
    parts: Mapping[str, Probe[None]]
    counts: Probe[Counts]
    last_counts: list[Counts] = field(default_factory=list)

    async def ask(self) -> dict[str, str]:
        """A sentence for each part that does not work, empty for each that does."""
        answers = [_trouble(name, probe) for name, probe in self.parts.items()]
        return dict(zip(self.parts, await asyncio.gather(*answers), strict=True))


async def _trouble(name: str, probe: Probe[None]) -> str:
    """A sentence about the problem of a part; empty if there is none."""
    try:
        await probe.answer(DEADLINE_SECONDS)
    except TimeoutError:
        return f"The {name} did not answer within 2 seconds."
    except AppError as error:
        return error.detail
    except Exception as error:
        log.warning("probe", part=name, exc_info=error)
        return f"The {name} cannot be used; the log of the server has the details."
    return ""


def probes_of(request: Request, state: State) -> Probes:
    """The probes of the app that answers this request."""
    known: Probes | None = getattr(request.app.state, "probes", None)
    if known is None or known.state is not state:
        parts = {name: Probe(name, partial(ask, state)) for name, ask in health.CHECKS.items()}
        known = Probes(state, parts, Probe("counts", partial(health.read_counts, state)))
        request.app.state.probes = known
    return known


AppProbes = Annotated[Probes, Depends(probes_of)]


class Readiness(DocumentedModel):
    """The state of each part: `ok`, `degraded` or `failed`."""

    status: Literal["ready", "degraded"]
    """`degraded`: pages are shown, and something is slower or refused."""
    database: PartStatus = Field(description="Whether the database can be read.")
    storage: PartStatus = Field(description="Whether stored files can be read.")
    broker: PartStatus = Field(description="Whether workers are woken at once.")
    disk: PartStatus = Field(description="Whether the data folder can be written and has room.")
    detail: str = Field(description="What is wrong, as sentences; empty if nothing is.")


@router.get("/healthz", Action.OPEN)
async def healthz() -> dict[str, str]:
    """Check that the web process answers."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    Action.OPEN,
    responses=problems({503: "Database or storage cannot be read; `detail` says why."}),
)
async def readyz(probes: AppProbes) -> Readiness:
    """Check that database and storage can be read, within two seconds.

    A full disk or a missing broker is `degraded`, with 200: pages work, also those that free space.
    """
    troubles = await probes.ask()
    parts = {name: _status(name, sentence) for name, sentence in troubles.items()}
    detail = " ".join(filter(None, troubles.values()))
    if "failed" in parts.values():
        raise NotReady(detail, about={**parts})
    return Readiness.model_validate(
        {"status": "degraded" if detail else "ready", "detail": detail, **parts}
    )


def _status(name: str, sentence: str) -> PartStatus:
    if not sentence:
        return "ok"
    return "failed" if name in health.NEEDED else "degraded"


@router.get(
    "/metrics",
    Action.ADMIN,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(probes: AppProbes) -> Response:
    """Get metrics for Prometheus.

    Without a database they are the last that this process knew, and `brushwork_database_up` is 0.
    """
    troubles = await probes.ask()
    with contextlib.suppress(Exception):  # then the last figures stay; `troubles` says why
        probes.last_counts[:] = [await probes.counts.answer(COUNT_SECONDS)]
    registry = CollectorRegistry()
    registry.register(HealthCollector(probes, troubles))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class HealthCollector(Collector):
    """The metrics of one scrape: all web processes read the same registry, so they agree."""

    def __init__(self, probes: Probes, troubles: Mapping[str, str]) -> None:
        self._probes = probes
        self._troubles = troubles

    def describe(self) -> list[Metric]:
        """Empty: the metrics are known only at a scrape."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The parts that work, the disk, and what is known of the registry."""
        for name, sentence in self._troubles.items():
            about = f"1 if the {name} can be used, else 0"
            yield GaugeMetricFamily(f"brushwork_{name}_up", about, value=float(not sentence))
        with contextlib.suppress(OSError):
            disk = shutil.disk_usage(self._probes.state.settings.data_dir)
            free, total = "Free space of the data folder", "Size of its disk"
            yield GaugeMetricFamily("brushwork_disk_free_bytes", free, value=disk.free)
            yield GaugeMetricFamily("brushwork_disk_total_bytes", total, value=disk.total)
        for counts in self._probes.last_counts:
            yield from _count_metrics(counts)


def _count_metrics(counts: Counts) -> Iterator[GaugeMetricFamily]:
    yield _by_labels("jobs", "Jobs in the registry", ("queue", "status"), counts.jobs)
    yield _by_labels("job_failures", "Jobs that failed", ("queue", "code"), counts.failures)
    ages = {(queue,): age for queue, age in counts.oldest_seconds.items()}
    yield _by_labels("oldest_waiting_seconds", "Age of the oldest waiting job", ("queue",), ages)
    workers = {(queue,): number for queue, number in counts.workers.items()}
    yield _by_labels("workers", "Workers seen in the last seconds", ("queue",), workers)
    yield GaugeMetricFamily("brushwork_datasets", "Datasets not deleted", value=counts.datasets)
    yield GaugeMetricFamily("brushwork_adapters", "Adapters not deleted", value=counts.adapters)


def _by_labels(
    name: str, about: str, labels: Sequence[str], values: Mapping[LabelsT, float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"brushwork_{name}", about, labels=labels)
    for of, value in values.items():
        family.add_metric(of, value)
    return family

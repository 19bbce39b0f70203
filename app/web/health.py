"""Liveness, readiness and metrics, for probes and Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.registry import health, migrate
from app.registry.db import Database
from app.registry.errors import NotReady
from app.registry.tables import Adapter, Dataset
from app.web.problems import problems
from app.web.state import State

router = APIRouter(tags=["server"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Check that the web process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses=problems({503: "The database cannot be reached."}))
def readyz(state: State) -> dict[str, str]:
    """Check that database and storage are usable.

    The broker is optional and not checked.
    """
    try:
        current = migrate.is_current(state.database.engine)
    except Exception as error:
        raise NotReady("The database cannot be reached. Try again in a moment.") from error
    if not current:
        raise NotReady("The database schema is outdated: run `brushwork migrate`.")
    state.store.check()
    return {"status": "ready", "database": "ok", "storage": "ok"}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(state: State) -> Response:
    """Get metrics for Prometheus."""
    registry = CollectorRegistry()
    registry.register(RegistryCollector(state.database))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class RegistryCollector(Collector):
    """Counts read from the registry at each scrape, so that all web processes agree."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def describe(self) -> list[Any]:
        """Empty: the metrics are known only at a scrape."""
        return []

    def collect(self) -> list[GaugeMetricFamily]:
        """Count jobs by queue and status, datasets and adapters."""
        jobs = GaugeMetricFamily(
            "brushwork_jobs", "Jobs in the registry", labels=["queue", "status"]
        )
        with self.database.read() as session:
            for queue, status, count in health.count_jobs(session):
                jobs.add_metric([queue, status], count)
            datasets = health.count_kept(session, Dataset)
            adapters = health.count_kept(session, Adapter)
        return [
            jobs,
            GaugeMetricFamily("brushwork_datasets", "Datasets not deleted", value=datasets),
            GaugeMetricFamily("brushwork_adapters", "Adapters not deleted", value=adapters),
        ]

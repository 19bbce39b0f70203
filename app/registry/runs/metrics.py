"""The recorded metrics of a run, such as its loss, point by point."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import Any

from sqlmodel import Session, col, select

from app.registry.runs.progress import MEASURED
from app.registry.tables.runs import MetricChunk

MAX_POINTS = 5_000


def run_metrics(
    session: Session,
    run_id: int,
    *,
    after: int = 0,
    keys: Collection[str] = (),
    most: int | None = MAX_POINTS,
) -> dict[str, Any]:
    """Points after a step: {"last_step", "series": {key: {"steps": […], "values": […]}}}.

    At most `most` points per key; call again with `after=last_step` for the rest. Losses that are
    measured now and then are always complete: each comes later than the loss of its step.
    `keys`: only these metrics; empty: all.
    """
    is_new = col(MetricChunk.first_step) + col(MetricChunk.count) > after + 1
    query = select(MetricChunk).where(
        MetricChunk.run_id == run_id, is_new | col(MetricChunk.key).in_(MEASURED)
    )
    if keys:
        query = query.where(col(MetricChunk.key).in_(keys))
    chunks = session.exec(query.order_by(col(MetricChunk.first_step))).all()
    series: dict[str, dict[str, list[Any]]] = {}
    for chunk in chunks:
        points = series.setdefault(chunk.key, {"steps": [], "values": []})
        values = struct.unpack(f"<{chunk.count}f", chunk.data)
        for step, value in enumerate(values, start=chunk.first_step):
            is_included = step > after or chunk.key in MEASURED
            if is_included and (most is None or len(points["steps"]) < most):
                points["steps"].append(step)
                points["values"].append(value if value == value else None)  # JSON has no NaN
    last_steps = [
        points["steps"][-1]
        for key, points in series.items()
        if points["steps"] and key not in MEASURED
    ]
    last = min(last_steps, default=after)
    return {"last_step": last, "series": series}


def values_by_step(session: Session, run_id: int, key: str) -> dict[int, float]:
    """The finite values of one metric by step."""
    return values_of(run_metrics(session, run_id, keys={key}), key)


def values_of(metrics: Mapping[str, Any], key: str) -> dict[int, float]:
    """The finite values of a metric by step, of what `run_metrics` found."""
    points = metrics["series"].get(key, {"steps": [], "values": []})
    pairs = zip(points["steps"], points["values"], strict=True)
    return {step: value for step, value in pairs if value is not None}

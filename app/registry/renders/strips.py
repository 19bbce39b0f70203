"""Strips: one request for the same image at several weights, or with each checkpoint of a run.

One adapter varies in a line, two vary in a square. Unlike a grid, a strip is one render.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

from sqlmodel import Session

from app.registry.adapters import service as adapters
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.errors import InvalidInput
from app.registry.job_kinds.weighted import ResolvedAdapter
from app.registry.renders.requests import RenderRequest
from app.registry.runs.checkpoints import address_of
from app.registry.tables.adapters import Adapter
from worker.core.lora_files.weights import MAX_STRIP

STEP = 0.25
LINE = [STEP * place for place in range(-2, 7)]  # from -0.5 to 1.5
SIDE = 5  # of a square, in images


def usual_weights(*current: float, factor: float = 1) -> list[tuple[float, ...]]:
    """The nine weights of one adapter, or 25 pairs of weights of two, nearest to the current first.

    They are generated in this order where they do not fit into one batch. All are `factor` times as
    large with a base model that needs this.
    """
    places = [weight / factor for weight in current]
    sides = map(_side_weights, places) if len(current) > 1 else [LINE]
    found = product(*([factor * weight for weight in side] for side in sides))
    return sorted(found, key=lambda weights: math.dist(weights, current))


def _side_weights(current: float) -> list[float]:
    """The weights from 0 to 1, or moved so far that the current one lies within."""
    above = math.ceil((current - STEP * (SIDE - 1)) / STEP)
    first = max(0, above) + min(0, math.floor(current / STEP))
    return [STEP * (first + place) for place in range(SIDE)]


def vary_weights(
    request: RenderRequest, current: Sequence[float], places: Sequence[int], factor: float = 1
) -> RenderRequest:
    """The request as a strip of the one or two adapters at these places.

    `current`: the weights of all adapters of the request. `factor`: see `usual_weights`.
    """
    changes = [
        dict(zip(places, weights, strict=True))
        for weights in usual_weights(*(current[place] for place in places), factor=factor)
    ]
    rows = [
        [change.get(place, weight) for place, weight in enumerate(current)] for change in changes
    ]
    return request.model_copy(update={"weights": rows, "twin": False})


def has_checkpoints(session: Session, used: AdapterAndVersion) -> bool:
    """True if the run of a version keeps the adapters of several checkpoints."""
    address = _address_of(session, used)
    return address is not None and adapters.count_versions(session, address.key) > 1


def vary_checkpoints(
    session: Session, request: RenderRequest, place: int, used: AdapterAndVersion
) -> RenderRequest:
    """The request as a strip: at one place, which has `used`, each checkpoint of its run.

    `used` is generated first, then those next to it. All weights must be given. Raises InvalidInput
    if there are no others.
    """
    shown, first = _checkpoints(session, used)
    varied = request.adapters[place]
    others = [other for index, other in enumerate(request.adapters) if index != place]
    named = [
        varied.model_copy(update={"adapter_id": adapter.key, "version": version.version})
        for adapter, version in shown
    ]
    rows = [
        [
            *(other.weight for other in others),
            *(varied.weight if column == at else None for column in range(len(shown))),
        ]
        for at in sorted(range(len(shown)), key=lambda column: abs(column - first))
    ]
    strip = {"adapters": [*others, *named], "weights": rows, "count": 1, "twin": False}
    return request.model_copy(update=strip)


def label_of(session: Session, used: ResolvedAdapter) -> str:
    """The words for an adapter of such a strip, such as “step 150” or “version 2”."""
    adapter = session.get(Adapter, used.adapter_id)
    return adapter.version_label(used.version) if adapter else f"version {used.version}"


def _address_of(session: Session, used: AdapterAndVersion) -> Adapter | None:
    """The adapter that holds the checkpoints of the run that made a version or checkpoint."""
    adapter, version = used
    run_id = adapter.run_id or version.run_id
    return None if run_id is None else address_of(session, run_id)


def _checkpoints(session: Session, used: AdapterAndVersion) -> tuple[list[AdapterAndVersion], int]:
    """The adapters of a run by their step, and the place of this one, which is among them.

    At most MAX_STRIP, evenly chosen. Raises InvalidInput if there are no others.
    """
    version = used[1]
    address = _address_of(session, used)
    kept = adapters.list_versions(session, address.key) if address else []
    if address is None or len(kept) < 2:
        raise InvalidInput(
            "This adapter has no checkpoints to go through: it was not trained here, or its run "
            "keeps fewer than two."
        )
    found = [(address, row) for row in reversed(kept)]
    same = (place for place, (_, row) in enumerate(found) if row.sha256 == version.sha256)
    at = next(same, None)
    if at is None:
        at = sum(row.version <= (version.steps or 0) for _, row in found)
        found.insert(at, used)
    places = spread(len(found), MAX_STRIP, among=at)
    return [found[place] for place in places], places.index(at)


def spread(count: int, limit: int, *, among: int = 0) -> list[int]:
    """At most `limit` of `count` places: evenly chosen, with both ends, and with place `among`."""
    if count <= limit:
        return list(range(count))
    places = {round(number * (count - 1) / (limit - 1)) for number in range(limit)}
    if among not in places:
        places.remove(min(places, key=lambda place: abs(place - among)))
    return sorted(places | {among})

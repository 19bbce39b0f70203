"""Strips of the checkpoints of a run: one seed with the adapter of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session

from app.registry.adapters import service as adapters
from app.registry.errors import InvalidInput
from app.registry.job_kinds.weighted import ResolvedAdapter
from app.registry.renders.requests import RenderRequest
from app.registry.renders.strips import MAX_STRIP, spread
from app.registry.runs.checkpoints import address_of
from app.registry.tables.adapters import Adapter, AdapterVersion


@dataclass(frozen=True)
class RunStep:
    """The adapter of a run at one of its steps: of a checkpoint, or a version that it made."""

    adapter: Adapter
    version: AdapterVersion


def run_of(adapter: Adapter, version: AdapterVersion) -> int | None:
    """The run that made a version or checkpoint; None for others, such as imported ones."""
    return adapter.run_id or version.run_id


def has_steps(session: Session, adapter: Adapter, version: AdapterVersion) -> bool:
    """Whether the run of a version keeps the adapters of several checkpoints."""
    run_id = run_of(adapter, version)
    address = None if run_id is None else address_of(session, run_id)
    return address is not None and adapters.count_versions(session, address.key) > 1


def steps_of_run(
    session: Session, adapter: Adapter, version: AdapterVersion
) -> tuple[list[RunStep], int]:
    """The adapters of a run by their step, and the place of this version, which is one of them.

    At most MAX_STRIP, evenly chosen. Raises InvalidInput if there are no others.
    """
    run_id = run_of(adapter, version)
    address = None if run_id is None else address_of(session, run_id)
    kept = adapters.list_versions(session, address.key) if address else []
    if address is None or len(kept) < 2:
        raise InvalidInput(
            "This adapter has no checkpoints to go through: it was not trained here, or its run "
            "keeps fewer than two."
        )
    found = [RunStep(address, row) for row in reversed(kept)]
    at = _place(found, version)
    if at is None:
        after = [step.version.version > (version.steps or 0) for step in found]
        at = after.index(True) if True in after else len(found)
        found.insert(at, RunStep(adapter, version))
    places = spread(len(found), MAX_STRIP, among=at)
    return [found[place] for place in places], places.index(at)


def _place(found: Sequence[RunStep], version: AdapterVersion) -> int | None:
    """Where the weights of a version are among these; None: nowhere."""
    return next(
        (place for place, step in enumerate(found) if step.version.sha256 == version.sha256), None
    )


def step_label(session: Session, used: ResolvedAdapter) -> str:
    """What an adapter of such a strip is called, such as “step 150” or “version 2”."""
    adapter = session.get(Adapter, used.adapter_id)
    return adapter.version_label(used.version) if adapter else f"version {used.version}"


def vary_adapter(
    request: RenderRequest, place: int, steps: Sequence[RunStep], *, first: int
) -> RenderRequest:
    """The request as a strip: at one place each of these adapters with the weights of that place.

    The one at `first` is generated first, then those next to it. All weights must be given.
    """
    varied = request.adapters[place]
    others = [used for index, used in enumerate(request.adapters) if index != place]
    named = [
        varied.model_copy(update={"adapter_id": step.adapter.key, "version": step.version.version})
        for step in steps
    ]
    rows = [
        [
            *(used.weight for used in others),
            *(varied.weight if column == shown else None for column in range(len(steps))),
        ]
        for shown in sorted(range(len(steps)), key=lambda column: abs(column - first))
    ]
    strip = {"adapters": [*others, *named], "weights": rows, "count": 1, "twin": False}
    return request.model_copy(update=strip)

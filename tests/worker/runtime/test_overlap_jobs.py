"""Two adapters of the registry are compared by an io job."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.registry.adapters import service
from app.registry.adapters.overlap import OverlapLevel, PairState, StackCheck, check_stack
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import IoJob
from tests.worker.runtime.job_loops import Registry
from tests.worker.runtime.test_tool_jobs import add, work_of


def check(registry: Registry, *adapters: Adapter) -> StackCheck:
    with registry.database.read() as session:
        made = [(adapter, service.get_version(session, adapter)) for adapter in adapters]
    return check_stack(registry.database, made)


def test_the_overlap_of_two_versions_is_measured_from_their_files(
    registry: Registry, tmp_path: Path
) -> None:
    ink, copy = (add(registry, tmp_path, name, 1) for name in ("Ink", "Copy"))
    chalk = add(registry, tmp_path, "Chalk", 2)
    assert check(registry, ink, copy, chalk).is_computing
    with registry.database.write() as session:
        gone = session.get_one(Adapter, chalk.key)
        gone.deleted_at = gone.created_at
    jobs = registry.rows(IoJob, kind="measure_overlap")
    with registry.working(work_of(registry)):
        ended = [registry.until_final(IoJob, job.key) for job in jobs]
    assert [job.status for job in ended] == ["succeeded", "failed", "failed"]
    assert (
        ended[1].error
        == "One of the two adapters was deleted. Restore it, then compare them again."
    )
    found = check(registry, ink, copy)
    (pair,) = found.pairs
    assert (pair.status, pair.level, pair.cosine) == (
        PairState.READY,
        OverlapLevel.MUCH,
        pytest.approx(1),
    )
    assert len(pair.layers) == pair.changed == 9  # of the small base
    assert all(layer.cosine == pytest.approx(1) for layer in pair.layers)
    assert found.shared_words == ["shared"]

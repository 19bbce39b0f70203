"""Versions of adapters are deleted and restored; they and adapters go for good; both databases."""

from __future__ import annotations

import pytest
from sqlmodel import col, select

from app.registry.adapters import service
from app.registry.adapters.versions import aliases
from app.registry.adapters.versions.aliases import names_of
from app.registry.adapters.versions.create_version import NewFile, NewVersion, publish
from app.registry.blobs.deletion import FreedSpace
from app.registry.db import utcnow
from app.registry.deletion import adapters as deleted
from app.registry.deletion.things import DeletedKind, list_things
from app.registry.deletion.usage import FileKind, storage_use
from app.registry.errors import Conflict, NotFound
from app.registry.job_kinds.kinds import (
    ExportAdapterArgs,
    ExportAdapterResult,
    ImportAdapterArgs,
    ImportAdapterResult,
    StoredSidecar,
)
from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.jobs.service import enqueue_io
from app.registry.renders import service as renders
from app.registry.renders.grids import service as grids
from app.registry.renders.grids.axes import AxisRequest
from app.registry.renders.grids.plan import GridRequest, plan_grid
from app.registry.renders.recipes.service import save_recipe
from app.registry.renders.requests import RenderRequest
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion
from app.registry.tables.axes import AxisKind
from app.registry.tables.jobs import IoJob
from tests import fake_workers
from tests.app.deletion.conftest import SECRET, Registry
from worker.core.words import FileFormat, WeightDtype


def make(registry: Registry, adapter: int | None = None) -> AdapterVersion:
    """A version with its own weights, an original file and a download that all versions share."""
    with registry.database.write() as session:
        number = len(session.exec(select(AdapterVersion)).all())
        shared = NewFile("peft", "fp16", registry.blob("shared"), 1, proof={"passed": True})
        own = NewFile("kohya", "fp16", registry.blob(f"file {number}"), 1)
        new = NewVersion(
            name="Ink",
            base_family="sd1",
            sha256=registry.blob(f"weights {number}"),
            size_bytes=1,
            rank=4,
            alpha=4.0,
            base_model_id=1,
            details={"source_sha256": registry.blob(f"original {number}")},
            files=[shared, own],
        )
        return publish(session, new, adapter_id=adapter)


def delete(registry: Registry, adapter: int, version: int | str) -> FreedSpace:
    """Delete a version, then for good."""
    with registry.database.write() as session:
        number = deleted.discard_version(session, adapter, version).version
    return registry.delete(lambda session: deleted.delete_version(session, adapter, number))


def latest(registry: Registry, adapter: int) -> int:
    with registry.database.read() as session:
        return service.get_version(session, service.get_adapter(session, adapter)).version


def restore(registry: Registry, adapter: int, version: int) -> None:
    with registry.database.write() as session:
        deleted.restore_version(session, adapter, version)


def discard(registry: Registry, adapter: int, version: int) -> None:
    with registry.database.write() as session:
        deleted.discard_version(session, adapter, version)


def test_a_deleted_version_is_nowhere_until_it_is_restored(registry: Registry) -> None:
    key = make(registry).adapter_id
    second = make(registry, key)
    discard(registry, key, 2)
    assert registry.state.store.exists(second.sha256)
    with registry.database.read() as session:
        adapter = service.get_adapter(session, key)
        assert [row.version for row in service.list_versions(session, key)] == [1]
        assert service.count_versions(session, key) == 1
        assert service.summary(session, adapter).version_count == 1
        assert names_of(session, [key])[key].numbers == [1]
        assert aliases.alias_numbers(session, key) == {"latest": 1}
        for reference in (2, "v2"):
            with pytest.raises(NotFound, match="no version 2"):
                service.get_version(session, adapter, reference)
        (thing,) = list_things(session, DeletedKind.VERSIONS).items
        assert (thing.name, thing.about) == ("Ink", "version 2")
        assert thing.place == f"/adapters/{key}/versions/2"
    uses = {use.kind: use.files for use in storage_use(registry.state)}
    assert uses[FileKind.DELETED_VERSIONS] == 2  # weights and its own download
    assert make(registry, key).version == 3  # a number names one version for ever
    discard(registry, key, 3)
    for _ in range(2):
        restore(registry, key, 2)
    assert latest(registry, key) == 2
    restore(registry, key, 3)
    assert latest(registry, key) == 3


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_latest_comes_back_in_whatever_order_versions_do(
    registry: Registry, order: tuple[int, int]
) -> None:
    key = make(registry).adapter_id
    make(registry, key)
    make(registry, key)
    discard(registry, key, 3)
    discard(registry, key, 2)
    assert latest(registry, key) == 1
    for number in order:
        restore(registry, key, number)
    assert latest(registry, key) == 3


def test_latest_that_was_moved_since_stays_where_it_is(registry: Registry) -> None:
    key = make(registry).adapter_id
    make(registry, key)
    make(registry, key)
    discard(registry, key, 3)
    with registry.database.write() as session:
        service.use_version(session, key, 1)
    restore(registry, key, 3)
    assert latest(registry, key) == 1


def test_a_version_goes_with_its_files_and_latest_moves(registry: Registry) -> None:
    first = make(registry)
    key = first.adapter_id
    second = make(registry, key)
    with pytest.raises(Conflict, match=r"not deleted\. Delete it first, then for good"):
        registry.delete(lambda session: deleted.delete_version(session, key, 2))
    freed = delete(registry, key, 2)
    assert freed.goes == ("2 downloads",)
    assert freed.files == 3  # weights, original, its own download
    assert freed.stays == (
        "Images generated with it and the run that trained it stay.",
        "1 file stays: another version has the same file.",
    )
    with registry.database.read() as session:
        adapter = service.get_adapter(session, key)
        assert service.get_version(session, adapter).key == first.key
        assert {row.version_id for row in session.exec(select(AdapterFile))} == {first.key}
        assert session.get(AdapterVersion, second.key) is None
    with pytest.raises(NotFound, match="no version 2"):
        delete(registry, key, 2)
    assert make(registry, key).version == 3  # a number names one version for ever


def test_the_only_version_and_one_with_an_alias_are_refused(registry: Registry) -> None:
    first = make(registry)
    with pytest.raises(Conflict, match=r"only version of “Ink”. Delete the adapter instead"):
        delete(registry, first.adapter_id, "latest")
    make(registry, first.adapter_id)
    with registry.database.write() as session:
        aliases.set_alias(session, session.get_one(AdapterVersion, first.key), "best")
    with pytest.raises(Conflict, match=r"“best” points to version 1 of “Ink”. Move or remove"):
        delete(registry, first.adapter_id, 1)
    delete(registry, first.adapter_id, 2)


def test_an_alias_that_was_set_during_the_deletion_goes_with_the_version(
    registry: Registry,
) -> None:
    key = make(registry).adapter_id
    second = make(registry, key)
    discard(registry, key, 2)
    with registry.database.write() as session:  # as a request that read the version before
        aliases.set_alias(session, second, "best")
    freed = registry.delete(lambda session: deleted.delete_version(session, key, 2))
    assert "1 alias" in freed.goes
    with registry.database.read() as session:
        assert aliases.alias_numbers(session, key) == {"latest": 1}


def test_a_version_that_jobs_need_is_refused(registry: Registry) -> None:
    first = make(registry)
    make(registry, first.adapter_id)
    used = fake_workers.weighted(first.adapter_id, version=1)
    with registry.database.write() as session:
        request = RenderRequest(prompt="x", adapters=[used])
        render = renders.create_render(session, request, registry.state.store)
        service.order_file(
            session, first.key, ExportAdapterArgs(format=FileFormat.PEFT, dtype=WeightDtype.FP32)
        )
    with pytest.raises(Conflict, match="1 render, 1 job"):
        delete(registry, first.adapter_id, 1)
    with registry.database.write() as session:
        renders.cancel_render(session, render.key)
        (job,) = session.exec(select(IoJob).where(IoJob.kind == "export_adapter")).all()
        session.delete(job)
    delete(registry, first.adapter_id, 1)


def test_jobs_that_made_a_version_forget_it(registry: Registry) -> None:
    version = make(registry)
    key = version.adapter_id
    make(registry, key)
    source = str(version.details["source_sha256"])
    with registry.database.write() as session:
        beside = StoredSidecar(name=SECRET, sha256=registry.blob("sidecar"))
        imported = enqueue_io(
            session, ImportAdapterArgs(sha256=source, filename=SECRET, sidecars=(beside,))
        )
        imported.result = ImportAdapterResult(adapter_id=key, version=1, notes=(SECRET,)).stored()
        export = service.order_file(
            session, version.key, ExportAdapterArgs(format=FileFormat.PEFT, dtype=WeightDtype.FP32)
        )
        export.result = ExportAdapterResult(sha256=version.sha256).stored()
        again = enqueue_io(
            session, ImportAdapterArgs(sha256=registry.blob("other form"), filename="again")
        )
        again.result = ImportAdapterResult(adapter_id=key, version=1, duplicate=True).stored()
        for job in (imported, again, export):
            job.status, job.finished_at = JobStatus.SUCCEEDED, utcnow()
    freed = delete(registry, key, 1)
    assert freed.files == 5  # although the jobs ended just now; with all that was uploaded
    assert SECRET not in registry.texts()
    with registry.database.read() as session:
        left, _ = session.exec(
            select(IoJob).where(IoJob.kind == "import_adapter").order_by(col(IoJob.id))
        ).all()
        assert left.outcome(ImportAdapterResult).version == 1
        assert left.arguments(ImportAdapterArgs).filename == "deleted file"


def test_an_adapter_deleted_for_good_frees_its_files_at_once(registry: Registry) -> None:
    adapter = fake_workers.adapter(registry.state, "Ink")
    other = make(registry)
    with registry.database.write() as session:
        row = service.delete_adapter(session, adapter.key)
        row.cover_sha256 = registry.blob("cover")
    freed = registry.delete(lambda session: deleted.delete_forever(session, adapter.key))
    assert freed.goes == ("1 version", "1 download")
    assert freed.files == 3  # weights, download, cover
    with registry.database.read() as session:
        assert [row.key for row in session.exec(select(Adapter))] == [other.adapter_id]


def test_recipes_and_grids_that_need_a_version_are_named(registry: Registry) -> None:
    key = make(registry).adapter_id
    make(registry, key)
    with registry.database.write() as session:
        for name, version in (("Soft", 1), ("Hard", 1), ("By alias", "latest"), ("Newest", 2)):
            used = WeightedAdapter(adapter_id=key, version=version)
            save_recipe(session, name, RenderRequest(prompt="a fox", adapters=[used]))
        axis = AxisRequest(AxisKind.ADAPTER, "ink@1, none")
        plan = plan_grid(session, GridRequest(RenderRequest(prompt="a fox"), [axis]))
        grid = grids.create_grid(session, plan, registry.state.store)
        grids.cancel_grid(session, grid.key)
    freed = delete(registry, key, 1)
    assert freed.stays[1:3] == (
        "The recipes “Soft” and “Hard” use it; the version in use takes its place there.",
        "The grid “Adapter” uses it: images that are not there yet cannot be made.",
    )
    with registry.database.write() as session:
        service.delete_adapter(session, key)
    freed = registry.delete(lambda session: deleted.delete_forever(session, key))
    assert (
        "The recipes “Soft”, “Hard”, “By alias” and 1 more use it; it is left out there."
    ) in freed.stays

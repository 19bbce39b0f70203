"""Checkpoints of runs are kept, used and deleted, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlmodel import select

from app.registry.adapters import service as adapters
from app.registry.adapters import tools
from app.registry.adapters.service import AdapterChange, Filter
from app.registry.adapters.versions import create_version
from app.registry.blobs.subjects import list_references
from app.registry.blobs.sweep import survey_store
from app.registry.db import Database
from app.registry.deletion import runs as deletion
from app.registry.deletion.usage import FileKind, storage_use
from app.registry.errors import Conflict, InvalidInput, NotFound
from app.registry.job_kinds.kinds import ResizeAdapterArgs
from app.registry.renders import service as renders
from app.registry.renders.requests import RenderRequest
from app.registry.runs import checkpoints, requests, service
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import Checkpoint, Run
from tests import fake_workers
from tests.app.deletion.conftest import Registry, state_with
from tests.fake_workers import FakeTraining


@pytest.fixture
def registry(database: Database, ready_base: None, tmp_path: Path) -> Registry:
    return Registry(state_with(database.engine, tmp_path / "data"))


def training(registry: Registry, name: str = "Chalk") -> FakeTraining:
    """A run that trains, with checkpoints and samples at the steps 10, 20, 30 and 40."""
    fake_workers.queued_run(registry.state, registry.dataset(name))
    found = FakeTraining(registry.state)
    found.sample(0)
    for _ in range(4):
        found.train(10)
        found.checkpoint()
        found.sample(found.step)
    return found


def steps(registry: Registry, run_id: int) -> dict[str, list[int]]:
    """The steps whose state, and those whose adapter, is stored."""
    with registry.database.read() as session:
        found = checkpoints.list_checkpoints(session, run_id)
    return {
        "states": [row.step for row in found if row.state],
        "adapters": [row.step for row in found if row.version],
    }


def use(registry: Registry, run_id: int, step: int) -> AdapterVersion:
    with registry.database.write() as session:
        return checkpoints.use_checkpoint(session, run_id, step).version


def order_render(registry: Registry, run_id: int, step: int) -> None:
    """Order an image with the checkpoint of a step, as on the page of its run."""
    with registry.database.write() as session:
        address = checkpoints.address_of(session, run_id)
        assert address is not None
        used = fake_workers.weighted(address.key, version=step)
        request = RenderRequest(prompt="a castle", adapters=[used])
        renders.create_render(session, request, registry.state.store)


def test_states_rotate_and_adapters_stay(registry: Registry) -> None:
    run = training(registry)
    assert steps(registry, run.run_id) == {"states": [40, 30], "adapters": [40, 30, 20, 10]}
    with registry.database.read() as session:
        (first, *_) = checkpoints.list_checkpoints(session, run.run_id)
        assert first.version is not None
        assert (first.version.version, first.version.steps, first.version.run_id) == (40, 40, 1)
        assert first.reference == "chalk-run-1@40"
        assert first.version.config["rank"] == first.version.rank


def test_what_a_person_saved_or_keeps_is_never_rotated_away(registry: Registry) -> None:
    fake_workers.queued_run(registry.state, registry.dataset())
    run = FakeTraining(registry.state)
    for number in range(1, 8):
        run.train(10)
        run.checkpoint(requested=number == 1, keep=2)
        if number == 2:
            with registry.database.write() as session:
                checkpoints.keep_checkpoint(session, run.run_id, 20, kept=True)
    kept = [70, 60, 20, 10]
    assert steps(registry, run.run_id) == {"states": kept, "adapters": kept}
    with registry.database.write() as session:
        checkpoints.keep_checkpoint(session, run.run_id, 10, kept=False)
    run.train(10)
    run.checkpoint(keep=2)
    assert steps(registry, run.run_id) == {"states": [80, 70, 20], "adapters": [80, 70, 20]}
    with registry.database.read() as session:
        texts = [event.data.get("text") for event in service.run_events(session, run.run_id)]
    assert texts[:3] == [
        "The checkpoint at step 10 is no longer kept.",
        "The checkpoint at step 20 is kept.",
        "A checkpoint was saved at step 10; it is kept.",
    ]


def test_the_best_one_is_not_rotated_away_until_another_one_is_better(registry: Registry) -> None:
    fake_workers.queued_run(registry.state, registry.dataset())
    run = FakeTraining(registry.state)
    for best in (10, 10, 30, 30, 30, 60):
        run.train(10)
        run.checkpoint(keep=2, best=best)
        if run.step == 50:
            kept = [50, 40, 30]
            assert steps(registry, run.run_id) == {"states": kept, "adapters": kept}
    assert steps(registry, run.run_id) == {"states": [60, 50], "adapters": [60, 50]}


def test_an_adapter_that_a_job_needs_is_not_rotated_away(registry: Registry) -> None:
    run = training(registry)
    order_render(registry, run.run_id, 10)
    run.train(10)
    run.checkpoint(keep=1)
    assert steps(registry, run.run_id)["adapters"] == [50, 10]
    fake_workers.draw(registry.state)
    run.train(10)
    run.checkpoint(keep=1)
    assert steps(registry, run.run_id)["adapters"] == [60]


def test_a_step_that_comes_again_replaces_its_adapter(registry: Registry) -> None:
    run = training(registry)
    with registry.database.read() as session:
        before = checkpoints.get_checkpoint(session, run.run_id, 40).version
    run.checkpoint()
    with registry.database.read() as session:
        after = checkpoints.get_checkpoint(session, run.run_id, 40).version
    assert before is not None
    assert after is not None
    assert (after.key, after.sha256) == (before.key, before.sha256)


def test_checkpoints_are_in_no_list_and_can_be_used_by_their_address(registry: Registry) -> None:
    run = training(registry)
    with registry.database.write() as session:
        assert adapters.list_adapters(session, Filter()).items == []
        assert adapters.list_adapters(session, Filter(q="chalk")).items == []
        address = adapters.adapter_by_slug(session, "chalk-run-1")
        version = adapters.get_version(session, address, 20)
        assert adapters.get_version(session, address).version == 40
        samples = adapters.version_samples(session, version)
        assert {sample.step for sample in samples} == {20}
        twin = create_version.find_equal(
            session, canonical=version.sha256, uploaded="", tensors=version.tensor_sha256
        )
        assert twin is None
        resize = ResizeAdapterArgs(rank=1, energy=None, dynamic=False)
        assert tools.order_resize(session, address.key, resize, 20).subject_id == version.key
    run.finish()
    with registry.database.read() as session:
        (only,) = adapters.list_adapters(session, Filter(q="chalk")).items
        assert (only.adapter.slug, only.version.version) == ("chalk", 1)


def test_the_adapter_of_checkpoints_is_changed_by_its_run_only(registry: Registry) -> None:
    run = training(registry)
    run.cancel()
    with registry.database.write() as session:
        address = checkpoints.address_of(session, run.run_id)
        assert address is not None
        for change in (
            lambda: adapters.change_adapter(session, address.key, AdapterChange(name="x")),
            lambda: adapters.delete_adapter(session, address.key),
        ):
            with pytest.raises(Conflict, match=r"checkpoints of run 1.*\(/runs/1\)"):
                change()
        request = requests.RunRequest(dataset_id=1, adapter_id=address.key)
        with pytest.raises(InvalidInput) as refused:
            requests.create_run(session, request)
        assert set(refused.value.fields) == {"adapter_id"}
        new = create_version.NewVersion("Smaller", "sd1", "0" * 64, 1, 1, 1.0)
        made = create_version.publish(session, new, adapter_id=address.key)
        assert (made.adapter_id != address.key, made.version) == (True, 1)


def test_a_checkpoint_that_is_used_becomes_the_version_in_use(registry: Registry) -> None:
    run = training(registry)
    adapter = run.finish()
    second = use(registry, run.run_id, 20)
    assert (second.adapter_id, second.version, second.steps) == (adapter.key, 2, 20)
    with registry.database.read() as session:
        assert adapters.get_version(session, adapter).version == 2
        assert {s.step for s in adapters.version_samples(session, second)} == {20}
        summary = adapters.summary(session, session.get_one(Adapter, adapter.key))
        (sample, _) = adapters.version_samples(session, second)
        assert summary.covers[0] == sample.sha256
        (export,) = session.exec(select(IoJob).where(IoJob.subject_id == second.key)).all()
        assert export.kind == "export_adapter"
    assert use(registry, run.run_id, 20).key == second.key
    first = use(registry, run.run_id, 40)  # the run has made a version of it already
    assert (first.version, first.key) == (1, 1 + 4)  # after four checkpoints
    with registry.database.read() as session:
        assert adapters.get_version(session, adapter).version == 1
        assert adapters.count_versions(session, adapter.key) == 2
        found = checkpoints.list_checkpoints(session, run.run_id)
    used = {row.step: row.used_as[1].version for row in found if row.used_as}
    assert used == {40: 1, 20: 2}


def test_using_it_twice_at_once_makes_one_version(registry: Registry) -> None:
    run = training(registry)
    run.cancel()
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: use(registry, run.run_id, 30).key, range(4)))
    assert len(set(made)) == 1


def test_checkpoints_of_a_canceled_run_make_one_adapter(registry: Registry) -> None:
    run = training(registry)
    run.cancel()
    first, second = use(registry, run.run_id, 10), use(registry, run.run_id, 30)
    assert (first.adapter_id, second.version) == (second.adapter_id, 2)
    with registry.database.write() as session:
        adapters.delete_adapter(session, first.adapter_id)
    third = use(registry, run.run_id, 30)
    assert (third.adapter_id != first.adapter_id, third.version) == (True, 1)


def test_what_a_run_makes_after_a_checkpoint_was_used_is_the_next_version(
    registry: Registry,
) -> None:
    run = training(registry)
    early = use(registry, run.run_id, 10)
    with registry.database.write() as session:
        into = create_version.adapter_of_parent(session, session.get_one(Run, run.run_id))
    assert into == early.adapter_id


def test_what_cannot_be_used_says_why(registry: Registry) -> None:
    run = training(registry)
    run.cancel()
    with pytest.raises(NotFound, match=r"no checkpoint at step 5; .* at steps: 40, 30, 20, 10."):
        use(registry, run.run_id, 5)
    with registry.database.write() as session:
        session.add(Checkpoint(run_id=run.run_id, step=5, sha256="0" * 64, size_bytes=1))
    with pytest.raises(Conflict, match=r"only the training state.* Continue from it instead"):
        use(registry, run.run_id, 5)


def test_a_checkpoint_is_deleted_with_state_adapter_and_downloads(registry: Registry) -> None:
    run = training(registry)
    run.cancel()
    made = use(registry, run.run_id, 40)
    with registry.database.read() as session:
        one = checkpoints.get_checkpoint(session, run.run_id, 30)
    assert one.version is not None
    download = create_version.NewFile("kohya", "fp16", registry.blob("download of 30"), 14)
    with registry.database.write() as session:
        create_version.add_file(session, one.version.key, download)
    remove = lambda session: deletion.delete_checkpoints(session, run.run_id, step=30)  # noqa: E731
    freed = registry.delete(remove)
    assert (freed.goes, freed.files) == (("1 checkpoint", "1 download"), 3)
    with pytest.raises(NotFound, match="deleted already"):
        registry.delete(remove)
    freed = registry.delete(
        lambda session: deletion.delete_checkpoints(session, run.run_id, step=40)
    )
    assert "Version 1 of “Chalk” stays." in freed.stays
    assert freed.files == 1  # the version has the same weights
    assert registry.state.store.exists(made.sha256)


def test_a_checkpoint_that_is_tried_just_now_is_not_deleted(registry: Registry) -> None:
    run = training(registry)
    run.cancel()
    order_render(registry, run.run_id, 20)
    words = "checkpoint at step 20 of “Chalk” is used by 1 render"
    for remove in (
        lambda session: deletion.delete_checkpoints(session, run.run_id, step=20),
        lambda session: deletion.delete_run(session, run.run_id),
    ):
        with pytest.raises(Conflict, match=words):
            registry.delete(remove)
    (render,) = fake_workers.draw(registry.state)
    registry.delete(lambda session: deletion.delete_run(session, run.run_id))
    with registry.database.read() as session:
        assert session.exec(select(AdapterVersion)).all() == []
        assert session.exec(select(Adapter)).all() == []
        assert renders.get_render(session, render.key).state.is_final


def test_deleting_many_leaves_what_is_kept_and_says_so(registry: Registry) -> None:
    run = training(registry)
    run.cancel()
    with registry.database.write() as session:
        checkpoints.keep_checkpoint(session, run.run_id, 30, kept=True)
    states = registry.delete(deletion.delete_all_checkpoints)
    assert states.goes == ("1 training state",)
    assert "The adapters of their checkpoints stay." in states.stays
    assert steps(registry, run.run_id) == {"states": [30], "adapters": [40, 30, 20, 10]}
    rest = registry.delete(lambda session: deletion.delete_checkpoints(session, run.run_id))
    assert rest.goes == ("3 checkpoints",)
    assert "1 checkpoint that is kept stays. Delete each beside its samples." in rest.stays
    assert steps(registry, run.run_id) == {"states": [30], "adapters": [30]}


def test_adapters_of_checkpoints_are_needed_files_of_their_own_kind(registry: Registry) -> None:
    run = training(registry)
    run.cancel()
    with registry.database.read() as session:
        (found,) = checkpoints.list_checkpoints(session, run.run_id, steps=[10])
        assert found.version is not None
        (reference, *_) = list_references(session, [found.version.sha256])
    what = "the adapter of the checkpoint at step 10 of the run “Chalk”"
    assert (reference.what, reference.subject, reference.subject_id) == (what, "run", run.run_id)
    survey = survey_store(registry.database, registry.state.store, found.created_at)
    assert found.version.sha256 not in survey.unreferenced
    kinds = {use.kind: use.files for use in storage_use(registry.state)}
    assert kinds[FileKind.CHECKPOINT_ADAPTERS] == 4

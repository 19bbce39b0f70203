"""Runs and checkpoints are deleted, restored and deleted for good, on both databases."""

from __future__ import annotations

import pytest
from sqlmodel import Session, col, select

from app.registry.adapters import service as adapters
from app.registry.blobs.references import find_referenced
from app.registry.blobs.subjects import list_references
from app.registry.comparison.versions import compare
from app.registry.deletion import adapters as deleted_adapters
from app.registry.deletion import datasets
from app.registry.deletion import runs as deletion
from app.registry.deletion.lists import restore
from app.registry.deletion.things import DeletedKind, list_things
from app.registry.deletion.usage import FileKind, storage_use
from app.registry.errors import Conflict, NotFound
from app.registry.jobs import service as jobs
from app.registry.renders.adapter_images import list_samples
from app.registry.runs import checkpoints, progress, requests, rerun, service
from app.registry.runs.checkpoints import list_sample_page
from app.registry.runs.listing import RunFilter, list_runs
from app.registry.tables.adapters import Adapter
from app.registry.tables.jobs import Event, IoJob
from app.registry.tables.runs import Checkpoint, MetricChunk, Run, Sample
from tests import fake_workers
from tests.app.deletion.conftest import SECRET, Registry


def test_nothing_is_left_of_a_run_but_its_events_without_text(registry: Registry) -> None:
    dataset = registry.dataset(caption="")
    run = registry.run(dataset)
    freed = registry.delete(lambda session: deletion.delete_run(session, run.key))
    assert freed.goes == ("1 sample", "1 checkpoint")
    assert freed.files == 3  # with the thumbnail
    with registry.database.read() as session:
        for table in (Run, Sample, Checkpoint, MetricChunk):
            assert session.exec(select(table)).all() == []
        events = session.exec(
            select(Event).where(Event.subject == "run").order_by(col(Event.id))
        ).all()
    assert [event.kind for event in events] == ["queued", "running", "failed", "deleted"]
    assert {str(event.data) for event in events} == {"{}"}
    assert SECRET not in registry.texts()
    with pytest.raises(NotFound, match="for good already"):
        registry.delete(lambda session: deletion.delete_run(session, run.key))


def test_no_run_gets_the_number_of_a_deleted_one(registry: Registry) -> None:
    dataset = registry.dataset()
    first = registry.run(dataset)
    registry.delete(lambda session: deletion.delete_run(session, first.key))
    assert registry.run(dataset).key > first.key


def test_what_another_run_has_too_stays_and_is_not_counted(registry: Registry) -> None:
    dataset = registry.dataset(pictures=2)
    first, second = registry.run(dataset), registry.run(dataset)  # with the same samples
    freed = registry.delete(lambda session: deletion.delete_run(session, first.key))
    assert freed.files == 1
    assert "1 file stays: it is a sample of another run or of a version." in freed.stays
    with registry.database.read() as session:
        for sample in service.run_samples(session, second.key):
            assert registry.state.store.exists(sample.sha256)


@pytest.mark.parametrize("claims", [False, True])
def test_one_that_has_not_ended_is_refused_with_a_sentence(
    registry: Registry, claims: bool
) -> None:
    run = fake_workers.queued_run(registry.state, registry.dataset())
    if claims:
        fake_workers.FakeTraining(registry.state)
    words = "is training" if claims else "is waiting"
    with pytest.raises(Conflict, match=f"{words}. Cancel it first"):
        registry.delete(lambda session: deletion.delete_run(session, run.key))
    with pytest.raises(Conflict, match="Cancel it first"):
        registry.delete(lambda session: deletion.delete_checkpoints(session, run.key))


def test_a_run_that_goes_on_from_it_keeps_its_start(registry: Registry) -> None:
    dataset = registry.dataset()
    parent = registry.run(dataset)
    child = registry.run(dataset, continues=parent.key, samples=False)
    freed = registry.delete(lambda session: deletion.delete_run(session, parent.key))
    assert "1 file stays: another run continues from it." in freed.stays
    with registry.database.read() as session:
        assert session.get_one(Run, child.key).parent_id is None
        start = progress.checkpoints(session, child.key)[-1]
        assert registry.state.store.exists(start.sha256)
        texts = [event.data.get("text") for event in service.run_events(session, child.key)]
    assert "Continues from a run that was deleted." in texts
    both = registry.delete(lambda session: deletion.delete_checkpoints(session, child.key))
    assert (both.goes, both.files) == (("2 checkpoints",), 2)


def test_a_child_that_waits_is_named(registry: Registry) -> None:
    parent = registry.run(registry.dataset())
    request = requests.RunRequest(
        dataset_id=1, config={"steps": 99}, continues=requests.StartCheckpoint(parent.key)
    )
    with registry.database.write() as session:
        child = requests.create_run(session, request)
    with pytest.raises(Conflict, match=f"Run {child.key} continues from"):
        registry.delete(lambda session: deletion.delete_run(session, parent.key))


def test_a_deleted_run_is_nowhere_until_it_is_restored(registry: Registry) -> None:
    run_id, adapter = train_two_versions(registry)
    with registry.database.read() as session:
        steps = checkpoints.newest_steps(session, run_id, limit=9)
        address = checkpoints.address_of(session, run_id)
        before = [shown_samples(session, adapter, number) for number in (1, 2)]
    size = registry.size()
    with registry.database.write() as session:
        deletion.discard_checkpoint(session, run_id, steps[0])
    with registry.database.read() as session:
        assert checkpoints.count_checkpoints(session, run_id) == len(steps) - 1
        assert [row.step for row in checkpoints.list_checkpoints(session, run_id)] == steps[1:]
        assert list_sample_page(session, run_id).steps == steps  # its samples stay
    with registry.database.write() as session:
        deletion.discard_run(session, run_id)
    assert registry.size() == size
    with registry.database.read() as session:
        assert list_runs(session, RunFilter()).items == []
        with pytest.raises(NotFound, match=r"This run was deleted\. You can restore it"):
            rerun.train_again(session, run_id)
        assert address
        assert adapters.list_versions(session, address.key) == []
        assert [shown_samples(session, adapter, number) for number in (1, 2)] == before
        assert [row.place for row in list_things(session, DeletedKind.RUNS).items] == [
            f"/runs/{run_id}"
        ]
        assert list_things(session, DeletedKind.VERSIONS).items == []
    uses = {use.kind: use.files for use in storage_use(registry.state)}
    assert (uses[FileKind.CHECKPOINTS], uses[FileKind.CHECKPOINT_ADAPTERS]) == (0, 0)
    assert uses[FileKind.DELETED_RUNS] > 0
    for _ in range(2):
        with registry.database.write() as session:
            assert deletion.restore_run(session, run_id).deleted_at is None
    with registry.database.read() as session:
        assert [row.step for row in checkpoints.list_checkpoints(session, run_id)] == steps[1:]
        (thing,) = list_things(session, DeletedKind.VERSIONS).items
        assert thing.place == f"/runs/{run_id}/checkpoints/{steps[0]}"
    for _ in range(2):
        with registry.database.write() as session:
            deletion.restore_checkpoint(session, run_id, steps[0])
    with registry.database.read() as session:
        assert checkpoints.newest_steps(session, run_id, limit=9) == steps


def test_of_several_those_that_can_be_deleted_go(registry: Registry) -> None:
    dataset = registry.dataset()
    parent = registry.run(dataset)
    child = registry.run(dataset, continues=parent.key, samples=False)
    needed = registry.run(dataset)
    request = requests.RunRequest(
        dataset_id=1, config={"steps": 99}, continues=requests.StartCheckpoint(needed.key)
    )
    with registry.database.write() as session:
        waiting = requests.create_run(session, request)
    keys = [parent.key, child.key, needed.key, waiting.key, 99]
    freed = registry.delete(lambda session: deletion.delete_runs(session, keys))
    assert freed.title == "2 runs"
    assert freed.goes == (
        f"run {parent.key}, “Cats” with 1 sample, 1 checkpoint",
        f"run {child.key}, “Cats” with 2 checkpoints",
    )
    assert any(f"Run {waiting.key} continues from" in sentence for sentence in freed.stays)
    assert "“Cats” is waiting. Cancel it first, then delete it." in freed.stays
    with registry.database.read() as session:
        left = session.exec(select(Run.id).order_by(col(Run.id))).all()
        assert left == [needed.key, waiting.key]
        assert session.get_one(Run, waiting.key).parent_id == needed.key
    with pytest.raises(Conflict, match="Cancel it first"):
        registry.delete(lambda session: deletion.delete_runs(session, keys))
    with pytest.raises(NotFound, match="deleted already"):
        registry.delete(lambda session: deletion.delete_runs(session, [99]))


def test_the_adapter_stays_and_knows_no_run(registry: Registry) -> None:
    adapter = fake_workers.adapter(registry.state, "Ink")
    freed = registry.delete(lambda session: deletion.delete_run(session, 1))
    assert any("Version 1 of the adapter “Ink” stays" in sentence for sentence in freed.stays)
    with registry.database.read() as session:
        version = fake_workers.service.get_version(session, adapter)
        assert version.run_id is None
        assert registry.state.store.exists(version.sha256)


def test_one_checkpoint_of_a_run_or_those_of_all(registry: Registry) -> None:
    dataset = registry.dataset()
    first, second = registry.run(dataset), registry.run(dataset)
    waiting = fake_workers.queued_run(registry.state, dataset)
    registry.add(Checkpoint(run_id=waiting.key, step=1, sha256=registry.blob("x"), size_bytes=1))
    freed = registry.delete(
        lambda session: deletion.delete_checkpoints(session, first.key, step=20)
    )
    assert freed.title == f"the checkpoint at step 20 of run {first.key}, “Cats”"
    with pytest.raises(NotFound, match="deleted already"):
        registry.delete(lambda session: deletion.delete_checkpoints(session, first.key, step=20))
    freed = registry.delete(deletion.delete_all_checkpoints)
    assert freed.goes == ("1 training state",)
    assert freed.size_bytes > 0
    with registry.database.read() as session:
        assert [row.run_id for row in session.exec(select(Checkpoint))] == [waiting.key]
        assert progress.checkpoints(session, second.key) == []


def test_bulk_cleaning_leaves_the_training_states_that_can_be_restored(registry: Registry) -> None:
    run = registry.run(registry.dataset())
    with registry.database.write() as session:
        deletion.discard_run(session, run.key)
    freed = registry.delete(deletion.delete_all_checkpoints)
    assert not freed.goes
    assert freed.stays[-1] == (
        "1 training state of what you deleted stays, until you delete that for good."
    )
    with registry.database.write() as session:
        deletion.restore_run(session, run.key)
        assert len(progress.checkpoints(session, run.key)) == 1
    assert registry.delete(deletion.delete_all_checkpoints).goes == ("1 training state",)


def test_pinned_images_go_with_the_last_run_that_needs_them(registry: Registry) -> None:
    dataset = registry.dataset()
    first = registry.run(dataset, samples=False)
    with registry.database.write() as session:
        second, _ = rerun.train_again(session, first.key)
    with registry.database.write() as session:
        service.cancel_run(session, second.key)
        for image in fake_workers.datasets.list_images(session, dataset.key):
            fake_workers.datasets.delete_image(session, image.key)
    freed = registry.delete(lambda session: datasets.delete_deleted_images(session, dataset.key))
    assert freed.files == 0
    assert freed.stays[0].startswith("3 images stay, with captions, because 2 runs were trained")
    assert SECRET in registry.texts()
    one = registry.delete(lambda session: deletion.delete_run(session, first.key))
    last = registry.delete(lambda session: deletion.delete_run(session, second.key))
    assert (one.files, last.files) == (1, 3)  # the checkpoint, the images
    assert SECRET not in registry.texts()


def train_two_versions(registry: Registry) -> tuple[int, Adapter]:
    """A run whose checkpoint at step 20 is version 1, and whose end is version 2."""
    fake_workers.queued_run(registry.state, registry.dataset())
    training = fake_workers.FakeTraining(registry.state)
    training.sample(0)
    training.train(20)
    training.checkpoint()
    training.sample(20)
    with registry.database.write() as session:
        checkpoints.use_checkpoint(session, training.run_id, 20)
        for job in session.exec(select(IoJob)):  # its download, which nobody writes here
            jobs.request_cancel(session, IoJob, job)
    training.train(20)
    training.checkpoint(requested=True)
    training.sample(40)
    return training.run_id, training.finish()


def test_each_version_from_a_run_keeps_its_samples(registry: Registry) -> None:
    run_id, adapter = train_two_versions(registry)
    with registry.database.read() as session:
        before = [shown_samples(session, adapter, number) for number in (1, 2)]
    freed = registry.delete(lambda session: deletion.delete_run(session, run_id))
    assert freed.goes[0] == "2 samples"  # those of the base model
    assert freed.stays[:3] == (
        "Version 1 of the adapter “Cats” stays, with its 2 samples; the checkpoint at step 20 that "
        "it was made of goes.",
        "Version 2 of the adapter “Cats” stays, with its 2 samples.",
        "“Train again” then no longer works for them.",
    )
    with registry.database.read() as session:
        assert [shown_samples(session, adapter, number) for number in (1, 2)] == before
        first, second = (adapters.get_version(session, adapter, n) for n in (1, 2))
        summary = adapters.summary(session, adapter)
        for version in (first, second):
            images = list_samples(session, summary, version)
            assert [image.title for image in images] == ["a castle", "a rocket"]
        assert len(compare(session, adapter, 1, 2).pairs) == 2
    with registry.database.write() as session:
        deleted_adapters.discard_version(session, adapter.key, 1)
    registry.delete(lambda session: deleted_adapters.delete_version(session, adapter.key, 1))
    with registry.database.read() as session:
        left = session.exec(select(Sample.sha256)).all()
    assert sorted(left) == sorted(sha256 for sha256, _ in before[1])


def shown_samples(session: Session, adapter: Adapter, number: int) -> list[tuple[str, str]]:
    version = adapters.get_version(session, adapter, number)
    found = adapters.version_samples(session, version)
    return [(sample.sha256, sample.prompt) for sample in found]


def test_samples_that_versions_keep_count_and_are_not_swept(registry: Registry) -> None:
    run_id, adapter = train_two_versions(registry)
    registry.delete(lambda session: deletion.delete_run(session, run_id))
    samples = {use.kind: use for use in storage_use(registry.state)}[FileKind.SAMPLES]
    assert samples.files == 3  # one is the cover
    with registry.database.read() as session:
        (sha256, _), *_ = shown_samples(session, adapter, 1)
        assert sha256 in find_referenced(session, [sha256])
        whats = [found.what for found in list_references(session, {sha256})]
    assert "a sample of version 1 of “Cats”" in whats
    with registry.database.write() as session:
        adapters.delete_adapter(session, adapter.key)
    freed = registry.delete(lambda session: deleted_adapters.delete_forever(session, adapter.key))
    assert "4 samples" in freed.goes
    assert not registry.state.store.exists(sha256)


def test_a_version_of_a_deleted_adapter_keeps_its_samples_too(registry: Registry) -> None:
    run_id, adapter = train_two_versions(registry)
    with registry.database.write() as session:
        adapters.delete_adapter(session, adapter.key)
    freed = registry.delete(lambda session: deletion.delete_run(session, run_id))
    assert "Version 2 of the deleted adapter “Cats” stays, with its 2 samples." in freed.stays
    with registry.database.write() as session:
        restore(session, Adapter, adapter.key)
        assert len(shown_samples(session, adapter, 2)) == 2

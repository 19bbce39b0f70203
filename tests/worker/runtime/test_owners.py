"""Workers act as the owner of a job: they make things for them and find only what they see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import select

from app.registry.actor import Role, Visibility, making_for
from app.registry.people import service as people
from app.registry.tables.all import THINGS
from app.registry.tables.runs import Run
from tests.worker.runtime.job_loops import Registry
from tests.worker.runtime.test_import_jobs import lora, made, notes_of, send, work_of
from tests.worker.runtime.time_limits.test_limited_jobs import COMMAND, limited

ANA, BEN = 2, 3


@pytest.fixture
def with_people(registry: Registry) -> Registry:
    """A registry with accounts and three people: an administrator, Ana and Ben."""
    settings = registry.settings.model_copy(update={"accounts": True, "evaluate_runs": True})
    with registry.database.write() as session:
        for name in ("Eva", "Ana", "Ben"):
            role = Role.ADMIN if name == "Eva" else Role.MEMBER
            key = people.add_user(session, name, role).key
    assert key == BEN
    return replace(registry, settings=settings)


def things_of(registry: Registry) -> Iterator[tuple[str, int, int, str]]:
    with registry.database.read() as session:
        for table in THINGS:
            for row in session.exec(select(table)):
                yield table.__tablename__, row.id, row.owner_id, row.visibility


def test_what_a_private_run_makes_is_private_and_its_owners(with_people: Registry) -> None:
    before = set(things_of(with_people))
    with making_for(BEN, Visibility.PRIVATE):
        run_id = with_people.new_run(evaluate=True, sample_every=2)
    with with_people.working(with_people.train_jobs()) as loop:
        loop.serve_wakeup()
        run = with_people.until_final(Run, run_id)
    assert (run.status, run.error) == ("succeeded", None)
    new = set(things_of(with_people)) - before
    assert {(owner, visibility) for _, _, owner, visibility in new} == {(BEN, "private")}
    names = [name for name, *_ in new]
    assert (names.count("run"), names.count("adapter")) == (1, 2)  # with that of its checkpoints
    assert names.count("io_job") >= 1  # its evaluation


@pytest.mark.parametrize("process", [False, True])
def test_an_import_is_compared_with_what_its_owner_sees(
    with_people: Registry, tmp_path: Path, process: bool
) -> None:
    work = limited(with_people, COMMAND) if process else work_of(with_people)
    tensors = lora((1280, 768))
    half = {name: tensor.half() for name, tensor in tensors.items()}
    with with_people.working(work):
        with making_for(ANA, Visibility.PRIVATE):
            secret, _ = made(with_people, send(with_people, tensors, tmp_path, name="secret.st"))
        assert (secret.owner_id, secret.visibility) == (ANA, "private")
        with making_for(BEN, Visibility.STUDIO):
            near, version = made(with_people, send(with_people, half, tmp_path, name="ink.st"))
            assert not any("nearly" in note for note in notes_of(version))
            same, _ = made(with_people, send(with_people, tensors, tmp_path, name="chalk.st"))
        assert same.key not in (secret.key, near.key)
        assert (same.owner_id, same.visibility) == (BEN, "studio")
        with making_for(ANA, Visibility.STUDIO):
            again = send(with_people, tensors, tmp_path, name="again.st")
        assert again.result == {"adapter_id": secret.key, "version": 1, "duplicate": True}

"""The disk quota of people: what counts, what is refused, and that nothing stays of that."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import random
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as Picture
from sqlmodel import SQLModel, col, select

from app.registry.actor import Limits, Principal, Role, Visibility, acting_as, making_for
from app.registry.adapters.service import order_import
from app.registry.blobs.deletion import delete
from app.registry.blobs.disk_quota import DiskBooking, disk_use
from app.registry.datasets import service as datasets
from app.registry.db import Database, make_engine
from app.registry.deletion import datasets as for_good
from app.registry.errors import QuotaUsedUp
from app.registry.job_kinds.kinds import InspectBaseArgs, ResizeAdapterArgs
from app.registry.jobs import service as jobs
from app.registry.people import service as people
from app.registry.state import AppState
from app.registry.storage.folder import LocalBlobStore
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.datasets import Dataset, Image
from app.registry.tables.jobs import IoJob
from app.registry.tables.people import User
from app.registry.tables.runs import Run
from tests import fake_workers
from tests.app.people.conftest import ClientOf, find_person, state_of, train_privately, working_as
from tests.images import make_png

RACERS = "forkserver" if sys.platform != "win32" else "spawn"
BOUNDARY = "sent-in-parts"


def limit(app: FastAPI, name: str, size: int) -> None:
    with state_of(app).database.write() as session:
        session.get_one(User, find_person(app, name).key).disk_bytes = size


def use(app: FastAPI, name: str) -> int:
    with state_of(app).database.read() as session:
        used = disk_use(session, find_person(app, name).key)
    assert used is not None
    return used


def files(state: AppState) -> dict[str, int]:
    """The size of every file of the store, and of those that are on their way into it."""
    folders = (state.store.temporary_folder().parent, state.settings.scratch)
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.name: path.stat().st_size for path in found if path.name != "registry.json"}


def rows(state: AppState) -> dict[str, int]:
    """The number of rows of each table, but for hashes and sizes of files."""
    with state.database.read() as session:
        return {
            table.name: session.connection()
            .execute(sa.select(sa.func.count()).select_from(table))
            .scalar_one()
            for table in SQLModel.metadata.sorted_tables
            if table.name not in ("blob_check", "erased_hash")
        }


def noise(seed: int, kind: str = "png") -> bytes:
    """An image whose PNG takes 50 kB, and whose JPEG a seventh of it."""
    file = BytesIO()
    pixels = random.Random(seed).randbytes(3 * 128 * 128)
    Picture.frombytes("RGB", (128, 128), pixels).save(file, kind, quality=20)
    return file.getvalue()


def upload(client: TestClient, dataset: Dataset, *images: bytes) -> Any:
    sent = [("files", (f"{number}.png", image)) for number, image in enumerate(images)]
    return client.post(f"/api/v1/datasets/{dataset.key}/images", files=sent)


def make_dataset(app: FastAPI, name: str, makes: Visibility = Visibility.STUDIO) -> Dataset:
    with working_as(app, name, makes), state_of(app).database.write() as session:
        return datasets.create_dataset(session, "Toys")


def delete_images(app: FastAPI, name: str, dataset: Dataset, *, finally_too: bool = True) -> None:
    state = state_of(app)
    with working_as(app, name):
        with state.database.write() as session:
            live = select(Image).where(Image.dataset_id == dataset.key)
            for image in session.exec(live.where(col(Image.deleted_at).is_(None))).all():
                datasets.delete_image(session, image.key)
        if finally_too:
            delete(state, lambda session: for_good.delete_deleted_images(session, dataset.key))


def send(
    app: FastAPI, client: TestClient, path: str, chunks: Iterator[bytes], length: int | None
) -> tuple[int, int]:
    """(status, number of chunks that were read) of an upload by a program."""
    headers = {
        "host": "localhost",
        "authorization": client.headers["authorization"],
        "content-type": f"multipart/form-data; boundary={BOUNDARY}",
    }
    headers |= {} if length is None else {"content-length": str(length)}
    read, statuses = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    async def answer(message: Any) -> None:
        statuses.append(message.get("status"))

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "client": ("127.0.0.1", 1), "server": ("localhost", 80),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asyncio.run(app(scope, receive, answer))  # type: ignore[arg-type]
    return statuses[0], read


def endless_file() -> Iterator[bytes]:
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    return itertools.chain([head.encode()], itertools.repeat(bytes(64_000)))


@pytest.mark.parametrize("length", [2_000_000, None])
def test_an_upload_is_refused_by_its_length_or_while_it_comes(
    people_app: FastAPI, client_of: ClientOf, length: int | None
) -> None:
    dataset = make_dataset(people_app, "Ana")
    limit(people_app, "Ana", 1_000_000)
    program = client_of("Ana", "write")
    was = rows(state_of(people_app)), files(state_of(people_app))
    for path in (f"/api/v1/datasets/{dataset.key}/images", "/api/v1/adapters/import"):
        status, read = send(people_app, program, path, endless_file(), length)
        assert status == 507
        assert read == 0 if length else 15 < read < 20
    assert (rows(state_of(people_app)), files(state_of(people_app))) == was


def test_an_image_that_is_only_measured_needs_no_room(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    limit(people_app, "Ana", 1)
    program = client_of("Ana", "write")
    big = make_png(1, size=(900, 900)) + bytes(70_000)
    assert program.post("/api/v1/style-searches", files={"file": big}).status_code == 202
    assert program.post("/api/v1/renders/recall", files={"file": big}).status_code == 422


def test_nothing_stays_of_an_upload_that_grows_beyond_the_quota(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    state, program, browser = state_of(people_app), client_of("Ana", "write"), client_of("Ana")
    dataset = make_dataset(people_app, "Ana")
    images = [noise(number, "jpeg") for number in range(24)]
    assert upload(program, dataset, images[0]).status_code == 200
    limit(people_app, "Ana", 22 * use(people_app, "Ana"))  # more than are written at once
    was = rows(state), files(state)
    refused = upload(program, dataset, *images)
    assert refused.status_code == 507
    assert refused.json()["quota"] == "disk"
    assert "Your things take" in refused.json()["detail"]
    assert (rows(state), files(state)) == was
    sent = [("files", (f"{number}.jpg", image)) for number, image in enumerate(images)]
    answer = browser.post("/datasets", data={"name": "Other"}, files=sent)
    assert answer.status_code == 507
    assert (rows(state), files(state)) == was
    assert upload(program, dataset, *images[:20]).status_code == 200


def test_other_files_that_are_refused_do_not_stay(people_app: FastAPI, client_of: ClientOf) -> None:
    state, program = state_of(people_app), client_of("Ana", "write")
    limit(people_app, "Ana", 1)
    weights = (8).to_bytes(8, "little") + b"{}      "
    was = rows(state), files(state)
    for path, name, content in (
        ("/api/v1/renders/sources", "a.png", make_png(3)),
        ("/api/v1/adapters/import", "a.safetensors", weights),
    ):
        refused = program.post(path, files={"file": (name, content)})
        assert refused.status_code == 507, refused.text
    assert (rows(state), files(state)) == was


def test_what_is_deleted_counts_until_it_is_deleted_for_good(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    dataset, program = make_dataset(people_app, "Ana"), client_of("Ana", "write")
    assert upload(program, dataset, noise(1)).status_code == 200
    used = use(people_app, "Ana")
    assert used > 49_000
    limit(people_app, "Ana", used + 1_000)
    delete_images(people_app, "Ana", dataset, finally_too=False)
    told = {"quota": "disk", "used": used, "limit": used + 1_000}
    assert told in program.get("/api/v1/me").json()["use"]
    assert "Deleted things count until they are" in client_of("Ana").get("/account").text
    assert upload(program, dataset, noise(2)).status_code == 507
    delete_images(people_app, "Ana", dataset)
    assert use(people_app, "Ana") == 0
    assert upload(program, dataset, noise(2)).status_code == 200


def test_the_same_bytes_count_for_each_person_and_once(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    state = state_of(people_app)
    made = {name: make_dataset(people_app, name) for name in ("Ana", "Ben")}
    for name, dataset in made.items():
        assert upload(client_of(name, "write"), dataset, noise(1)).status_code == 200
    again = make_dataset(people_app, "Ben")
    assert upload(client_of("Ben", "write"), again, noise(1)).status_code == 200
    used = sum(files(state).values())
    assert (use(people_app, "Ana"), use(people_app, "Ben")) == (used, used)
    delete_images(people_app, "Ana", made["Ana"])
    assert (use(people_app, "Ana"), use(people_app, "Ben")) == (0, used)
    assert sum(files(state).values()) == used


def test_files_count_for_the_owner_of_the_thing_that_they_become_part_of(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    dataset = make_dataset(people_app, "Ana", Visibility.STUDIO_EDIT)
    limit(people_app, "Ben", 1)
    assert upload(client_of("Ben", "write"), dataset, noise(1), noise(2)).status_code == 200
    assert (use(people_app, "Ben"), use(people_app, "Ana") > 98_000) == (0, True)
    limit(people_app, "Ana", 1)
    refused = upload(client_of("Ben", "write"), dataset, noise(3), noise(4))
    assert refused.status_code == 507
    assert "The things of Ana take" in refused.json()["detail"]


def test_all_files_of_all_things_count(people_app: FastAPI, client_of: ClientOf) -> None:
    state, program = state_of(people_app), client_of("Ana", "write")
    train_privately(people_app, "Ana")
    source = program.post("/api/v1/renders/sources", files={"file": make_png(3)})
    assert source.status_code == 201
    original, waiting = fake_workers.blob(state, b"original"), fake_workers.blob(state, b"waiting")
    with working_as(people_app, "Ana"), state.database.write() as session:
        version = session.exec(select(AdapterVersion)).first()
        assert version is not None
        version.details = version.details | {"source_sha256": original}
        order_import(session, sha256=waiting, filename="a.safetensors")
    assert use(people_app, "Ana") == sum(files(state).values())
    assert use(people_app, "Ben") == 0


def test_images_deleted_for_good_count_while_a_run_keeps_them(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    state, dataset = state_of(people_app), make_dataset(people_app, "Ana")
    assert upload(client_of("Ana", "write"), dataset, noise(1)).status_code == 200
    with working_as(people_app, "Ana"):
        fake_workers.queued_run(state, dataset)
    delete_images(people_app, "Ana", dataset)
    assert use(people_app, "Ana") == sum(files(state).values()) > 49_000


def test_jobs_that_make_files_are_refused_and_those_that_run_are_not_stopped(
    people_app: FastAPI,
) -> None:
    state = state_of(people_app)
    limit(people_app, "Ana", 10**9)
    with working_as(people_app, "Ana"):
        dataset = fake_workers.dataset(state, "Toys")
        run = fake_workers.queued_run(state, dataset)
    limit(people_app, "Ana", use(people_app, "Ana"))
    with making_for(find_person(people_app, "Ana").key, Visibility.STUDIO):
        training = fake_workers.FakeTraining(state)
        training.train(20)
        training.checkpoint()
        adapter = training.finish()
    assert use(people_app, "Ana") == sum(files(state).values())
    with state.database.write() as session:
        person = session.get_one(User, find_person(people_app, "Ana").key)
        person.disk_counted_at = None  # a minute later
        version = session.exec(select(AdapterVersion)).all()[-1]
    assert adapter.owner_id == person.key
    with working_as(people_app, "Ana"):
        with pytest.raises(QuotaUsedUp):
            fake_workers.queued_run(state, dataset)
        order = ResizeAdapterArgs(rank=4, energy=None, dynamic=False)
        with pytest.raises(QuotaUsedUp), state.database.write() as session:
            jobs.enqueue_io(session, order, subject_id=version.key)
        with state.database.write() as session:  # makes no files here
            jobs.enqueue_io(session, InspectBaseArgs(), subject_id=1)
    with state.database.read() as session:
        assert session.exec(select(Run.id)).all() == [run.id]
        assert [job.kind for job in session.exec(select(IoJob))].count("resize_adapter") == 0


def test_without_accounts_nothing_is_counted(app: FastAPI, client: TestClient) -> None:
    database = state_of(app).database
    was = database.book_rows
    database.book_rows = lambda *_: pytest.fail("There are no people.")
    try:
        with database.write() as session:
            dataset = datasets.create_dataset(session, "Toys")
        assert upload(client, dataset, noise(1), noise(2)).status_code == 200
    finally:
        database.book_rows = was


def add_images(url: str, folder: str, first: int, added: Any) -> None:
    """Add three images of 1,000 bytes to a dataset as Ana; count those that fit."""
    store = LocalBlobStore(Path(folder))
    database = Database(make_engine(url), book_rows=DiskBooking(store), limits=Limits())
    count = 0
    for number in range(first, first + 3):
        sha256 = store.put_bytes(bytes([number]) * 1_000).sha256
        image = Image(
            dataset_id=1, filename=f"{number}.png", sha256=sha256, clean_sha256=sha256,
            thumbnail_sha256=sha256, width=1, height=1, size_bytes=1,
        )  # fmt: skip
        with acting_as("person:Ana", Principal(1, Role.MEMBER, "Ana")):
            try:
                with database.write() as session:
                    session.add(image)
                count += 1
            except QuotaUsedUp:
                pass
    database.dispose()
    added.put(count)


@pytest.mark.process
def test_eight_processes_at_once_never_exceed_a_quota(database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        people.add_user(session, "Ana", Role.ADMIN).disk_bytes = 10_500
        session.add(Dataset(name="Toys", slug="toys", owner_id=1))
    folder = tmp_path / "blobs"
    store = LocalBlobStore(folder)
    url = database.engine.url.render_as_string(hide_password=False)
    context = multiprocessing.get_context(RACERS)
    context.set_forkserver_preload([__name__])
    added = context.Queue()
    racers = [
        context.Process(target=add_images, args=(url, str(folder), 3 * one, added))
        for one in range(8)
    ]
    for racer in racers:
        racer.start()
    assert sum(added.get(timeout=60) for _ in racers) == 10
    for racer in racers:
        racer.join()
    database.book_rows = DiskBooking(store)
    with database.read() as session:
        assert disk_use(session, 1) == 10_000
        assert len(session.exec(select(Image.id)).all()) == 10
        assert session.get_one(User, 1).disk_used == 10_000

"""An image is shown, and named in a request, by whoever sees something that shows it."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import FastAPI
from sqlmodel import col, select

from app.registry.actor import Visibility
from app.registry.blobs import thumbnails
from app.registry.blobs.references import all_references
from app.registry.db import utcnow
from app.registry.images.image_types import HEAD_BYTES, image_type
from app.registry.renders.sources import FoundSource, remember
from app.registry.tables.blind_tests import BlindTest
from app.registry.tables.blobs import Thumbnail
from app.registry.tables.datasets import Dataset, Image
from app.registry.tables.people import Share
from app.registry.tables.renders import Render, SourceUser
from tests import fake_workers
from tests.app.people.conftest import (
    ClientOf,
    find_person,
    state_of,
    train_privately,
    working_as,
)
from tests.images import make_png

UNKNOWN = "0" * 64


def fill(app: FastAPI, client_of: ClientOf) -> set[str]:
    """Private things of Ana that show images in every way; the hashes of these images."""
    state = state_of(app)
    adapter = train_privately(app, "Ana")
    ana = client_of("Ana", "write")
    sent = {"file": ("x.png", make_png(5_000), "image/png")}
    source = ana.post("/api/v1/renders/sources", files=sent).json()["sha256"]
    body = {"prompt": "a fox", "adapters": [{"id": adapter.key}], "twin": True}
    body |= {"source": {"sha256": source}, "strength": 0.5}
    assert ana.post("/api/v1/renders", json=body).status_code == 202
    fake_workers.draw(state)
    unused = ana.post(
        "/api/v1/renders/sources", files={"file": ("x.png", make_png(6_000), "image/png")}
    )
    with state.database.write() as session:
        for render in session.exec(select(Render)):
            render.visibility = Visibility.PRIVATE.value  # the twin uses nothing private
        pinned, listed = session.exec(select(Image).order_by(sa.desc(col(Image.id)))).all()[:2]
        pinned.clean_sha256 = pinned.thumbnail_sha256 = listed.clean_sha256  # a run shows it still
        blob = fake_workers.blob(state, make_png(7_000))
        small = fake_workers.blob(state, make_png(8_000))
        thumbnails.save(session, [Thumbnail(sha256=listed.clean_sha256, small_sha256=small)])
        ana_id = find_person(app, "Ana").key
        test = BlindTest(title="t", question="keep", candidates=[], references=[blob], seed=1)
        test.owner_id, test.visibility = ana_id, Visibility.PRIVATE.value
        session.add(test)
    found = {sha256 for sha256, _ in all_references(state.database, utcnow(), lambda: None)}
    images = set()
    for sha256 in found | {unused.json()["sha256"]}:
        if state.store.exists(sha256):
            with state.store.open(sha256) as file:
                images |= {sha256} if image_type(file.read(HEAD_BYTES)) else set()
    assert len(images) >= 9
    return images


def test_an_image_is_served_only_to_who_sees_a_thing_with_it(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    images = fill(people_app, client_of)
    for name in ("Ben", "Vic"):
        client = client_of(name, "read")
        absent = client.get(f"/media/{UNKNOWN}")
        assert absent.status_code == 404
        for sha256 in images:
            for address in (f"/media/{sha256}", f"/media/{sha256}/small"):
                for headers in ({}, {"if-none-match": f'"{sha256}"'}):
                    answer = client.get(address, headers=headers)
                    assert answer.status_code == 404, (sha256, headers)
                    same = answer.text.replace(address, "") == absent.text.replace(
                        f"/media/{UNKNOWN}", ""
                    )
                    assert same, (answer.text, absent.text)
    for name in ("Ana", "Eva"):
        client = client_of(name, "read")
        for sha256 in images:
            answer = client.get(f"/media/{sha256}")
            assert answer.status_code == 200, sha256
            assert answer.headers["cache-control"] == "private, no-cache"
            again = client.get(f"/media/{sha256}", headers={"if-none-match": f'"{sha256}"'})
            assert again.status_code == 304


def test_an_image_is_seen_as_long_as_its_thing_is(people_app: FastAPI, client_of: ClientOf) -> None:
    train_privately(people_app, "Ana")
    state, ben = state_of(people_app), client_of("Ben", "read")
    with state.database.read() as session:
        sha256 = session.exec(select(Image.clean_sha256)).first()
        dataset_id = session.exec(select(Dataset.id)).one()
    address, headers = f"/media/{sha256}", {"if-none-match": f'"{sha256}"'}
    for visibility, status in (("studio", 304), ("private", 404), ("studio_edit", 304)):
        with state.database.write() as session:
            session.get_one(Dataset, dataset_id).visibility = visibility
        assert ben.get(address, headers=headers).status_code == status
    with state.database.write() as session:
        session.get_one(Dataset, dataset_id).visibility = "private"
        ben_id = find_person(people_app, "Ben").key
        session.add(Share(kind="dataset", thing_id=dataset_id, user_id=ben_id))
    assert ben.get(address).status_code == 200


def test_a_text_with_a_hash_shows_no_image(people_app: FastAPI, client_of: ClientOf) -> None:
    train_privately(people_app, "Ana")
    state = state_of(people_app)
    with state.database.read() as session:
        sha256 = session.exec(select(Image.clean_sha256)).first()
    with working_as(people_app, "Ben"):
        open_to_all = fake_workers.dataset(state, "Open", pictures=4)
    with state.database.write() as session:
        for image in session.exec(select(Image).where(Image.dataset_id == open_to_all.key)):
            if image.clean_sha256 == sha256:  # the same file is uploaded by both
                image.clean_sha256 = image.thumbnail_sha256 = fake_workers.blob(state, make_png(9))
            image.caption = f'x", "clean_sha256": "{sha256}"'
    with working_as(people_app, "Ben"):
        fake_workers.queued_run(state, open_to_all)
    ben = client_of("Ben", "use")
    assert ben.get(f"/media/{sha256}").status_code == 404
    text = "a fox\nSteps: 20, Sampler: DDIM, CFG scale: 7, Seed: 1, Size: 512x512"
    text += f", Denoising strength: 0.5, Source SHA256: {sha256}"
    with state.database.write() as session:
        remember(session, FoundSource(str(sha256), 80, 64, "an image"))
    for client, is_there in ((ben, False), (client_of("Ana", "use"), True)):
        recalled = client.post("/api/v1/renders/recall", data={"infotext": text})
        assert recalled.status_code == 200, recalled.text
        assert (sha256 in recalled.text) is is_there


def test_a_render_starts_only_from_an_image_that_the_person_sees(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    state = state_of(people_app)
    with working_as(people_app, "Ana", Visibility.PRIVATE):
        fake_workers.dataset(state, "Secret")
    ana, ben = client_of("Ana", "write"), client_of("Ben", "write")
    content = make_png(5_000)

    def upload(client: object) -> str:
        sent = {"file": ("x.png", content, "image/png")}
        answer = client.post("/api/v1/renders/sources", files=sent)  # type: ignore[attr-defined]
        sha256: str = answer.json()["sha256"]
        return sha256

    def start(client: object, **source: object) -> tuple[int, str]:
        body = {"prompt": "a fox", "source": source, "strength": 0.5, "seed": 1}
        answer = client.post("/api/v1/renders", json=body)  # type: ignore[attr-defined]
        return answer.status_code, answer.text

    sha256 = upload(ana)
    absent = start(ben, sha256=UNKNOWN)
    assert absent[0] == 422
    assert start(ben, sha256=sha256) == absent
    assert start(ben, image_id=1) == start(ben, image_id=999)
    assert start(ana, sha256=sha256)[0] == 202
    assert start(ana, image_id=1)[0] == 202
    with state.database.read() as session:
        made = session.exec(select(Render).order_by(col(Render.id))).all()
        assert [row.visibility for row in made] == ["studio", "private"]
        secret = made[1].source_sha256
    assert start(ana, sha256=secret)[0] == 202
    with state.database.read() as session:
        last = session.exec(select(Render).order_by(sa.desc(col(Render.id)))).first()
        assert last is not None
        assert last.visibility == "private"
    assert start(ben, sha256=secret) == absent
    assert start(ben, sha256=sha256)[0] == 202  # of a render that the studio sees
    assert upload(ben) == sha256
    with state.database.read() as session:
        assert len(session.exec(select(SourceUser)).all()) == 2

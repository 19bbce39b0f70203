"""The audit log: who did what, without texts, with addresses for some months."""

from __future__ import annotations

from datetime import timedelta

from fastapi import FastAPI
from sqlmodel import select

from app.registry.db import utcnow
from app.registry.people import log
from app.registry.tables.jobs import Event
from tests.app.people.conftest import ClientOf, find_person, state_of


def test_the_log_says_who_did_what_and_no_texts(people_app: FastAPI, client_of: ClientOf) -> None:
    client_of("Ana").post("/datasets", data={"name": "Zorblax"})
    client_of("Ana").post("/share/dataset/1", data={"visibility": "private"})
    eva = client_of("Eva")
    page = eva.get("/people/log?person=ana").text
    assert "visibility: private" in page
    assert "dataset 1" in page
    assert "Zorblax" not in page
    assert "visibility: private" not in eva.get("/people/log?person=ben").text
    assert "visibility: private" not in eva.get("/people/log?until=2020-01-01").text
    assert "Nothing found" in eva.get("/people/log?kind=nothing&since=never").text
    table = eva.get("/people/log.csv?kind=visibility")
    assert table.headers["content-type"].startswith("text/csv")
    rows = table.text.splitlines()
    assert len(rows) == 2
    assert ",Ana,visibility,dataset,1,private," in rows[1]
    assert client_of("Ana").get("/people/log").status_code == 403
    assert client_of("Ana").get("/people/log.csv").status_code == 403


def test_a_share_names_the_person_and_the_right_and_leads_to_the_thing(
    people_app: FastAPI, client_of: ClientOf
) -> None:
    ana, eva = client_of("Ana"), client_of("Eva")
    ana.post("/datasets", data={"name": "Zorblax"})
    for edits in ("see", "edit", "none"):
        ana.post("/share/dataset/1", data={"name": "Ben", "edits": edits})
    heir = find_person(people_app, "Eva").key
    eva.post(f"/people/{find_person(people_app, 'Ben').key}/transfer", data={"heir": heir})
    page = eva.get("/people/log").text
    for words in (
        "<td>shared: Ben, may see</td>",
        "<td>shared: Ben, may edit</td>",
        "<td>unshared: Ben</td>",
        "<td>transferred: Eva</td>",
        '<a href="/datasets/zorblax">dataset 1</a>',
        '<a href="/people">user account',
    ):
        assert words in page
    assert "Zorblax" not in page
    assert ',Ana,shared,dataset,1,"Ben, may edit",' in eva.get("/people/log.csv").text
    ana.post("/datasets/zorblax/delete")
    assert 'href="/datasets/zorblax"' not in eva.get("/people/log").text


def test_addresses_are_forgotten_after_some_months(people_app: FastAPI) -> None:
    database, key = state_of(people_app).database, find_person(people_app, "Ana").key
    with database.write() as session:
        for days in (1, 91):
            at = utcnow() - timedelta(days=days)
            session.add(
                Event(subject="run", subject_id=days, kind="x", at=at, user_id=key, address="::1")
            )
    with database.write() as session:
        log.forget_addresses(session)
    with database.read() as session:
        rows = session.exec(select(Event).where(Event.kind == "x")).all()
    assert {row.subject_id: row.address for row in rows} == {1: "::1", 91: None}

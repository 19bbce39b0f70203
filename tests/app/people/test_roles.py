"""The gate answers 403 to what a role or the scope of a token lacks, as the tables say."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.registry.actor import Role
from app.web.access import gate, needs
from app.web.access.gate import Gate
from app.web.access.needs import Action, make_rules
from app.web.access.rights import words_of
from app.web.error_answers import ErrorAnswers
from tests.app.access.test_rights import read_table
from tests.app.people.conftest import ClientOf

ROUTES = [row for row in read_table("routes.csv") if row["action"] != "open"]
CALLERS = [
    pytest.param(row, id=f"{row['role']}-{row['scope'] or 'browser'}")
    for row in read_table("rights.csv")
]
NAMES = {"viewer": "Vic", "member": "Ana", "admin": "Eva"}


ABSENT = "987654"


def asked(route: dict[str, str]) -> tuple[str, str]:
    """A request to this route, about things that are not there."""
    return route["method"], re.sub(r"{\w+}", ABSENT, route["path"])


@pytest.mark.parametrize("caller", CALLERS)
def test_one_route_of_each_action(client_of: ClientOf, caller: dict[str, str]) -> None:
    """What is permitted finds nothing, or a wrong form."""
    for route in {route["action"]: route for route in ROUTES}.values():
        client = client_of(NAMES[caller["role"]], caller["scope"] or None)  # one may log itself out
        client.headers["accept"] = "*/*"
        answer = client.request(*asked(route))
        assert answer.status_code != 401
        assert (answer.status_code == 403) is (caller[route["action"]] == "no"), route
        if answer.status_code == 403:
            role = None if caller["scope"] else Role(caller["role"])
            assert answer.json()["detail"].endswith(words_of(Action(route["action"]), role))


def test_the_action_of_a_route_is_what_refuses(
    client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    vic, new = client_of("Vic", "admin"), {"name": "New"}
    assert vic.post("/api/v1/datasets", json=new).status_code == 403
    monkeypatch.setattr(
        gate, "rule_of", lambda *asked: replace(needs.rule_of(*asked), action=Action.LOOK)
    )
    assert vic.post("/api/v1/datasets", json=new).status_code == 201


def test_a_page_that_refuses_names_the_person_and_speaks_of_no_token(
    client_of: ClientOf,
) -> None:
    vic = client_of("Vic")
    page = vic.post("/datasets", data={"name": "New"})
    assert page.status_code == 403
    assert '<span dir="auto">Vic</span>' in page.text
    assert "Your role is viewer. This needs the role member, which an administrator" in page.text
    assert "a token" not in page.text
    client_of("Ana").post("/datasets", data={"name": "Prints"})
    refused = client_of("Ben").post("/datasets/prints", data={"name": "Mine"}).text
    assert '<span dir="auto">Ben</span>' in refused


@pytest.mark.wide
@pytest.mark.parametrize("caller", CALLERS)
def test_every_route(people_app: FastAPI, client_of: ClientOf, caller: dict[str, str]) -> None:
    """In front of an app that does nothing: what was permitted would change what follows."""

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(status_code=204)(scope, receive, send)

    guarded = ErrorAnswers(Gate(nothing, rules=make_rules(people_app.routes)))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await guarded({**scope, "app": people_app}, receive, send)

    client = client_of(NAMES[caller["role"]], caller["scope"] or None)
    client._transport.app = app  # type: ignore[attr-defined]
    for route in ROUTES:
        wanted = 204 if caller[route["action"]] == "yes" else 403
        assert client.request(*asked(route)).status_code == wanted, route

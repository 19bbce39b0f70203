"""The action of every route and the actions of every caller, beside tables written by hand."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

from fastapi import FastAPI

from app.registry.actor import Role
from app.web.access.needs import Action, make_rules
from app.web.access.rights import Scope, grants, words_of

HERE = Path(__file__).parent


def read_table(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_route_has_the_action_of_the_table(routed_app: FastAPI) -> None:
    table = {(row["method"], row["path"]): row["action"] for row in read_table("routes.csv")}
    found = {
        (method, rule.path): rule.action.value
        for rule in make_rules(routed_app.routes)
        for method in sorted((rule.methods or {"*"}) - {"HEAD"})
    }
    assert found == table
    assert len(read_table("routes.csv")) == len(table)  # none stands there twice


def test_every_caller_has_the_actions_of_the_table() -> None:
    table = {(row.pop("role"), row.pop("scope")): row for row in read_table("rights.csv")}
    found = {
        (role.value, scope or ""): {
            action.value: "yes" if action in grants(role, scope) else "no" for action in Action
        }
        for role, scope in product(Role, (None, *Scope))
    }
    assert found == table


def test_a_refusal_names_the_least_role_and_scope() -> None:
    assert words_of(Action.DRAW) == "It needs the role member; a token also needs the scope use."
    assert words_of(Action.ADMIN) == "It needs the role admin; a token also needs the scope admin."
    assert words_of(Action.ACCOUNT) == "It needs the role viewer; no token may do it."

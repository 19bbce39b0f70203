"""The permission that each route needs: declared with the routes, enforced by the gate.

A router is declared as a whole, by method; a route that needs something else says so with `@needs`.
An app with a route that nobody declared does not start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import BaseRoute
from starlette.types import Scope

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
NEED = "brushwork_need"  # attribute of an endpoint or of a mounted app
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Need(StrEnum):
    """The permission that a caller must have for a request to be answered."""

    OPEN = "open"  # anybody: probes, the login page and the files that style it
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"  # what concerns the server and its sessions, not the work done on it


EVERYTHING = frozenset(Need)


class UndeclaredRoute(Exception):
    """A route says nothing about what it needs; the message names it."""


@dataclass(frozen=True)
class ByMethod:
    """The usual need of a router: requests that change nothing read, all others write."""

    safe: Need = Need.READ
    other: Need = Need.WRITE

    def of(self, method: str) -> Need:
        """The need of a request with this method."""
        return self.safe if method in SAFE_METHODS else self.other


@dataclass(frozen=True)
class Rule:
    """A route's pattern and methods, and what it needs."""

    path: str
    pattern: re.Pattern[str]
    methods: frozenset[str] | None
    need: Need | ByMethod


def needs(need: Need) -> Callable[[Endpoint], Endpoint]:
    """A decorator: this route needs exactly that, whatever its router needs."""

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, NEED, need)
        return endpoint

    return mark


def declare(router: APIRouter, need: Need | ByMethod) -> APIRouter:
    """The router, with what its routes need unless they say otherwise themselves."""
    for context in iter_route_contexts(router.routes):
        if declared(context) is None:
            setattr(context.endpoint, NEED, need)
    return router


def declared(context: RouteContext) -> Need | ByMethod | None:
    """The declared need of a route or a mounted app; None if it declares none."""
    target = getattr(context, "endpoint", None) or getattr(context.route, "app", None)
    found: Need | ByMethod | None = getattr(target, NEED, None)
    return found


def make_rules(routes: Iterable[BaseRoute]) -> list[Rule]:
    """The rules of an app's routes, in their order. Raises UndeclaredRoute."""
    rules = []
    for context in iter_route_contexts(list(routes)):
        need = declared(context)
        if need is None:
            raise UndeclaredRoute(
                f"{context.path} does not say what it needs: add its router to `app/web/main.py`, "
                "or mark it with `@needs`."
            )
        methods = context.methods
        rules.append(
            Rule(
                str(context.path),
                context.path_regex,
                None if methods is None else frozenset(methods),
                need,
            )
        )
    return rules


def need_of(rules: Iterable[Rule], scope: Scope) -> Need:
    """The need of this request; an address without a route can be asked for by readers only.

    A method that a path does not have is answered with 405 to those who may use the path. HEAD
    comes as GET (`HeadAsGet`).
    """
    path, method = scope["path"], scope["method"]
    partial: Need | None = None
    for rule in rules:
        if not rule.pattern.match(path):
            continue
        need = rule.need.of(method) if isinstance(rule.need, ByMethod) else rule.need
        if rule.methods is None or method in rule.methods:
            return need
        partial = partial or need
    return partial or Need.READ

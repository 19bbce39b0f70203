"""The action of each route: named after its path, enforced by the gate.

An app with a route that names none does not start.
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

from app.web.state import SessionRoute

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
ACTION = "brushwork_action"  # attribute of an endpoint or of a mounted app
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Action(StrEnum):
    """What a request does; `app.web.access.rights` says who may.

    EDIT, OWN and CONTROL also need a right to the thing that the path names.
    """

    OPEN = "open"  # anybody: probes, the login page and the files that style it
    ACCOUNT = "account"  # one's own password, sessions and tokens
    LOOK = "look"  # pages, lists, images and estimates, also those that are asked for by POST
    VOTE = "vote"  # judge pairs of a blind test
    DRAW = "draw"  # images, their comparisons, previews of captions; keep and star what was drawn
    DOWNLOAD = "download"  # files of adapters, datasets and models, archives of images
    TRAIN = "train"  # trainings and tools: whatever makes an adapter of others
    CREATE = "create"  # datasets, imports, prompt sets, presets, recipes
    EDIT = "edit"  # change a thing
    OWN = "own"  # delete and restore a thing, share it
    CONTROL = "control"  # cancel, pause, stop or continue a job
    BULK = "bulk"  # change several things that the body names
    ADMIN = "admin"  # what concerns the server: models, its folders, its Hub account, its sessions


EVERYTHING = frozenset(Action)


class UndeclaredRoute(Exception):
    """A route does not name its action; the message names the route."""


@dataclass(frozen=True)
class Rule:
    """The pattern and methods of a route, and its action."""

    path: str
    pattern: re.Pattern[str]
    methods: frozenset[str] | None
    action: Action


def needs(action: Action) -> Callable[[Endpoint], Endpoint]:
    """A decorator of an endpoint or a mounted app: requests to it need this action."""

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, ACTION, action)
        return endpoint

    return mark


def _adding(method: str) -> Callable[..., Callable[[Endpoint], Endpoint]]:
    def add(
        router: APIRouter, path: str, action: Action, **options: Any
    ) -> Callable[[Endpoint], Endpoint]:
        register = router.api_route(path, methods=[method], **options)
        return lambda endpoint: register(needs(action)(endpoint))

    return add


class Router(APIRouter):
    """A router whose decorators take the action of the route after its path.

    Its endpoints may have a parameter `session`: see `SessionRoute`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=SessionRoute, **options)

    get = _adding("GET")
    post = _adding("POST")
    put = _adding("PUT")
    patch = _adding("PATCH")
    delete = _adding("DELETE")


def declared(context: RouteContext) -> Action | None:
    """The action of a route or a mounted app; None if it names none."""
    target = getattr(context, "endpoint", None) or getattr(context.route, "app", None)
    found: Action | None = getattr(target, ACTION, None)
    return found


def make_rules(routes: Iterable[BaseRoute]) -> list[Rule]:
    """The rules of an app's routes, in their order. Raises UndeclaredRoute."""
    rules = []
    for context in iter_route_contexts(list(routes)):
        action = declared(context)
        if action is None:
            raise UndeclaredRoute(
                f"{context.path} does not say what it needs: name the action after its path."
            )
        methods = None if context.methods is None else frozenset(context.methods)
        rules.append(Rule(str(context.path), context.path_regex, methods, action))
    return rules


def rule_of(rules: Iterable[Rule], scope: Scope) -> Rule | None:
    """The rule of this request; None for an address without a route.

    A method that a path does not have is answered with 405 to those who may use the path. HEAD
    comes as GET (`HeadAsGet`).
    """
    path, method = scope["path"], scope["method"]
    partial: Rule | None = None
    for rule in rules:
        if not rule.pattern.match(path):
            continue
        if rule.methods is None or method in rule.methods:
            return rule
        partial = partial or rule
    return partial

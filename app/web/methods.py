"""Refuses methods that an address does not have, with those that it has.

The router asks routes one by one: it would answer a wrong method from the first route of a path,
without the methods of the others, and take `PATCH /grids/estimate` for a grid's id.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.access.needs import Rule
from app.web.error_answers import answer
from app.web.problems import MethodNotAllowed

PARAMETER = "{}"  # any text in this part of a path

Shape = tuple[str, ...]
"""The parts of a path between slashes."""


class PathMethods:
    """The methods of each path: routes of one path together, fixed parts before parameters."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._methods: dict[Shape, set[str]] = {}
        masks: dict[int, set[tuple[bool, ...]]] = {}  # which parts are parameters, by their number
        for rule in rules:
            if rule.methods is None:  # a folder of files answers for itself
                continue
            shape = tuple(PARAMETER if "{" in part else part for part in _parts(rule.path))
            self._methods.setdefault(shape, set()).update(rule.methods - {"HEAD"})
            masks.setdefault(len(shape), set()).add(tuple(part == PARAMETER for part in shape))
        self._masks = {length: sorted(found) for length, found in masks.items()}

    def of(self, path: str) -> set[str]:
        """The methods of this path but HEAD; empty for one that no route has."""
        parts = _parts(path)
        if "" in parts and path != "/":
            return set()  # the router leads to the address without the slash at its end
        for mask in self._masks.get(len(parts), ()):
            shape = tuple(
                PARAMETER if any_text else part for any_text, part in zip(mask, parts, strict=True)
            )
            if found := self._methods.get(shape):
                return found
        return set()


def _parts(path: str) -> Shape:
    return tuple(path.split("/")[1:])


class AllowedMethods:
    """ASGI middleware that answers methods that an address does not have. HEAD comes as GET."""

    def __init__(self, app: ASGIApp, *, rules: Iterable[Rule]) -> None:
        self.app = app
        self._methods = PathMethods(rules)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        if scope["type"] == "http":
            methods = self._methods.of(scope["path"])
            if methods and scope["method"] not in methods:
                return await answer(Request(scope), MethodNotAllowed(methods))(scope, receive, send)
        return await self.app(scope, receive, send)

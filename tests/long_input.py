"""Requests with texts that nobody would type, for every field that the web app takes."""

from __future__ import annotations

import ast
import functools
import http.client
import inspect
import itertools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import RouteContext, iter_route_contexts

from app.web.forms import sent_form, typed_form
from app.web.openapi import Schema, operations
from tests.documented import resolved

KINDS = (" ", "1", "(", ",", "\n", "<lora:")
REFUSED = {0, 400, 404, 405, 409, 413, 414, 422}
"""0: the server closed the connection when the head of the request became too large."""
FINE = {200, 201, 202, 204, 303}
"""Where the text is only a search, a switch or unused."""
LONG = 900_000
LONG_FOR_FORMS = 90_000  # the longest kind of text that reaches the code behind a form
LONG_FOR_ADDRESSES = 20_000
WATCHDOG_SECONDS = 60.0  # not a promise: what hangs took 17 minutes
EDGE = "long-input"
NAMES = {"slug": "ink", "tool": "merge", "wish": "stop"}
FIELD_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


@dataclass(frozen=True)
class Shot:
    """One request; `about` names the field in it."""

    about: str
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@functools.cache
def long_text(kind: str, length: int) -> str:
    """A text of this many characters, all of one kind but the last."""
    return (kind * length)[: length - 1] + "x"


def api_shots(app: FastAPI, kinds: Callable[[], tuple[str, ...]]) -> Iterator[Shot]:
    """Requests to the REST API: each field of a body, each parameter, with `kinds()` of text."""
    document = app.openapi()
    for method, template, operation in operations(document):
        method = method.upper()
        path = _filled(template)
        names = [one["name"] for one in operation.get("parameters", []) if one.get("in") == "query"]
        yield from _address_shots(method, path, names, kinds)
        for name in re.findall(r"\{(\w+)\}", template):
            for kind in kinds():
                text = quote(long_text(kind, LONG_FOR_ADDRESSES), safe="")
                place = _filled(template.replace(f"{{{name}}}", text))
                yield Shot(f"{method} {template} {name} of {kind!r}", method, place)
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            schema = resolved(document, content["schema"])
            about = f"{method} {path}"
            if media_type == "application/json":
                yield from _json_shots(about, method, path, document, schema, kinds)
            else:
                yield from _form_shots(about, path, list(schema["properties"]), kinds)


def page_shots(app: FastAPI, kinds: Callable[[], tuple[str, ...]]) -> Iterator[Shot]:
    """Requests to the pages: each parameter of an address and each field of a form."""
    for context in iter_route_contexts(app.routes):
        dependant = getattr(context, "dependant", None)
        if dependant is None or context.include_in_schema:
            continue
        path = _filled(context.path or "")
        names = [
            one.alias for one in get_flat_params(dependant) if one.field_info.in_.value == "query"
        ]
        for method in sorted(context.methods or ()):
            yield from _address_shots(method, path, names, kinds)
            if method == "POST":
                yield from _form_shots(f"POST {context.path}", path, form_names(context), kinds)


def form_names(context: RouteContext) -> list[str]:
    """The fields that the form of a route may have: those declared, and those its modules name."""
    dependant: Any = context.dependant
    declared = [one.alias for one in dependant.body_params]
    if not any(below.call in (sent_form, typed_form) for below in dependant.dependencies):
        return declared
    module = sys.modules[context.endpoint.__module__]  # type: ignore[union-attr]
    package = module.__name__.rpartition(".")[0]
    named: set[str] = set()
    for name in (module.__name__, f"{package}.forms", f"{package.rpartition('.')[0]}.forms"):
        if name in sys.modules:
            named |= _named_constants(inspect.getsource(sys.modules[name]))
    return [*declared, *sorted(named)]


def _named_constants(source: str) -> set[str]:
    """The constants of a module that could name a field of a form."""
    constants = (
        node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)
    )
    return {one for one in constants if isinstance(one, str) and FIELD_NAME.fullmatch(one)}


def _filled(template: str) -> str:
    """The address of a row that is there, from the path of a route."""
    return re.sub(r"\{(\w+)\}", lambda found: NAMES.get(found[1], "1"), template)


def _address_shots(
    method: str, path: str, names: list[str], kinds: Callable[[], tuple[str, ...]]
) -> Iterator[Shot]:
    for name in names:
        for kind in kinds():
            for length in (LONG, LONG_FOR_ADDRESSES):
                text = quote(kind) * (length // len(kind))
                yield Shot(f"{method} {path}?{name} of {kind!r}", method, f"{path}?{name}={text}")


def _json_shots(
    about: str,
    method: str,
    path: str,
    document: Schema,
    schema: Schema,
    kinds: Callable[[], tuple[str, ...]],
) -> Iterator[Shot]:
    (example,) = schema["examples"]
    for name in [*schema["properties"], "no_such_field"]:
        for kind in kinds():
            for value in _hostile_values(document, schema["properties"].get(name, {}), kind):
                body = json.dumps({**example, name: value}).encode()
                headers = {"content-type": "application/json"}
                yield Shot(f"{about} {name} of {kind!r}", method, path, body, headers)
    for kind in kinds():
        body = json.dumps({long_text(kind, LONG): 1}).encode()
        headers = {"content-type": "application/json"}
        yield Shot(f"{about}: a name of {kind!r}", method, path, body, headers)


def _hostile_values(document: Schema, schema: Schema, kind: str) -> Iterator[Any]:
    """The text itself, and the text inside of a list or an object that the field takes."""
    text = long_text(kind, LONG)
    yield text
    for choice in schema.get("anyOf", [schema]):
        one = resolved(document, choice)
        if one.get("type") == "array":
            yield [text]
            items = resolved(document, one["items"])
            for name in items.get("properties", {}):
                yield [{name: text}]
        elif one.get("type") == "object":
            yield {name: long_text(kind, 15_000) for name in one.get("properties", {"x": 1})}


def _form_shots(
    about: str, path: str, names: list[str], kinds: Callable[[], tuple[str, ...]]
) -> Iterator[Shot]:
    headers = {"content-type": f"multipart/form-data; boundary={EDGE}", "accept": "text/html"}
    for kind in kinds():
        text = long_text(kind, LONG_FOR_FORMS)
        everything = [(name, text) for name in names]
        yield Shot(f"{about}: all of {kind!r}", "POST", path, _multipart(everything), headers)
        for name in names[:1]:
            body = _multipart([(name, long_text(kind, LONG))])
            yield Shot(f"{about} {name} of {kind!r}", "POST", path, body, headers)


def single_form_shots(app: FastAPI) -> Iterator[Shot]:
    """Each field of each form on its own, so that no field in error hides another one.

    The six kinds of text take turns in the length that reaches the code behind every form. A longer
    text is refused before that code whatever the field, so one kind has to do; all six where a
    form is shown again with it.
    """
    turns = itertools.cycle(KINDS)
    headers = {"content-type": f"multipart/form-data; boundary={EDGE}", "accept": "text/html"}
    for context in iter_route_contexts(app.routes):
        dependant = getattr(context, "dependant", None)
        if dependant is None or context.include_in_schema or "POST" not in (context.methods or ()):
            continue
        path = _filled(context.path or "")
        shown_again = any(below.call is typed_form for below in dependant.dependencies)
        for name in form_names(context):
            kind = next(turns)
            lengths = [(one, LONG) for one in (KINDS if shown_again else [kind])]
            for one, length in [*lengths, (kind, LONG_FOR_FORMS)]:
                body = _multipart([(name, long_text(one, length))])
                yield Shot(f"POST {context.path} {name} of {one!r}", "POST", path, body, headers)


def _multipart(fields: list[tuple[str, str]]) -> bytes:
    parts = (
        f'--{EDGE}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in fields
    )
    return ("".join(parts) + f"--{EDGE}--\r\n").encode()


def fire(url: str, shots: Iterator[Shot]) -> list[tuple[str, int]]:
    """Send all of them to a server, whose `/healthz` answers meanwhile: (about, status) of each.

    The status is 0 where the server closed the connection before it had read the whole request.
    """
    found = []
    with HealthWatch(url):
        connection = _connect(url)
        for shot in shots:
            try:
                connection.request(shot.method, shot.path, shot.body, shot.headers)
                answer = connection.getresponse()
                answer.read()
                found.append((shot.about, answer.status))
            except (ConnectionError, http.client.BadStatusLine, TimeoutError) as error:
                if isinstance(error, TimeoutError):
                    raise AssertionError(f"no answer to {shot.about}") from error
                found.append((shot.about, 0))
            if connection.sock is None or found[-1][1] in (0, 400, 413, 414):
                connection.close()
                connection = _connect(url)
        connection.close()
    return found


def _connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=WATCHDOG_SECONDS)


class HealthWatch:
    """Asks `/healthz` again and again; at the end, each answer must have been 200."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._answers: list[int] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def _ask(self) -> None:
        try:
            while not self._stop.wait(0.2):
                connection = _connect(self._url)
                connection.request("GET", "/healthz")
                self._answers.append(connection.getresponse().status)
                connection.close()
        except (TimeoutError, OSError, http.client.HTTPException) as error:
            self._error = error

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._error is None, f"/healthz did not answer: {self._error!r}"
        assert set(self._answers) <= {200}

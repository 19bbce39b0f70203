"""Rules that every operation of the REST API keeps, read from its OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient

from app.registry.errors import AppError
from app.web.deletion.api import API, FOREVER
from app.web.openapi import Schema, operations
from app.web.problems import status_error

NO_LISTS = {
    "getRunMetrics": "a time series: points after a step, polled while a run trains",
}
ANSWER_MORE = {
    "listCaptionProviders": "a form: the providers with the usual prompt and words to leave out",
}
PARTS = {
    "deleteAlias": "a name that is moved and set again; nothing of the version goes",
    "deleteCaption": "a caption of several; the history restores it",
    "discardCaptionProposals": "proposals of a model, which an order writes again",
    "endSession": "a login",
    "releaseCheckpoint": "undoes PUT",
    "removeFromFolder": "undoes PUT; the adapter has its files still",
}


@pytest.fixture
def document(app: FastAPI) -> Schema:
    return app.openapi()


def api_operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    """(method, path, operation) of each operation under `/api/v1`."""
    for method, path, operation in operations(document):
        if path.startswith("/api/"):
            yield method, path, operation


def answer_schema(operation: Schema) -> dict[str, Any]:
    """The schema of a JSON answer with status 200; empty without one."""
    content = operation["responses"].get("200", {}).get("content", {})
    schema: dict[str, Any] = content.get("application/json", {}).get("schema", {})
    return schema


def lists(document: Schema) -> list[Schema]:
    """The operations that answer lists."""
    return [
        operation
        for method, _, operation in api_operations(document)
        if method == "get" and answer_schema(operation).get("type") == "array"
    ]


def parameters(operation: Schema) -> set[str]:
    return {one["name"] for one in operation.get("parameters", []) if one.get("in") == "query"}


def test_every_list_takes_limit_and_cursor_and_links_its_next_part(document: Schema) -> None:
    found = lists(document)
    assert len(found) > 20
    for operation in found:
        assert {"limit", "cursor"} <= parameters(operation), operation["operationId"]
        assert "link" in operation["responses"]["200"]["headers"]


def test_there_is_no_other_kind_of_page(document: Schema) -> None:
    others = {"page", "before", "after", "offset", "steps", "per_page"}
    for _, _, operation in api_operations(document):
        if operation["operationId"] not in NO_LISTS:
            assert not others & parameters(operation), operation["operationId"]


def test_what_is_called_a_list_answers_a_list(document: Schema) -> None:
    named = {
        operation["operationId"]
        for _, _, operation in api_operations(document)
        if operation["operationId"].startswith("list")
    }
    assert named - {operation["operationId"] for operation in lists(document)} == set(ANSWER_MORE)


def test_what_delete_takes_can_be_restored_or_stands_under_the_final_address(
    document: Schema,
) -> None:
    finals, restorable = set(), set()
    for method, path, operation in api_operations(document):
        if method != "delete" or operation["operationId"] in PARTS:
            continue
        is_final = path.startswith(API + FOREVER)
        answer = answer_schema(operation).get("$ref", "").rpartition("/")[2]
        assert answer == ("FreedSpace" if is_final else "RestorableOut"), path
        (finals if is_final else restorable).add(path.removeprefix(API).removeprefix(FOREVER))
        if is_final:
            assert "get" in document["paths"][path]  # what it would free
    assert restorable < finals
    for place in restorable:
        assert "post" in document["paths"][f"{API}{place}/restore"]


def test_what_was_made_says_where_it_is(document: Schema) -> None:
    for _, _, operation in api_operations(document):
        for status in {"201", "202"} & operation["responses"].keys():
            assert "location" in operation["responses"][status]["headers"]


def test_every_answer_that_made_something_knows_its_address(app: FastAPI) -> None:
    """`AnswerHeaders` reads it from the model; it leads to an operation of this API or a file."""
    paths = app.openapi()["paths"]
    for context in iter_route_contexts(app.routes):
        route = context.route
        if isinstance(route, APIRoute) and route.status_code in (201, 202):
            address = route.response_model.address  # type: ignore[attr-defined]
            shape = re.sub(r"{\w+}", "{}", address)
            known = {re.sub(r"{\w+}", "{}", path) for path, of in paths.items() if "get" in of}
            assert shape in known or address == "/media/{sha256}", route.name


def test_cancel_is_accepted_and_refused_alike(document: Schema) -> None:
    found = [
        operation
        for method, path, operation in api_operations(document)
        if method == "post" and path.endswith("/cancel")
    ]
    assert len(found) > 8
    for operation in found:
        assert {"202", "409"} <= operation["responses"].keys()
        assert "200" not in operation["responses"]


def test_what_is_done_again_is_accepted(document: Schema) -> None:
    for _, path, operation in api_operations(document):
        if path.rpartition("/")[2] in ("again", "continue", "allow-loss", "check"):
            assert "202" in operation["responses"], path


def test_every_type_of_problem_has_one_title(app: FastAPI) -> None:
    def kinds(base: type[AppError]) -> Iterator[type[AppError]]:
        for below in base.__subclasses__():
            yield below
            yield from kinds(below)

    titles: dict[str, set[str]] = {}
    for kind in [*kinds(AppError), *map(status_error, (400, 403, 404, 405, 409, 415, 500))]:
        titles.setdefault(kind.code, set()).add(kind.title)
    assert {code: found for code, found in titles.items() if len(found) > 1} == {}


CLOSED = {"action", "kind", "outcome", "phase", "sampler", "state", "status"}


def parts(schema: Schema) -> Iterator[Schema]:
    """The schemas that a value can have: the branches of a union, the items of a list."""
    branches = schema.get("anyOf") or schema.get("oneOf")
    for branch in branches or [schema]:
        yield branch
        if "items" in branch:
            yield from parts(branch["items"])


def fields(schemas: Schema, names: Iterable[str]) -> Iterator[tuple[str, Schema]]:
    """(path, schema) of each field of these schemas and of those that they refer to."""
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for field, schema in schemas[name].get("properties", {}).items():
            if schema.get("readOnly"):
                continue
            for part in parts(schema):
                if "$ref" in part:
                    waiting.append(part["$ref"].rpartition("/")[2])
                yield f"{name}.{field}", part


def bodies(document: Schema) -> Iterator[str]:
    """The names of the schemas of all request bodies."""
    for _, _, operation in api_operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            yield content["schema"]["$ref"].rpartition("/")[2]


def is_closed(schemas: Schema, part: Schema) -> bool:
    """True if the values of a schema are listed in it, or it is null, or a list of others."""
    if "$ref" in part:
        part = schemas[part["$ref"].rpartition("/")[2]]
    return "enum" in part or "const" in part or part.get("type") in ("null", "array")


def test_words_of_fixed_sets_are_enums(document: Schema) -> None:
    schemas = document["components"]["schemas"]
    named = [(field, part) for field, part in fields(schemas, schemas) if field != "Problem.status"]
    named += [
        (one["name"], part)
        for _, _, operation in api_operations(document)
        for one in operation.get("parameters", [])
        for part in parts(one.get("schema", {}))
        if "name" in one
    ]
    open_sets = [
        field
        for field, part in named
        if field.rpartition(".")[2] in CLOSED and not is_closed(schemas, part)
    ]
    assert open_sets == []


def test_booleans_are_named_without_a_verb(document: Schema) -> None:
    schemas = document["components"]["schemas"].items()
    named = {f"{schema}.{name}" for schema, body in schemas for name in body.get("properties", ())}
    assert sorted(name for name in named if ".is_" in name) == []


def test_numbers_of_a_request_have_bounds(document: Schema) -> None:
    """The lengths of its texts and lists are looked at by tests/app/web/test_long_input.py."""
    schemas = document["components"]["schemas"]
    bare = []
    for field, part in fields(schemas, bodies(document)):
        ends = {name.removeprefix("exclusive").lower() for name in part}
        if part.get("type") in ("integer", "number") and not ends >= {"minimum", "maximum"}:
            bare.append(field)
    assert bare == []


def test_a_change_names_a_field_and_says_where_null_means_something(
    document: Schema, client: TestClient
) -> None:
    schemas = document["components"]["schemas"]
    for method, path, operation in api_operations(document):
        if method != "patch":
            continue
        (content,) = operation["requestBody"]["content"].values()
        schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
        assert schema.get("minProperties") == 1 or schema["required"], path
        for name, field in schema["properties"].items():
            nullable = {"type": "null"} in field.get("anyOf", [])
            assert not nullable or "null" in field["description"], (path, name)
        assert client.patch(re.sub(r"{\w+}", "1", path), json={}).status_code == 422, path


def test_every_operation_and_body_is_described(document: Schema) -> None:
    assert [server["url"] for server in document["servers"]] == ["/"]
    for _, _, operation in api_operations(document):
        assert len(operation["description"]) > 10, operation["operationId"]
        body = operation.get("requestBody")
        assert body is None or len(body["description"]) > 10, operation["operationId"]

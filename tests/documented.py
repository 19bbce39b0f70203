"""Compares answers of the REST API with its OpenAPI description."""

from __future__ import annotations

import functools
import re

from fastapi import FastAPI
from httpx2 import Response

from app.web.openapi import Schema, operations
from app.web.problems import MEDIA_TYPE, Problem


def check_answer(app: FastAPI, response: Response) -> None:
    """Fail if an answer of the REST API has a status, type or problem that is not documented."""
    path = response.request.url.path
    if not path.startswith("/api/v1/") or response.request.method == "HEAD":
        return
    if response.headers.get("content-type") == MEDIA_TYPE:
        response.read()
        assert Problem.model_validate(response.json()).status == response.status_code
    operation = find_operation(app.openapi(), response.request.method, path)
    if operation is None:
        return
    status = str(response.status_code)
    name = operation["operationId"]
    assert status in operation["responses"], f"{name}: {status} is not documented"
    assert status not in ("201", "202") or response.headers["location"], name
    assert status != "204" or "content-type" not in response.headers, name
    documented = resolved(app.openapi(), operation["responses"][status]).get("content", {})
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if response.status_code not in (204, 304):  # these have no content
        assert media_type in documented, f"{name}: {status} with {media_type} is not documented"


def resolved(document: Schema, response: Schema) -> Schema:
    """The response itself, where the document only refers to it."""
    for part in response.get("$ref", "#").split("/")[1:]:
        document = document[part]
        response = document
    return response


def find_operation(document: Schema, method: str, path: str) -> Schema | None:
    """The operation in an OpenAPI document that answers such a request."""
    found = [
        (template.count("{"), known, operation)
        for known, template, operation in operations(document)
        if _pattern(template).fullmatch(path)
    ]
    # an address without parameters comes first, as in OpenAPI, with whatever methods it has
    fewest = min((count for count, *_ in found), default=0)
    of_path = {known: operation for count, known, operation in found if count == fewest}
    return of_path.get(method.lower())


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", template))

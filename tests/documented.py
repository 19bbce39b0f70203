"""Compares answers of the REST API with its OpenAPI description."""

from __future__ import annotations

import functools
import re

from fastapi import FastAPI
from httpx2 import Response

from app.web.openapi import Schema, operations
from app.web.problems import MEDIA_TYPE, Problem

OF_EVERY_REQUEST = {401, 403, 405, 413, 500, 507}
"""Statuses that the description of the whole API names, not each operation."""


def check_answer(app: FastAPI, response: Response) -> None:
    """Fail if an answer of the REST API has a status, type or problem that is not documented."""
    path = response.request.url.path
    if not path.startswith("/api/v1/"):
        return
    if response.headers.get("content-type") == MEDIA_TYPE:
        response.read()
        assert Problem.model_validate(response.json()).status == response.status_code
    operation = find_operation(app.openapi(), response.request.method, path)
    if operation is None or response.status_code in OF_EVERY_REQUEST:
        return
    status = str(response.status_code)
    name = operation["operationId"]
    assert status in operation["responses"], f"{name}: {status} is not documented"
    documented = operation["responses"][status].get("content", {})
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if response.status_code not in (204, 304):  # these have no content
        assert media_type in documented, f"{name}: {status} with {media_type} is not documented"


def find_operation(document: Schema, method: str, path: str) -> Schema | None:
    """The operation in an OpenAPI document that answers such a request."""
    for known, template, operation in operations(document):
        if known == method.lower() and _pattern(template).fullmatch(path):
            return operation
    return None


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", template))

"""What bodies of requests refuse, whichever route takes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from worker.core.training.config import TrainConfig


def booleans(schema: dict[str, Any], of: dict[str, Any]) -> Iterator[str]:
    """The names of the properties of a schema that are true or false."""
    if reference := of.get("$ref"):
        of = schema["components"]["schemas"][reference.rpartition("/")[2]]
    for part in of.get("anyOf", []):
        yield from booleans(schema, part)
    for name, field in of.get("properties", {}).items():
        if "boolean" in {one.get("type") for one in (field, *field.get("anyOf", []))}:
            yield name


def test_only_true_and_false_are_booleans(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    found = 0
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            for name in booleans(schema, content.get("application/json", {}).get("schema", {})):
                found += 1
                address = re.sub(r"{\w+}", "1", path)
                answer = client.request(method, address, json={name: 0})
                error = {"field": name, "detail": "Enter true or false."}
                assert error in answer.json()["errors"], (method, path, name)
    assert found > 15
    for name, field in TrainConfig.model_fields.items():
        if field.annotation is bool:
            with pytest.raises(ValidationError, match="valid boolean"):
                TrainConfig.model_validate({name: 1})

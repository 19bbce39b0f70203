"""Requests generated from the OpenAPI document, and what their answers must be like."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from urllib.parse import quote

import hypothesis
import schemathesis
from fastapi import FastAPI
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.schemas import APIOperation, BaseSchema

from app.web.openapi import Schema, operations

SEED = 7
ROWS = 3
"""Ids are drawn from the first few, so that most requests meet a row."""

load_all_checks()
NOTHING_TO_DRAW: dict[GenerationMode, tuple[type[Exception], ...]] = {
    GenerationMode.POSITIVE: (),
    GenerationMode.NEGATIVE: (Unsatisfiable,),  # an operation without input has no wrong one
}
ANSWER_CHECKS = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


def document_of(app: FastAPI) -> Schema:
    """The document without the answer `default`, which would allow everything."""
    document = copy.deepcopy(app.openapi())
    for _, _, operation in operations(document):
        del operation["responses"]["default"]
        for parameter in operation.get("parameters", []):
            if parameter.get("in") == "path" and parameter["schema"].get("type") == "integer":
                parameter["schema"]["maximum"] = ROWS
    return document


def generated_operations(app: FastAPI, document: Schema | None = None) -> Iterator[APIOperation]:
    """Every operation of the document, by default that of the app, to draw requests from."""
    schema: BaseSchema = schemathesis.openapi.from_dict(document or document_of(app))
    schema.app = app
    for found in schema.get_all_operations():
        yield found.ok()


def quote_path(case: schemathesis.Case) -> None:
    """Quote arrays and objects of the path too.

    Schemathesis 4.32 quotes only texts: a `?` in a list makes it the request of another address.
    """
    for name, value in case.path_parameters.items():
        if not isinstance(value, str):
            case.path_parameters[name] = quote(str(value), safe="")


def send_requests(
    operation: APIOperation, *, examples: int, modes: Iterable[GenerationMode] = GenerationMode
) -> None:
    """Send valid and invalid requests; fail on an answer that is not documented, and on a 500."""
    for mode in modes:

        @hypothesis.seed(SEED)
        @hypothesis.settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            quote_path(case)
            answer = case.call(base_url="http://localhost")
            assert answer.status_code != 500, case.as_curl_command()
            case.validate_response(answer, checks=ANSWER_CHECKS)

        with contextlib.suppress(*NOTHING_TO_DRAW[mode]):
            send()

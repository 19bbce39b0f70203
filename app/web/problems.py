"""Errors as RFC 9457 `application/problem+json`, with an actionable `detail`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.registry.errors import AppError, Conflict, Forbidden, InvalidInput, NotFound
from app.registry.validation import named_reasons, reason
from worker.core.documented import DocumentedModel

MEDIA_TYPE = "application/problem+json"
JSON = "application/json"
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
RETRY_SECONDS = "2"
MAX_FIELDS = 50  # invalid fields that one answer names
MAX_FIELD_NAME = 200  # characters of a field's name: a client may have made it up
NOT_FIELDS = (
    "body",
    "query",
    "str",
    "int",
    "constrained-str",
    "constrained-int",
    "str-enum[Preset]",
)
"""Parts of the place of an error that name no field but where it was, or a type of a union."""
UNEXPECTED = (
    "Something went wrong on the server; nothing was changed. The server log has the details."
)


class FieldProblem(BaseModel):
    """An invalid field with the reason."""

    field: str = Field(description="Name of the field; nested ones are joined with dots.")
    detail: str = Field(description="Reason, as a sentence.")


class Problem(DocumentedModel):
    """An error as `application/problem+json` (RFC 9457)."""

    type: str = Field(examples=["urn:brushwork:problem:not_found"])
    """Identifies the kind of error; stable."""
    title: str = Field(description="Kind of error, in words.", examples=["Not found"])
    status: int = Field(description="HTTP status.", examples=[404])
    detail: str = Field(examples=["There is no such dataset; it may have been deleted."])
    """What is wrong and what to do, as sentences for a person."""
    errors: list[FieldProblem] = Field(default_factory=list)
    """One entry per invalid field; only if there are any."""


def problems(reasons: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of a route: the statuses of its errors, each with the reason for it."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": reason, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status, reason in reasons.items()
    }


CANCEL: dict[str, Any] = {"status_code": 202, "responses": problems({409: "It has ended."})}
"""The arguments of every route that cancels a job: it answers the job."""


OF_BLIND_TEST = problems({409: "It is of a blind test that has not ended."})


class ProblemResponse(JSONResponse):
    """A JSON response of type `application/problem+json`."""

    media_type = MEDIA_TYPE


def problem_response(error: AppError) -> ProblemResponse:
    """The response for an AppError."""
    body: dict[str, Any] = {
        "type": f"urn:brushwork:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
    if error.fields:
        body["errors"] = [
            {"field": field, "detail": reason} for field, reason in error.fields.items()
        ]
    body = error.about | body
    return ProblemResponse(body, status_code=error.status, headers=error_headers(error))


class MethodNotAllowed(
    AppError,
    status=405,
    title=HTTPStatus.METHOD_NOT_ALLOWED.phrase.capitalize(),
    code="method_not_allowed",
):
    """The address does not have the method of the request; `allowed` lists those that it has."""

    def __init__(self, methods: Iterable[str]) -> None:
        super().__init__("This address does not support that method.")
        names = {*methods}
        self.allowed = ", ".join(sorted(names | {"HEAD"} if "GET" in names else names))


def error_headers(error: AppError) -> dict[str, str]:
    """The headers of an error's answer: when to try again, where to read more, other methods."""
    headers = {"allow": error.allowed} if isinstance(error, MethodNotAllowed) else {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    elif error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = RETRY_SECONDS
    if error.location:
        headers["location"] = error.location
    return headers


def status_error(status: int, detail: str | None = None) -> AppError:
    """An AppError for an HTTP status."""
    phrase = HTTPStatus(status).phrase
    sentences = {
        404: "There is nothing at this address.",
        500: UNEXPECTED,
    }
    kind = {403: Forbidden, 404: NotFound, 409: Conflict}.get(status, AppError)
    error = kind(sentences.get(status) or detail or phrase)
    if kind is AppError:
        error.status, error.title = status, phrase.capitalize()
        error.code = phrase.lower().replace(" ", "_")
    return error


def unreadable_body(request: Request) -> AppError | None:
    """The error for a body of another content type than the route reads; None if it is the same."""
    field = getattr(request.scope.get("route"), "body_field", None)
    has_body = request.headers.get("content-length", "0") != "0"
    if field is None or not (has_body or "transfer-encoding" in request.headers):
        return None
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    expected = field.field_info.media_type
    is_json = sent == JSON or (sent.startswith("application/") and sent.endswith("+json"))
    if is_json if expected == JSON else sent in FORMS:
        return None
    return status_error(415, f"Send the body as {expected}, and say so in Content-Type.")


def validation_error(error: RequestValidationError) -> AppError:
    """An AppError with a sentence for each invalid part of a request."""
    fields: dict[str, str] = {}
    for problem in error.errors():
        if problem["loc"][:1] == ("path",):
            return status_error(404)  # an invalid id in a URL matches nothing
        if problem["type"] == "json_invalid":
            return status_error(400, f"The body is not valid JSON: {problem['ctx']['error']}.")
        place = [str(part) for part in problem["loc"] if part not in NOT_FIELDS]
        fields.setdefault(".".join(place)[:MAX_FIELD_NAME] or "body", reason(problem))
        if len(fields) >= MAX_FIELDS:
            break
    return InvalidInput(named_reasons(fields), fields=fields)

"""Errors as RFC 9457 `application/problem+json`, with a `detail` a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from app.errors import AppError, InvalidInput

MEDIA_TYPE = "application/problem+json"
UNEXPECTED = (
    "Something went wrong on our side; nothing you sent was changed. The log names the reason."
)


class ProblemResponse(JSONResponse):
    """A JSON answer of the type `application/problem+json`."""

    media_type = MEDIA_TYPE


def problem_response(error: AppError) -> ProblemResponse:
    """The answer for an error that is meant for people."""
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
    headers = {"retry-after": "2"} if error.status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    if error.location:
        headers["location"] = error.location
    body = error.about | body
    return ProblemResponse(body, status_code=error.status, headers=headers)


def status_error(status: int, detail: str | None = None) -> AppError:
    """An error with the plain HTTP meaning of `status`."""
    phrase = HTTPStatus(status).phrase
    sentences = {
        404: "There is nothing at this address.",
        405: "This address does not take that method.",
        500: UNEXPECTED,
    }
    error = AppError(sentences.get(status) or detail or phrase)
    error.status, error.title, error.code = status, phrase, phrase.lower().replace(" ", "_")
    return error


def validation_error(error: RequestValidationError) -> AppError:
    """A sentence for each part of a request that has the wrong form."""
    fields: dict[str, str] = {}
    for problem in error.errors():
        if problem["loc"][:1] == ("path",):
            return status_error(404)  # an address with what is no id leads nowhere
        if problem["type"] == "json_invalid":
            fields["body"] = "This is not valid JSON."
            continue
        place = [str(part) for part in problem["loc"] if part not in ("body", "query")]
        fields.setdefault(".".join(place) or "body", reason(problem))
    return InvalidInput(named_reasons(fields), fields=fields)


def named_reasons(fields: Mapping[str, str]) -> str:
    """All that is wrong as one text, each sentence behind the name of its field."""
    return " ".join(f"{field}: {reason}" for field, reason in fields.items())[:2000]


def reason(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value that pydantic refused, as a sentence for people."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return "There is no setting of this name."
    if kind in ("int_parsing", "int_from_float", "int_type"):
        return "This has to be a whole number."
    if kind in ("float_parsing", "float_type", "finite_number"):
        return "This has to be a number."
    if kind in ("bool_parsing", "bool_type"):
        return "This has to be true or false."
    if kind == "string_type":
        return "This has to be a text."
    if kind == "value_error" and "UploadFile" in str(problem["msg"]):
        return "This has to be a file, not a text."
    if kind == "missing":
        return "This is missing."
    if kind == "string_too_long" and isinstance(problem["input"], str):
        return (
            f"This has {len(problem['input']):,} characters; at most {context['max_length']:,} fit."
        )
    if kind == "string_too_short":
        return "This cannot be empty."
    if kind == "too_long":
        return f"These are {context['actual_length']}; at most {context['max_length']} are drawn."
    if kind == "greater_than_equal":
        return f"This has to be at least {context['ge']:,}."
    if kind == "greater_than":
        return f"This has to be more than {context['gt']:,}."
    if kind in ("less_than_equal", "less_than"):
        return f"This can be {context.get('le', context.get('lt')):,} at most."
    message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].upper() + message[1:].rstrip(".") + "."

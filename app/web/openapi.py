"""The OpenAPI description of the REST API, as `/openapi.json` and the page `/docs` show it.

Summaries and descriptions are the docstrings of the routes: the first paragraph and the rest.
Operation ids are the names of their functions, which therefore stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from app.web import idempotency
from app.web.problems import MEDIA_TYPE, Problem, problems
from worker.core.inference.config import RenderConfig
from worker.core.training.config import TrainConfig

DESCRIPTION = """\
Everything that the pages do. Work that takes time (runs, renders, tools, imports) is answered at
once with a job: poll its address until `status` is `succeeded`, `failed` or `canceled`.

Errors are `application/problem+json` (RFC 9457): `detail` says what to do, `errors` names invalid
fields. The password, if the server has one, is sent by HTTP Basic with any user name, or as a
Bearer token. Every POST takes an `Idempotency-Key`, with which it can be sent again without doing
anything twice. A method that an address does not have is a 405; HEAD is answered wherever GET is.
"""
TAGS = {
    "datasets": "Images of one style with their captions.",
    "base-models": "Stable Diffusion models to train on and to generate with.",
    "caption-models": "Models that caption images on this machine.",
    "runs": "Trainings: queue, watch, stop, continue.",
    "evaluations": "Checkpoints of a run, or weights of a version, compared.",
    "blind-tests": "Candidates judged in pairs of images without names.",
    "sweeps": "Configurations of a training, compared beyond what another seed changes.",
    "prompt-sets": "Subjects that evaluations, samples and grids draw, under a name.",
    "adapters": "Trained and imported LoRAs.",
    "versions": "Versions of an adapter, their aliases and differences.",
    "files": "Downloads of an adapter, and the checks each has passed.",
    "imports": "LoRA files made elsewhere.",
    "hub": "Adapters from the Hugging Face Hub, and publishing there.",
    "tools": "Merge, resize, scale, fuse and extract. Each returns a job: poll `/tool-jobs/{id}`.",
    "renders": "Generated images.",
    "jobs": "Runs, renders, grids and all other jobs in one list.",
    "grids": "Images of one request with one to three settings varied.",
    "recipes": "Stacks of adapters with their prompt and settings, saved under a name.",
    "sessions": "Browsers that are logged in.",
    "people": "With accounts: who uses this server, and who sees a thing.",
    "deletion": "Deleting, so that it can be restored, and for good, with what that frees.",
    "server": "Liveness, readiness and metrics, outside `/api/v1`.",
}
PATH_PARAMETERS = {
    "adapter_id": "Id or slug of the adapter.",
    "alias": "Name of the alias: lower-case letters, digits, `-`, `_` and `.`.",
    "base_id": "Id or slug of the base model.",
    "dataset_id": "Id or slug of the dataset.",
    "edit_id": "Id of the step of a bulk edit.",
    "folder": "Name of the folder in the settings.",
    "evaluation_id": "Id of the evaluation.",
    "grid_id": "Id of the grid.",
    "image_id": "Id of the image.",
    "job": "Id of the job among all kinds, such as `run-12`.",
    "job_id": "Id of the job.",
    "kind": "Kind of the caption: `long`, `short` or `tags`.",
    "model_id": "Id or slug of the model.",
    "person_id": "Id of the person.",
    "number": "Number of the pair of this judge.",
    "place": "Number of the cell, from 0.",
    "preset_id": "Id of your own preset.",
    "recipe_id": "Id or slug of the recipe.",
    "render_id": "Id of the render.",
    "run_id": "Id of the run.",
    "search_id": "Id of the search by an image.",
    "session_id": "Id of the session.",
    "set_id": "Id or slug of the prompt set.",
    "shown": "Number of the image, from 1.",
    "side": "`left` or `right`.",
    "step": "Training step of the checkpoint.",
    "sweep_id": "Id of the sweep.",
    "test_id": "Id of the blind test.",
    "thing": "Kind of the thing.",
    "thing_id": "Id of the thing.",
    "version": "Number or alias of the version.",
    "version_id": "Id of the version of a dataset.",
}
SUCCESS = {
    "200": "The result.",
    "201": "Created.",
    "202": "Accepted; poll it until it has ended.",
    "204": "Done; the answer is empty.",
}
COMMON_PROBLEMS = {
    400: "The request is malformed, or names a host that this server does not answer to.",
    401: "The password is missing or wrong.",
    403: "The request comes from a page of another site.",
    404: "There is nothing with this id.",
    405: "This address does not support that method; `Allow` has those that it does.",
    409: "A request with this `Idempotency-Key` is still running, or something else has changed.",
    413: "The body or a file in it is too large.",
    414: "The address is too long.",
    415: "The body has another content type than this address reads.",
    422: "The request is invalid; `errors` names the fields.",
    429: "Too many wrong passwords, with the seconds to wait in `Retry-After`; or, with accounts, "
    "the quota of waiting jobs is used up.",
    500: "Unexpected error; the log of the server has the details.",
    503: "Database or storage is busy or away, nothing was changed; `Retry-After` has the seconds.",
    507: "The disk is full, or, with accounts, the quota of disk is used up; nothing was stored.",
}
"""Errors that do not depend on the route, described once for all of them."""

HEADERS = {
    "link": 'Address of the next part of the list, as `rel="next"` (RFC 8288), if there is one.',
    "x-total-count": "Number of all, if known; with `X-Total-Count-More` at least as many.",
    "x-total-count-more": "`true` if counting all hits would take long.",
    "etag": "Hash of the file; send it as `If-None-Match`.",
    "content-disposition": "Name of the file.",
    "location": "Address of what was made, or of what to poll.",
    "retry-after": "Seconds after which to try again.",
}
BOUNDS = ("minimum", "maximum", "multipleOf", "minLength", "maxLength")

Schema = dict[str, Any]


def header_docs(*names: str) -> dict[int | str, Schema]:
    """The headers of a successful answer, for the `responses` of a route."""
    return {200: {"headers": _headers(names)}}


def _headers(names: tuple[str, ...]) -> Schema:
    return {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}


def file_docs(media_type: str, *headers: str) -> dict[int | str, Schema]:
    """A file of this type as the successful answer, for the `responses` of a route."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {200: {"content": content, "headers": _headers(("content-disposition", *headers))}}


FILE_ANSWERS: dict[int | str, Schema] = {
    **file_docs("application/octet-stream", "etag"),
    304: {"description": "The file has the hash of `If-None-Match`."},
}
"""The answers of a download, for the `responses` of a route."""


class DescribedApp(FastAPI):
    """FastAPI with the description of this module."""

    def openapi(self) -> Schema:
        """The OpenAPI document, made at the first call."""
        if self.openapi_schema is None:
            self.openapi_schema = make_openapi(self)
        return self.openapi_schema


def operation_id(route: APIRoute) -> str:
    """The name of the route's function in camel case, unique among those in the document."""
    verb, *object_words = route.name.split("_")
    return verb + "".join(word.capitalize() for word in object_words)


def make_openapi(app: FastAPI) -> Schema:
    """The OpenAPI document of the app's routes."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=DESCRIPTION,
        routes=app.routes,
        servers=[{"url": "/", "description": "The server that answers this document."}],
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    schemas = document["components"]["schemas"]
    schemas |= _with_definitions(Problem.model_json_schema(ref_template=REF))
    _describe_settings(schemas)
    for schema in schemas.values():
        _drop_made_titles(schema)
        _mark_files(schema)
    for method, _, operation in operations(document):
        _describe_operation(method, operation)
        if body := operation.get("requestBody"):
            body["description"] = _describe_body(schemas, body)
    document["components"] |= {
        "parameters": {"IdempotencyKey": idempotency.PARAMETER},
        "responses": {
            "Problem": problems({0: "Another error."})[0],
            **{_common_name(one): text for one, text in problems(COMMON_PROBLEMS).items()},
            _common_name(503): problems(COMMON_PROBLEMS)[503]
            | {"headers": _headers(("retry-after",))},
        },
        "securitySchemes": {
            "basic": {"type": "http", "scheme": "basic"},
            "bearer": {"type": "http", "scheme": "bearer"},
        },
    }
    _drop_unused(document)
    document["security"] = [{"basic": []}, {"bearer": []}, {}]  # {}: a server without a password
    return document


REF = "#/components/schemas/{model}"


def _drop_unused(document: Schema) -> None:
    """Delete the schemas that nothing refers to, such as of fields that no answer has."""
    schemas, text = document["components"]["schemas"], json.dumps(document)
    unused = [name for name in schemas if f'"{REF.format(model=name)}"' not in text]
    for name in unused:
        del schemas[name]
    if unused:
        _drop_unused(document)


def operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    """(method in lower case, path, operation) of each operation, in the order of the routes."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def _with_definitions(schema: Schema) -> dict[str, Schema]:
    """The schema and the ones that it refers to, by name."""
    definitions: dict[str, Schema] = schema.pop("$defs", {})
    return definitions | {schema["title"]: schema}


def _describe_settings(schemas: dict[str, Schema]) -> None:
    """Document the settings of a training, and the bounds of a render as they are checked."""
    settings = TrainConfig.model_json_schema(ref_template=REF)
    settings["description"] = "Settings of a training; absent ones are those of the preset."
    for setting in settings["properties"].values():
        for of_the_form in ("group", "default"):  # a preset has defaults of its own
            setting.pop(of_the_form, None)
    schemas |= _with_definitions(settings)
    config = schemas["RunIn"]["properties"]["config"]
    schemas["RunIn"]["properties"]["config"] = {
        "$ref": REF.format(model="TrainConfig"),
        "description": config["description"],
    }
    checked = RenderConfig.model_json_schema()["properties"]
    for name, field in schemas["RenderIn"]["properties"].items():
        bounds = _first(checked.get(name, {}))
        _first(field).update({key: bounds[key] for key in BOUNDS if key in bounds})


def _first(schema: Schema) -> Schema:
    """The schema of a value that is not null."""
    found: Schema = schema.get("anyOf", [schema])[0]
    return found


def _drop_made_titles(schema: Schema) -> None:
    """Delete titles that only repeat the name of their field."""
    for name, field in schema.get("properties", {}).items():
        if field.get("title") == name.replace("_", " ").title():
            del field["title"]


def _mark_files(schema: Schema) -> None:
    """Give files the format of OpenAPI 3.0 too: many tools and the viewer know only that."""
    for field in schema.get("properties", {}).values():
        content = field.get("items", field)
        if "contentMediaType" in content:
            content["format"] = "binary"


def _describe_operation(method: str, operation: Schema) -> None:
    text = operation.pop("description", "")
    summary, _, rest = text.partition("\n\n")
    operation["summary"] = " ".join(summary.split()).removesuffix(".")
    operation["description"] = rest or text
    for parameter in operation.get("parameters", []):
        parameter["schema"].pop("title", None)
        parameter["schema"].pop("description", None)
        if parameter["in"] == "path":
            parameter["description"] = PATH_PARAMETERS[parameter["name"]]
    operation["responses"] = _describe_responses(method, operation)
    if method == "post":
        key = {"$ref": "#/components/parameters/IdempotencyKey"}
        operation["parameters"] = [*operation.get("parameters", []), key]


def _describe_body(schemas: dict[str, Schema], body: Schema) -> str:
    """The description of a JSON body is that of its schema; that of a form names its fields."""
    (content,) = body["content"].values()
    schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
    fields = ", ".join(f"`{name}`" for name in schema["properties"])
    return str(schema.get("description") or f"A form with the fields {fields}.")


def _describe_responses(method: str, operation: Schema) -> Schema:
    """The responses in the order of their status, with the errors that every route can have."""
    found: Schema = operation["responses"]
    for status, text in SUCCESS.items():
        if status in found:
            found[status]["description"] = text
    for status in {"201", "202"} & found.keys():
        found[status]["headers"] = _headers(("location",))
    if any(one["name"] == "cursor" for one in operation.get("parameters", [])):
        found["200"].setdefault("headers", {}).update(_headers(("link", "x-total-count")))
    in_path = [one["in"] == "path" for one in operation.get("parameters", [])]
    can_occur = {
        **dict.fromkeys((400, 401, 414, 422, 429, 500, 503), True),
        404: any(in_path),
        409: method == "post",
        **dict.fromkeys((413, 415), "requestBody" in operation),
        **dict.fromkeys((403, 507), method != "get"),
    }
    for one in (status for status, occurs in can_occur.items() if occurs):
        if not _is_named(found, one):
            found[str(one)] = {"$ref": f"#/components/responses/{_common_name(one)}"}
    others = {"default": {"$ref": "#/components/responses/Problem"}}
    return dict(sorted(found.items())) | others


def _common_name(status: int | str) -> str:
    """The name of a common error among the components, such as NotFound."""
    return HTTPStatus(int(status)).phrase.title().replace(" ", "")


def _is_named(found: Schema, status: int) -> bool:
    """True if a route gives its own reason for the status."""
    return MEDIA_TYPE in found.get(str(status), {}).get("content", {})

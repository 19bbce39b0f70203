"""The page of the REST API: its operations by domain, and a viewer to read and try them in."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import HTMLResponse

from app.web import templates
from app.web.access.needs import Action, Router
from app.web.openapi import Schema, operations

router = Router(include_in_schema=False)


@dataclass(frozen=True)
class Operation:
    """A method and path with what it does; `href` opens it in the viewer."""

    method: str
    path: str
    summary: str
    href: str


@dataclass(frozen=True)
class OperationGroup:
    """The operations of one domain."""

    name: str
    about: str
    operations: list[Operation]


@router.get("/docs", Action.LOOK)
def api_reference(request: Request) -> HTMLResponse:
    """Show the REST API: all operations; the viewer takes their place once it has loaded.

    `about` has the paragraphs of the introduction, each as pieces of text and code in turn.
    """
    document: Schema = request.app.openapi()
    about = [text.split("`") for text in document["info"]["description"].split("\n\n")]
    groups = operation_groups(document)
    return templates.render(request, "api_reference/api_reference.html", about=about, groups=groups)


def operation_groups(document: Schema) -> list[OperationGroup]:
    """The operations of an OpenAPI document by tag, in the order of its tags."""
    found = list(operations(document))
    return [
        OperationGroup(
            name=tag["name"].replace("-", " ").capitalize(),
            about=tag["description"],
            operations=[
                _operation(method, path, operation)
                for method, path, operation in found
                if tag["name"] in operation["tags"]
            ],
        )
        for tag in document["tags"]
    ]


def _operation(method: str, path: str, operation: Schema) -> Operation:
    href = f"#/{operation['tags'][0]}/{operation['operationId']}"
    return Operation(method.upper(), path, operation["summary"], href)

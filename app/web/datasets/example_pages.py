"""The example styles: their images for the first page, and the button that adds one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Form
from fastapi.responses import FileResponse, RedirectResponse

from app.registry.datasets.examples import add_example, find_example
from app.registry.errors import NotFound
from app.registry.paths import STATIC
from app.web.access.needs import Action, Router
from app.web.state import State
from worker.core.starter.examples import EXAMPLES, Example

router = Router(include_in_schema=False)

CACHE = "public, max-age=86400"
DEFAULT = next(iter(EXAMPLES))
LONGEST_NAME = 60


@dataclass(frozen=True)
class ExampleOffer:
    """An example style with the sheet of what training reaches, a static file, if it was made."""

    example: Example
    sheet: str | None


def example_offers() -> list[ExampleOffer]:
    """All example styles; `python -m docs.screenshots.examples` makes the sheets."""
    sheets = {key: f"examples/{key}.webp" for key in EXAMPLES}
    return [
        ExampleOffer(example, sheets[key] if (STATIC / sheets[key]).is_file() else None)
        for key, example in EXAMPLES.items()
    ]


@router.post("/example", Action.CREATE)
def add(state: State, style: Annotated[str, Form()] = DEFAULT) -> RedirectResponse:
    """Create the dataset of an example style, unless it exists, and show it."""
    dataset, _ = add_example(state, find_example(style))
    return RedirectResponse(f"/datasets/{dataset.slug}", status_code=303)


@router.get("/example/{style}/{name}.webp", Action.LOOK)
def image(style: str, name: str) -> FileResponse:
    """An image of an example style."""
    path = find_example(style).folder / f"{name[:LONGEST_NAME]}.webp"
    if not re.fullmatch(rf"[a-z0-9-]{{1,{LONGEST_NAME}}}", name) or not path.is_file():
        raise NotFound("There is no such image.")
    return FileResponse(path, media_type="image/webp", headers={"cache-control": CACHE})

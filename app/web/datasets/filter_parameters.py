"""The filter of images among the parameters of a request."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Query, Request
from pydantic import Field, WithJsonSchema

from app.registry.datasets.filters import MAX_SEARCH, MAX_WORDS, ImageFilter, Show, Sort
from app.registry.db import MAX_ID
from app.registry.errors import InvalidInput
from app.web.datasets.listing_view import ShownImages

MAX_VALUES = 1_000  # of one parameter that are looked at
Value = Annotated[str, Field(max_length=1_000)]
WORDS = f"in lower or upper case; may be given several times, at most {MAX_WORDS} words in all."


def one_of(words: type[StrEnum]) -> WithJsonSchema:
    """The schema of a text that is one of these words; another is refused where it is read."""
    return WithJsonSchema({"type": "string", "enum": list(words)})


def _filter_of_request(
    show: Annotated[
        list[Annotated[Value, one_of(Show)]] | None,
        Query(
            max_length=MAX_VALUES,
            description="Only images with this property; given several times: with all.",
        ),
    ] = None,
    with_words: Annotated[
        list[Value] | None,
        Query(
            alias="with",
            max_length=MAX_VALUES,
            description=f"Only captions that contain this word or phrase, {WORDS}",
        ),
    ] = None,
    without: Annotated[
        list[Value] | None,
        Query(
            max_length=MAX_VALUES,
            description=f"Only captions that do not contain this word or phrase, {WORDS}",
        ),
    ] = None,
    q: Annotated[
        str,
        Query(
            max_length=1_000,
            description="Part of a caption or file name, at most 200 characters count.",
        ),
    ] = "",
    sort: Annotated[str, one_of(Sort), Query(max_length=40, description="Order.")] = "oldest",
) -> ImageFilter:
    pairs = [("show", value) for value in show or []]
    pairs += [("with", value) for value in with_words or []]
    pairs += [("without", value) for value in without or []]
    wanted, problems = ImageFilter.parse([*pairs, ("q", q[:MAX_SEARCH]), ("sort", sort)])
    for sentence, field in problems.items():
        raise InvalidInput(sentence, fields={field: sentence})
    return wanted


def _images_of_page(
    request: Request,
    page: Annotated[int, Query(ge=1, le=MAX_ID)] = 1,
    after: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
    first: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
) -> ShownImages:
    wanted, problems = ImageFilter.parse(request.query_params.multi_items())
    with_statistics = "statistics" in request.query_params
    return ShownImages(wanted, list(problems), page, after or None, first, with_statistics)


RequestFilter = Annotated[ImageFilter, Depends(_filter_of_request)]
"""The filter of a REST request; an unknown one is refused."""

PageImages = Annotated[ShownImages, Depends(_images_of_page)]
"""The images that a page asks for; other values are left out, with a sentence that says so."""

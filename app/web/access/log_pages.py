"""The audit log of administrators, and its export."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from app.registry.paging import find_page
from app.registry.people import log
from app.registry.state import AppState
from app.web.access.needs import Action, Router
from app.web.access.person import require_person
from app.web.addresses import ListLinks
from app.web.state import PageNumber, Reading, State, Words
from app.web.templates import render

router = Router(include_in_schema=False, dependencies=[Depends(require_person)])
COLUMNS = ("id", "at", "who", "kind", "subject", "subject_id", "detail", "address")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would calculate


@dataclass(frozen=True)
class Query:
    """What is asked for, as it was typed; a date that is none is left out."""

    person: Words = ""
    kind: Words = ""
    subject: Words = ""
    since: Words = ""
    until: Words = ""

    @property
    def filter(self) -> log.LogFilter:
        """The events that are asked for; the day `until` is among them."""
        until = _day(self.until)
        return log.LogFilter(
            person=self.person.strip(),
            kind=self.kind,
            subject=self.subject,
            since=_day(self.since),
            until=until + timedelta(days=1) if until else None,
        )


Asked = Annotated[Query, Depends()]


@router.get("/people/log", Action.ADMIN)
def show_log(request: Request, session: Reading, asked: Asked, page: PageNumber = 1) -> Response:
    """Show what people did, newest first."""
    values = asdict(asked)
    found = find_page(lambda number: log.read_log(session, asked.filter, number=number), page)
    kinds, subjects = log.log_choices(session)
    return render(
        request,
        "people/log.html",
        found=found,
        values=values,
        kinds=kinds,
        subjects=subjects,
        export=ListLinks("/people/log.csv", values, ()).to(),
        links=ListLinks("/people/log", values, ()),
        kept_days=log.ADDRESSES_KEPT.days,
    )


@router.get("/people/log.csv", Action.ADMIN)
def export_log(state: State, asked: Asked) -> Response:
    """The same as a table, at most the newest 100,000 events."""
    return StreamingResponse(
        _csv(state, asked.filter),
        media_type="text/csv",
        headers={"content-disposition": 'attachment; filename="audit-log.csv"'},
    )


def _csv(state: AppState, wanted: log.LogFilter) -> Iterator[str]:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for entry in log.export_log(state.database, wanted):
        writer.writerow([_cell(getattr(entry, name)) for name in COLUMNS])
        if text.tell() > 60_000:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _day(text: str) -> datetime | None:
    """The start of a day, in UTC; None for what is no date of these centuries."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return datetime.combine(day, time(), UTC) if 2000 <= day.year < 2200 else None

"""Pages of adapters: the list, one adapter with its versions, import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request
from starlette.datastructures import UploadFile
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import service
from app.registry.adapters.imports import ReceivedFile, receive_all
from app.registry.adapters.library.listing import COUNT_END
from app.registry.adapters.service import AdapterChange, Filter, Sort
from app.registry.db import MAX_ID
from app.registry.deletion.lists import has_deleted
from app.registry.errors import AppError, InvalidInput
from app.registry.people.whose import only
from app.registry.renders.covers import choose_cover
from app.registry.renders.ordered_covers import missing_covers, order_covers
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.wording import plural
from app.web.access.needs import Action, Router
from app.web.adapters.detail import AdapterDetailPage, form_values, read_change
from app.web.adapters.folders import pages as folder_pages
from app.web.adapters.imports import pages as import_pages
from app.web.adapters.imports.pages import ImportRow, shown_import, summarize_imports
from app.web.adapters.page_view import adapter_view
from app.web.adapters.renders import pages as render_pages
from app.web.adapters.versions import pages as version_pages
from app.web.addresses import ListLinks
from app.web.forms import SentForm, uploaded
from app.web.state import OptionalId, PageNumber, Reading, Slug, State, Words, Writing, session_of
from app.web.templates import redirect_with_notice, render, render_fragment, wants_fragment
from worker.core.families.family import BaseFamily, find_family

router = Router(include_in_schema=False)
router.include_router(version_pages.router)
router.include_router(render_pages.router)
router.include_router(import_pages.router)
router.include_router(folder_pages.router)

Cursor = Annotated[str, Query(max_length=2_000)]
Tags = Annotated[list[Annotated[str, Query(max_length=40)]], Query(max_length=10)]
ImportedIds = Annotated[list[Annotated[int, Query(ge=1, le=MAX_ID)]], Query(max_length=100)]
SUGGESTED_TAGS = 8


def filter_links(filters: Filter, whose: str = "") -> ListLinks:
    """Addresses of the list with a changed filter."""
    values = {
        "q": filters.q,
        "base": filters.base,
        "starred": "1" if filters.starred else "",
        "sort": "" if filters.sort is Sort.NEWEST else filters.sort.value,
        "tag": filters.tags,
        "whose": whose,
    }
    return ListLinks("/adapters", values, kept=("sort",))


@router.get("/adapters", Action.LOOK)
def index(
    request: Request,
    session: Reading,
    q: Words = "",
    base: Words = "",
    tag: Tags = [],  # noqa: B006  (FastAPI copies it)
    starred: bool = False,
    sort: Words = "",
    page: PageNumber = 1,
    after: Cursor = "",
    before: Cursor = "",
    whose: Words = "",
    imported: ImportedIds = [],  # noqa: B006  (FastAPI copies it)
) -> Response:
    """List adapters, newest first by default."""
    filters = Filter(
        q=q.strip(),
        base=find_family(base) or "",
        tags=tuple(dict.fromkeys(word for word in tag if word)),
        starred=starred,
        sort=Sort(sort) if sort in set(Sort) else Sort.NEWEST,
        page=page,
        after=after,
        before=before,
    )
    shown = [shown_import(session, job_id) for job_id in imported]
    return _list_page(request, filters, shown, whose=whose)


def _list_page(
    request: Request,
    filters: Filter,
    imports: list[ImportRow],
    *,
    whose: str = "",
    status: int = 200,
) -> Response:
    with session_of(request) as session:
        with only(session, Adapter, whose):
            found = service.list_adapters(session, filters)
        covers = missing_covers(session)
        deleted = has_deleted(session, Adapter)
    tags = Counter(tag for item in found.items for tag in item.tags if tag not in filters.tags)
    return render(
        request,
        "adapters/index.html",
        status=status,
        found=found,
        filters=filters,
        links=filter_links(filters, whose),
        whose=whose,
        families=[
            (family, family.label, _count_words(found.families[family]))
            for family in BaseFamily
            if family in found.families
        ],
        sorts=[(sort.value, sort.label) for sort in Sort],
        starred_count=_count_words(found.starred),
        all_count=_sum_words(found.families.values()),
        tags=[tag for tag, _ in tags.most_common(SUGGESTED_TAGS)],
        is_filtered=bool(filters.q or filters.base or filters.tags or filters.starred or whose),
        imports=imports,
        summary=summarize_imports(imports),
        covers=covers,
        has_deleted=deleted,
    )


def _count_words(number: int | None) -> str:
    """The count as text: `10,000+` where counting stopped, empty where it is unknown."""
    if number is None:
        return ""
    return f"{COUNT_END:,}+" if number > COUNT_END else f"{number:,}"


def _sum_words(numbers: Iterable[int | None]) -> str:
    known = [number for number in numbers if number is not None]
    stopped = any(number > COUNT_END for number in known)
    return _count_words(COUNT_END + 1 if stopped else sum(known)) if known else ""


@router.post("/imports", Action.CREATE)
def import_adapters(request: Request, state: State, sent: SentForm) -> Response:
    """Import LoRA files, each with its companion files; an io worker checks them.

    A rejected file shows the reason and does not affect the others.
    """
    uploads = [file for file in sent.getlist("file") if isinstance(file, UploadFile)]
    of = str(sent.get("adapter", ""))
    try:
        received = receive_all(
            state,
            [uploaded(file) for file in uploads if file.filename],
            adapter_id=_adapter_id(state, of) if of else None,
        )
    except AppError as error:
        filename = next((file.filename for file in uploads if file.filename), None)
        received = [ReceivedFile(filename or "No file", error=error.detail)]
    shown = [ImportRow(one.filename, one.job, None, one.error) for one in received]
    refused = [one for one in received if one.error]
    status = 422 if len(refused) == len(received) else 200
    if wants_fragment(request):
        return render_fragment("adapters/_imports.html", imports=shown, status=status)
    if not refused:
        keys = urlencode([("imported", one.job.key) for one in received if one.job])
        return RedirectResponse(f"/adapters?{keys}", status_code=303)
    return _list_page(request, Filter(), shown, status=status)


@router.post("/adapters/covers", Action.BULK)
def make_covers(state: State, session: Writing) -> Response:
    """Draw an image of each adapter that has none, which becomes its cover."""
    ordered, left_out = order_covers(session, state.store)
    said = f"{plural(ordered, 'cover')} ordered."
    if left_out:
        said += f" {len(left_out):,} left out. {' '.join(left_out)}"
    return redirect_with_notice("/adapters", said)


def _adapter_id(state: AppState, slug: str) -> int:
    with state.database.read() as session:
        return service.adapter_by_slug(session, slug).key


@router.get("/adapters/{slug}", Action.LOOK)
def show(
    request: Request,
    slug: Slug,
    session: Reading,
    v: Annotated[str | None, Query(max_length=60)] = None,
    versions: Annotated[str, Query(max_length=10)] = "",
    before: OptionalId = None,
    image: Annotated[str, Query(max_length=64)] = "",
    edit: bool = False,
) -> Response:
    """Show one adapter at its current version, or at the one given by number or alias."""
    view = adapter_view(session, slug, v or None, versions=versions, before=before, image=image)
    page = AdapterDetailPage(view, form_values(view), {}, is_editing=edit)
    return render(request, "adapters/show.html", page)


@router.post("/adapters/{slug}", Action.EDIT)
def change(
    request: Request,
    slug: Slug,
    state: State,
    sent: SentForm,
    v: Annotated[str | None, Query(max_length=60)] = None,
    done: bool = False,
) -> Response:
    """Change the description of an adapter; errors appear next to their fields.

    `done` ends the editing; before that, a script saves what is typed.
    """
    errors: dict[str, str] = {}
    try:
        with state.database.write() as session:
            adapter = service.adapter_by_slug(session, slug)
            service.change_adapter(session, adapter.key, read_change(sent))
    except InvalidInput as error:
        errors = error.fields
    status = 422 if errors else 200
    if wants_fragment(request) and not done:
        return render_fragment("adapters/_saved.html", errors=errors, status=status)
    if not errors and not wants_fragment(request):
        return RedirectResponse(_address(slug, v, "#about"), status_code=303)
    with state.database.read() as session:
        view = adapter_view(session, slug, v or None)
    values = form_values(view) | (
        {key: str(value) for key, value in sent.items()} if errors else {}
    )
    page = AdapterDetailPage(view, values, errors, is_editing=bool(errors), is_done=not errors)
    if not wants_fragment(request):
        return render(request, "adapters/show.html", page, status=status)
    template = "adapters/_about.html" if errors else "adapters/_about_saved.html"
    return render_fragment(template, page, status=status)


def _address(slug: str, version: str | None, place: str) -> str:
    """The page of an adapter at a version, if that is named."""
    query = f"?{urlencode({'v': version})}" if version else ""
    return f"/adapters/{slug}{query}{place}"


@router.post("/adapters/{slug}/star", Action.EDIT)
def star(request: Request, slug: Slug, session: Writing, sent: SentForm) -> Response:
    """Star an adapter, or remove the star."""
    adapter = service.adapter_by_slug(session, slug)
    starred = sent.get("starred") == "1"
    adapter = service.change_adapter(session, adapter.key, AdapterChange(starred=starred))
    if wants_fragment(request):
        return render_fragment("adapters/_star.html", adapter=adapter)
    return RedirectResponse(f"/adapters/{slug}", status_code=303)


@router.post("/adapters/{slug}/cover", Action.EDIT)
def set_cover(slug: Slug, session: Writing, sent: SentForm) -> Response:
    """Set an image generated with the adapter as its cover."""
    adapter = service.adapter_by_slug(session, slug)
    sha256 = str(sent.get("sha256", ""))
    choose_cover(session, adapter.key, sha256)
    return RedirectResponse(_address(slug, str(sent.get("v", ""))[:60], "#lead"), status_code=303)

"""Pages of one image of the playground while it is generated and after, and of two to compare."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import service as adapters
from app.registry.base_models.subjects import prompt_note
from app.registry.blobs.report import bad_files_of
from app.registry.blobs.subjects import Subject
from app.registry.comparison.renders import TwoRenders, compare_renders, find_render, stack_words
from app.registry.db import Session
from app.registry.errors import NotFound
from app.registry.renders import drafts, removal, service
from app.registry.renders.gallery import GalleryFilter, gallery_page
from app.registry.renders.listing import ShownRender, first_images
from app.registry.tables.renders import Render
from app.web.access.needs import Action, Router
from app.web.comparison import ComparedImage
from app.web.playground.result_view import earlier_renders, result_fragment, result_view
from app.web.state import Id, OptionalId, Reading, Writing
from app.web.templates import render, wants_fragment
from app.web.templates import render as render_page
from worker.core.inference.prompt_syntax import parse_prompt
from worker.core.words import SamplerName

router = Router(include_in_schema=False)


@router.get("/renders/compare", Action.LOOK)
def compare(
    request: Request, session: Reading, a: OptionalId = None, b: OptionalId = None
) -> Response:
    """Compare two images; with one of them, choose the other."""
    found, problem, first, choices = None, "", None, list[tuple[ShownRender, str]]()
    known = a or b
    try:
        if a is not None and b is not None and a != b:
            found = compare_renders(session, a, b)
        elif known is not None:
            first, choices = _to_choose(session, known)
    except NotFound as error:
        problem = error.detail
    if a is not None and a == b and first:
        problem = "Both are the same image. Choose another one."
    images = _sides(found) if found else []
    if found and not images:
        problem = "One of these has no image, so there is nothing to compare yet."
    elif known and not found and not first and not problem:
        problem = f"Image {known} has not been generated. Choose another one."
    is_missing = known is not None and not found and not first
    return render(
        request,
        "playground/compare.html",
        found=found,
        images=images,
        is_same_size=found is not None and _size(found.a) == _size(found.b),
        first=first,
        choices=choices,
        problem=problem,
        status=404 if is_missing else 200,
    )


def _size(row: Render) -> tuple[int, int]:
    return row.width, row.height


def _to_choose(
    session: Session, render_id: int
) -> tuple[ShownRender | None, list[tuple[ShownRender, str]]]:
    """The render, None without an image, and the newest others with their adapters and weights.

    Raises NotFound.
    """
    row = find_render(session, render_id)
    image = first_images(session, [row]).get(row.key)
    if image is None:
        return None, []
    others = gallery_page(session, GalleryFilter()).items
    choices = [(item, stack_words(item.render)) for item in others if item.render.key != row.key]
    return ShownRender(row, image), choices


def _sides(found: TwoRenders) -> list[ComparedImage]:
    if found.a_image is None or found.b_image is None:
        return []
    return [
        ComparedImage(found.a_image.sha256, found.a_label, f"{found.a.prompt}, {found.a_label}"),
        ComparedImage(found.b_image.sha256, found.b_label, f"{found.b.prompt}, {found.b_label}"),
    ]


@router.get("/renders/{render_id}", Action.LOOK)
def show(request: Request, render_id: Id, session: Reading) -> Response:
    """Show one result: the image, its twin and its settings."""
    result = result_view(session, service.get_render(session, render_id))
    earlier = earlier_renders(session)
    bad = bad_files_of(session, Subject.RENDER, render_id)
    taught = adapters.trigger_words_of(session, result.here)
    address = f"{urlsplit(str(request.url))._replace(query='').geturl()}"
    has_weights = result.base.options.has_prompt_weights
    parsed = parse_prompt(result.render.prompt, has_weights=has_weights)
    note = prompt_note(result.base, parsed.text, taught=taught)
    sampler = SamplerName(result.render.sampler).label
    return render_page(
        request,
        "playground/render.html",
        result=result,
        earlier=earlier,
        address=address,
        bad_files=bad,
        prompt_note=note,
        sampler=sampler,
        is_own_page=True,
    )


@router.get("/renders/{render_id}/live", Action.LOOK)
def live(render_id: Id, session: Reading, own: bool = False, shown: OptionalId = None) -> Response:
    """Show the progress of an image; polls until it is finished.

    `shown`: the render whose image stays in view until then. No content for a draft that was
    replaced: the page gets the newer one from the request that replaced it.
    """
    render = service.get_render(session, render_id)
    if drafts.is_replaced(session, render):
        return Response(status_code=204)
    return result_fragment(session, render, shown=shown, is_own_page=own)


@router.post("/renders/{render_id}/restore", Action.OWN)
def restore(render_id: Id, session: Writing) -> Response:
    """Restore a deleted render."""
    removal.restore_render(session, render_id)
    return RedirectResponse(f"/renders/{render_id}", status_code=303)


@router.post("/renders/{render_id}/cancel", Action.CONTROL)
def cancel(request: Request, render_id: Id, session: Writing, own: bool = False) -> Response:
    """Cancel an image and its twin; a finished one is kept."""
    service.cancel_with_twin(session, render_id)
    return _render_response(request, render_id, session, own)


@router.post("/renders/{render_id}/keep", Action.DRAW)
def keep(request: Request, render_id: Id, session: Writing, own: bool = False) -> Response:
    """Keep a draft: it is listed like any other result."""
    drafts.keep_draft(session, render_id)
    return _render_response(request, render_id, session, own)


def _render_response(request: Request, render_id: int, session: Session, own: bool) -> Response:
    """The render as it is now: as a fragment, or on its page without scripts."""
    if wants_fragment(request):
        return live(render_id, session, own)
    return RedirectResponse(f"/renders/{render_id}", status_code=303)

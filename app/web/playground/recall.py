"""Settings of the playground from a text or an image, ours or of another program."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from app.registry.errors import InvalidInput
from app.registry.renders.recall import recall as recall_request
from app.web.addresses import MAX_ADDRESS
from app.web.forms import SentForm
from app.web.playground.forms import form_of_request
from app.web.playground.pages import play_page
from app.web.state import State
from app.web.templates import go_to, render, render_fragment, wants_fragment
from worker.core.inference.read_infotext import InfotextError, parse_infotext, read_image_infotext

router = APIRouter(include_in_schema=False)


@router.post("/play/recall")
def recall(request: Request, state: State, sent: SentForm) -> Response:
    """Open the playground with the settings of the text or the image in the form."""
    file, text = sent.get("image"), str(sent.get("infotext") or "")
    try:
        if isinstance(file, UploadFile) and file.size:
            text = read_image_infotext(file.file)
        found = parse_infotext(text)
        with state.database.read() as session:
            recalled = recall_request(session, found)
            form = form_of_request(session, recalled.request)
        if len(form.link) > MAX_ADDRESS:
            raise InfotextError("These settings are too long for an address. Shorten the prompt.")
    except InfotextError as error:
        if not wants_fragment(request):
            raise InvalidInput(str(error)) from error
        return render_fragment("playground/_recalled.html", sentences=[str(error)], link="")
    if not recalled.missing:
        return go_to(request, form.link)
    if not wants_fragment(request):
        with state.database.read() as session:
            context = play_page(session, form)
        context = replace(context, recalled=recalled.missing)
        return render(request, "playground/play.html", context)
    return render_fragment("playground/_recalled.html", sentences=recalled.missing, link=form.link)

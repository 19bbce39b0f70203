"""The image to start from: chosen or removed on the playground, or one of a dataset."""

from __future__ import annotations

from dataclasses import replace

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.responses import RedirectResponse, Response

from app.registry.datasets import service as datasets
from app.registry.errors import InvalidInput
from app.registry.renders import listing, sources
from app.web.access.needs import Action, Router
from app.web.forms import SentForm
from app.web.playground.adapter_rows import AdapterRow
from app.web.playground.forms import PlayForm, read_form
from app.web.playground.pages import refuse_form, whole_page, with_address
from app.web.playground.prompt import with_trigger_words, without_word
from app.web.playground.source_panel import source_panel
from app.web.state import Id, Reading, State
from app.web.templates import render_fragment, wants_fragment

router = Router(include_in_schema=False)

CHOSEN = "Starts from the image that you chose."
REMOVED = "There is no image to start from now."
MAX_CAPTION = 500  # characters of it that become the prompt
NO_FILE = "Choose an image file first."


@router.post("/play/source", Action.DRAW)
def change_source(request: Request, state: State, sent: SentForm) -> Response:
    """Take the image in `source-file` as the one to start from, or none (`drop-source`).

    All other fields stay as typed.
    """
    form = read_form([pair for pair in sent.multi_items() if isinstance(pair[1], str)])
    file, errors = sent.get("source-file"), dict[str, str]()
    announcement = ""
    if sent.get("drop-source"):
        form, announcement = replace(form, source="", strength=""), REMOVED
    elif isinstance(file, UploadFile) and file.filename:
        try:
            form = replace(form, source=sources.receive(state, file.file).sha256)
            announcement = CHOSEN
        except InvalidInput as error:
            errors["source"] = error.detail
    else:
        errors["source"] = NO_FILE
    if not wants_fragment(request):
        if errors:
            refused = InvalidInput(errors["source"], fields=errors)
            return refuse_form(request, form, refused)
        return whole_page(request, form)
    with state.database.read() as session:
        panel = source_panel(session, form, errors)
    return with_address(
        render_fragment(
            "playground/_source_changed.html", form=form, source=panel, announcement=announcement
        ),
        form,
    )


@router.get("/play/restyle/{image_id}", Action.LOOK)
def restyle(image_id: Id, session: Reading) -> Response:
    """Start from an image of a dataset, with the adapter that was used last.

    The prompt is the caption with the trigger word of the adapter in place of the dataset's.
    """
    image = datasets.get_image(session, image_id)
    dataset = datasets.get_dataset(session, image.dataset_id)
    caption = without_word(image.caption[:MAX_CAPTION], dataset.trigger_word or "")
    form = PlayForm(prompt=caption, source=f"dataset:{image_id}")
    if used := listing.last_used_adapter(session):
        row = AdapterRow(used.slug, version=used.version)
        form = with_trigger_words(session, form, replace(form, stack=(row,)))
    return RedirectResponse(form.link, status_code=303)

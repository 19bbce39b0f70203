"""Pages of datasets: the list, and one dataset with its images and captions."""

from __future__ import annotations

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from app.registry.datasets import service, uploads
from app.registry.datasets.edits.steps import list_steps
from app.registry.datasets.listing.pages import IMAGES_A_PAGE
from app.registry.datasets.training_side import tokens_of
from app.registry.deletion.lists import has_deleted
from app.registry.paging import find_page
from app.registry.people.whose import only
from app.registry.tables.datasets import Dataset
from app.web import templates
from app.web.access.needs import Action, Router
from app.web.addresses import ListLinks
from app.web.datasets import check_pages, edit_pages, example_pages, image_pages, one_image_pages
from app.web.datasets import upload_progress as progress
from app.web.datasets.edit_forms import asked_edit, asked_selection
from app.web.datasets.example_pages import example_offers
from app.web.datasets.filter_parameters import PageImages
from app.web.datasets.forms import DatasetForm, name_from_file, read_dataset_form
from app.web.datasets.page_requests import DatasetRequest, OfDataset
from app.web.datasets.page_view import dataset_page, redirect_to
from app.web.forms import TypedForm, uploaded
from app.web.state import OptionalId, PageNumber, State, Words, session_of

router = Router(include_in_schema=False)
router.include_router(image_pages.router)
router.include_router(one_image_pages.router)
router.include_router(example_pages.router)
router.include_router(check_pages.router)
router.include_router(edit_pages.router)

NO_FORM = DatasetForm()


@router.get("/datasets", Action.LOOK)
def index(
    request: Request,
    q: Words = "",
    whose: Words = "",
    page: PageNumber = 1,
) -> Response:
    """List datasets, newest first."""
    return _index_page(request, q=q, whose=whose, page=page)


def _index_page(
    request: Request,
    *,
    q: str = "",
    whose: str = "",
    page: int = 1,
    form: DatasetForm = NO_FORM,
) -> Response:
    with session_of(request) as session:
        words = q.strip()
        with only(session, Dataset, whose):
            found = find_page(lambda n: service.page_datasets(session, q=words, number=n), page)
        deleted = has_deleted(session, Dataset)
    links = ListLinks("/datasets", {"q": q, "whose": whose}, ())
    return templates.render(
        request,
        "datasets/list.html",
        status=200 if form.is_valid else 422,
        found=found,
        links=links,
        whose=whose,
        q=q,
        form=form,
        examples=example_offers(),
        has_deleted=deleted,
    )


@router.post("/datasets", Action.CREATE)
def create(request: Request, state: State, sent: TypedForm) -> Response:
    """Create a dataset from the form and its files."""
    chosen, fields = _named_files(sent), dict(sent)
    if chosen and not fields.get("name"):
        about = uploads.read_about([uploaded(file) for file in chosen])
        fields["name"] = about.name or name_from_file(chosen[0].filename)
    form = read_dataset_form(fields)
    if not form.is_valid:
        return _index_page(request, form=form)
    with state.database.write() as session:
        dataset = service.create_dataset(session, form.name, trigger_word=form.trigger_word)
    if chosen:
        asked = DatasetRequest(request, state, dataset.slug)
        return _receive_files(asked, dataset, chosen, is_new=True)
    return redirect_to(dataset)


@router.get("/datasets/{slug}", Action.LOOK)
def show(
    asked: OfDataset,
    shown: PageImages,
    edited: OptionalId = None,
) -> Response:
    """Show one dataset with a page of its images.

    `select=all` selects all images that match; `edit`, an action, opens its form for them too.
    """
    return dataset_page(
        asked,
        shown=shown,
        edited=edited,
        selection=asked_selection(asked.request.query_params),
        edit=asked_edit(asked.request.query_params),
    )


@router.post("/datasets/{slug}", Action.EDIT)
def change(asked: OfDataset, sent: TypedForm) -> Response:
    """Change the name or the trigger word of a dataset."""
    form = read_dataset_form(sent)
    if not form.is_valid:
        return dataset_page(asked, form=form, status=422)
    with asked.writing() as (session, dataset):
        service.change_dataset(session, dataset.key, name=form.name, trigger_word=form.trigger_word)
    return templates.redirect_with_notice(
        f"/datasets/{dataset.slug}", "Name and trigger word are saved."
    )


@router.post("/datasets/{slug}/images", Action.EDIT)
def upload(asked: OfDataset, sent: TypedForm) -> Response:
    """Add images, captions and archives to a dataset."""
    with asked.reading() as (_, dataset):
        files = _named_files(sent)
    return _receive_files(asked, dataset, files)


def _named_files(sent: FormData) -> list[UploadFile]:
    """The files with a name: browsers send an unnamed file for an empty field."""
    files = sent.getlist("files")
    return [file for file in files if isinstance(file, UploadFile) and file.filename]


def _receive_files(
    asked: DatasetRequest, dataset: Dataset, files: list[UploadFile], *, is_new: bool = False
) -> Response:
    sent = [uploaded(file) for file in files]

    def receive(on_image: progress.OnImage) -> uploads.UploadOutcome:
        return uploads.receive(asked.state, dataset.key, sent, on_image=on_image, is_new=is_new)

    def fragment(outcome: uploads.UploadOutcome) -> Response:
        with asked.reading() as (session, dataset):
            summary = service.summary(session, dataset)
            steps = list_steps(session, dataset.key, to_undo=True)
            tokens = tokens_of(session, dataset.key)
        return templates.render_fragment(
            "datasets/_uploaded.html",
            dataset=dataset,
            summary=summary,
            outcome=outcome,
            steps=steps,
            tokens=tokens,
            most=IMAGES_A_PAGE,
        )

    if progress.wants_progress(asked.request):
        return progress.progress_response(
            asked.request.url.path,
            receive,
            lambda outcome: {"html": bytes(fragment(outcome).body).decode()},
        )
    outcome = receive(lambda _: None)
    if asked.wants_fragment:
        return fragment(outcome)
    if not outcome.rejected:
        return redirect_to(dataset)
    status = 200 if outcome.accepted or outcome.captioned else 422
    return dataset_page(asked, outcome=outcome, status=status)

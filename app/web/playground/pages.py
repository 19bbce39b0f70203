"""Pages of the playground: generate an image, compare it with its twin, find earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.responses import RedirectResponse, Response

from app.registry.base_models.subjects import subjects_of
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput
from app.registry.renders import recall, selection, service
from app.registry.renders.listing import ShownRender
from app.registry.renders.plan import guidance_for, usual_of
from app.registry.renders.recipes.service import OpenedRecipe
from app.registry.storage.store import BlobStore
from app.registry.tables.added_models import BaseModel
from app.registry.tables.renders import Render
from app.web.access.needs import Action, Router
from app.web.addresses import MAX_ADDRESS
from app.web.form_reader import as_id
from app.web.forms import SentForm
from app.web.playground.adapter_picker import AdapterChoices, with_exact
from app.web.playground.forms import (
    InvalidWeights,
    PlayForm,
    form_of_request,
    read_address,
    read_form,
    read_shown,
    sampler_choices,
    unknown_choices,
)
from app.web.playground.image_notes import has_unusual, live_note, size_note_of
from app.web.playground.prompt import (
    SubjectChoices,
    find_subjects,
    missing_words,
    note_of,
    with_trigger_words,
)
from app.web.playground.result_view import (
    ResultView,
    earlier_renders,
    instead_of_result,
    result_fragment,
    result_view,
)
from app.web.playground.source_panel import SourcePanel, source_panel, with_base_of_source
from app.web.playground.stack import StackView, change_words, choices_beside, follow_base, look_up
from app.web.playground.strip import pairs_of, rows_with_checkpoints
from app.web.playground.together import TogetherView, compare_stack
from app.web.playground.training_sample import SampleView, sample_to_try
from app.web.state import Reading, State, session_of
from app.web.templates import go_to, render_fragment, wants_fragment
from app.web.templates import render as render_page
from worker.core.inference.infotext import InfotextError, parse_infotext, read_image_infotext
from worker.core.starter.prompt_words import with_subject

router = Router(include_in_schema=False)


@dataclass(frozen=True)
class RecipePanel:
    """The panel that saves a recipe, with what was typed; `opened`: the one that the page shows."""

    name: str = ""
    error: str = ""
    opened: OpenedRecipe | None = None


@dataclass(frozen=True)
class PlayPage:
    """The playground; `recalled`: what of the settings of a text or an image is not here.

    `sample`: the training sample that is shown while there is no result.
    `undo`: the id of the render that was just deleted.
    """

    form: PlayForm
    stack: list[StackView]
    choices: AdapterChoices
    bases: list[BaseModel]
    default_base: BaseModel
    has_unusual: bool
    base_hint: str
    size_note: str
    prompt_note: str
    missing_words: Sequence[tuple[str, str]]
    subjects: SubjectChoices | None
    default_guidance: float
    default_steps: int
    samplers: list[tuple[str, str]]
    errors: dict[str, str]
    summary: str
    result: ResultView | None
    earlier: list[ShownRender]
    live_note: str
    source: SourcePanel
    pairs: list[tuple[str, str]]
    with_checkpoints: list[int]
    together: TogetherView
    sample: SampleView | None = None
    scrubbed: bool = False
    keeps_strip: bool = False
    has_new_prompt: bool = False
    has_new_base: bool = False
    strip: None = None
    problem: str = ""
    announcement: str = ""
    recipe: RecipePanel = RecipePanel()
    recalled: Sequence[str] = ()
    undo: int | None = None
    is_fragment: bool = False


@router.get("/play", Action.LOOK)
def play(request: Request, session: Reading) -> Response:
    """Show the playground, filled from the URL."""
    form = read_address(request.query_params.multi_items())
    form = with_base_of_source(session, form)
    result, sample = finished_result(session, form), None
    if result is None and (found := sample_to_try(session, form)):
        form, sample = found
        result = finished_result(session, form)
    context = play_page(session, form, result=result)
    undo = selection.deleted_render(session, as_id(request.query_params.get("undo", "")))
    context = replace(
        context,
        sample=sample,
        scrubbed="scrub" in request.query_params,
        undo=undo,
        is_fragment=wants_fragment(request),
    )
    return render_page(request, "playground/play.html", context)


def finished_result(session: Session, form: PlayForm) -> ResultView | None:
    """The result of an equal request that has been generated; None without prompt or seed."""
    if not form.prompt or not form.seed:
        return None
    try:
        render = service.find_finished(session, form.request(session))
    except AppError:
        return None  # what is wrong is said when it is to be generated
    return result_view(session, render) if render else None


@router.post("/play", Action.DRAW)
def generate(request: Request, state: State, sent: SentForm) -> Response:
    """Queue an image and its twin, or show the cached ones; errors appear next to their fields."""
    form = read_form(sent.multi_items())
    try:
        with state.database.write() as session:
            render = _create_render(session, form, state.store)
    except AppError as error:
        return refuse_form(request, form, error)
    if not wants_fragment(request):
        return RedirectResponse(f"/renders/{render.key}", status_code=303)
    form = replace(form, seed=str(render.seed))
    shown = read_shown(sent)
    with state.database.read() as session:
        response = instead_of_result(result_fragment(session, render, form, shown=shown))
    response.headers["HX-Push-Url"] = form.link  # what is accepted is short enough for it
    return response


def _create_render(session: Session, form: PlayForm, store: BlobStore) -> Render:
    """Queue the render; InvalidInput names every invalid field, including weights."""
    try:
        request, wrong = form.request(session), {}
    except InvalidWeights as error:
        request, wrong = error.request, error.fields
    try:
        render = service.create_render(session, request, store)
    except InvalidInput as error:
        wrong = error.fields | wrong
    if wrong:
        raise InvalidInput(" ".join(dict.fromkeys(wrong.values())), fields=wrong)
    return render


def refuse_form(request: Request, form: PlayForm, error: AppError) -> Response:
    """The form with an error next to its field; without scripts, the whole page."""
    with session_of(request) as session:
        context = play_page(session, form, error)
    if not wants_fragment(request):
        return render_page(request, "playground/play.html", context, status=422)
    response = render_fragment("playground/_form.html", context, status=422)
    response.headers["HX-Retarget"] = "#play-form"
    response.headers["HX-Reswap"] = "outerHTML"
    return response


@router.post("/play/stack", Action.LOOK)
def change_stack(request: Request, state: State, sent: SentForm) -> Response:
    """Add, remove or replace an adapter, or check the stack against another base model.

    All other fields stay as typed. Without scripts, `find` is searched, or added if it is a slug.
    """
    texts: Mapping[str, str] = {name: str(value) for name, value in sent.multi_items()}
    before = read_form(sent.multi_items())
    if not wants_fragment(request):
        with state.database.read() as session:
            texts = with_exact(session, texts)
            form = with_trigger_words(session, before, before.with_stack(texts))
        return whole_page(request, form)
    with state.database.read() as session:
        form = with_trigger_words(session, before, before.with_stack(texts))
        form, stay = follow_base(session, form, texts.get("base-shown", ""))
        context = play_page(session, form)
        told = change_words(session, before, context.stack, texts)
        is_new_base = look_up(session, before).base.key != context.default_base.key
    is_new = form.prompt != before.prompt
    told += f" The prompt is now “{form.prompt}”." if is_new else ""
    context = replace(
        context,
        keeps_strip="put" in texts,
        base_hint=f"{context.base_hint} {stay}".strip(),
        has_new_prompt=is_new,
        has_new_base=is_new_base or request.headers.get("HX-Trigger-Name") == "base",
        announcement=told.strip(),
    )
    return with_address(render_fragment("playground/_stack_changed.html", context), form)


@router.post("/play/stack/find", Action.LOOK)
def find(session: Reading, sent: SentForm) -> Response:
    """Search for adapters to add."""
    form = read_form(sent.multi_items())
    choices = choices_beside(session, form, look_up(session, form))
    return render_fragment("playground/_found.html", choices=choices)


@router.post("/play/together", Action.LOOK)
def check_together(request: Request, state: State, sent: SentForm) -> Response:
    """Compare the adapters of the form; polls until all are compared."""
    form = read_form(sent.multi_items())
    together = compare_stack(state.database, form)
    if wants_fragment(request):
        return render_fragment(
            "playground/_together.html", together=together, is_on_page="told" in sent
        )
    with state.database.read() as session:
        context = play_page(session, form, together=together)
    return render_page(request, "playground/play.html", context)


@router.post("/play/subjects", Action.LOOK)
def choose_subject(request: Request, session: Reading, sent: SentForm) -> Response:
    """Search the subjects of the base model, or put one of them into the prompt (`insert`)."""
    form = read_form(sent.multi_items())
    subject = str(sent.get("insert", ""))
    stack = look_up(session, form)
    is_known = any(known.name == subject for known in subjects_of(stack.base))
    if is_known:
        form = replace(form, prompt=with_subject(form.prompt, subject))
    if not wants_fragment(request):
        return whole_page(request, form)
    if not is_known:
        found = find_subjects(form, stack.base)
        return render_fragment("playground/_subjects_found.html", subjects=found)
    lacks = missing_words(form.prompt, stack.rows)
    told = f"The prompt starts with {subject}."
    return with_address(
        render_fragment(
            "playground/_subject_put.html",
            form=form,
            prompt_note=note_of(form, stack),
            missing_words=lacks,
            announcement=told,
            errors={},
        ),
        form,
    )


@router.post("/play/prompt", Action.LOOK)
def note_prompt(session: Reading, sent: SentForm) -> Response:
    """Say which words of the prompt the base model does not know."""
    form = read_form(sent.multi_items())
    stack = look_up(session, form)
    lacks = missing_words(form.prompt, stack.rows)
    return render_fragment(
        "playground/_prompt_note.html", prompt_note=note_of(form, stack), missing_words=lacks
    )


@router.post("/play/size", Action.LOOK)
def note_size(session: Reading, sent: SentForm) -> Response:
    """Say whether the size is far from that of the base model."""
    form = read_form(sent.multi_items())
    note = size_note_of(session, form, look_up(session, form).base)
    return render_fragment("playground/_size_note.html", size_note=note)


@router.post("/play/recall", Action.LOOK)
def recall_settings(request: Request, state: State, sent: SentForm) -> Response:
    """Open the playground with the settings of the text or the image in the form."""
    file, text = sent.get("image"), str(sent.get("infotext") or "")
    try:
        if isinstance(file, UploadFile) and file.size:
            text = read_image_infotext(file.file)
        found = parse_infotext(text)
        with state.database.read() as session:
            recalled = recall.recall(session, found)
            form = form_of_request(session, recalled.request)
        if not _fits_in_address(form):
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
        return render_page(request, "playground/play.html", context)
    return render_fragment("playground/_recalled.html", sentences=recalled.missing, link=form.link)


def whole_page(request: Request, form: PlayForm) -> Response:
    """The playground with this form, for a browser without scripts."""
    if _fits_in_address(form):
        return RedirectResponse(form.link, status_code=303)
    with session_of(request) as session:
        return render_page(request, "playground/play.html", play_page(session, form))


def with_address(response: Response, form: PlayForm) -> Response:
    """The fragment, after which the browser shows the address of the form."""
    if _fits_in_address(form):
        response.headers["HX-Replace-Url"] = form.link
    return response


def _fits_in_address(form: PlayForm) -> bool:
    """False for texts that are too long to go into an address."""
    return len(form.link) <= MAX_ADDRESS


def play_page(
    session: Session,
    form: PlayForm,
    error: AppError | None = None,
    result: ResultView | None = None,
    together: TogetherView | None = None,
    recipe: RecipePanel = RecipePanel(),
) -> PlayPage:
    """The playground with this form."""
    errors = dict(error.fields) if error else {}
    stack = look_up(session, form, errors)
    errors |= unknown_choices(form, stack.bases)
    if errors.get("adapters") in (stack.misfits, *(row.error for row in stack.rows)):
        errors["adapters"] = ""  # each is already shown in its row
    return PlayPage(
        form=form,
        stack=stack.rows,
        choices=choices_beside(session, form, stack),
        bases=stack.bases,
        default_base=stack.base,
        has_unusual=has_unusual(session, form, stack),
        base_hint=stack.hint,
        size_note=""
        if errors.keys() & {"width", "height"}
        else size_note_of(session, form, stack.base),
        prompt_note=note_of(form, stack),
        missing_words=missing_words(form.prompt, stack.rows),
        subjects=find_subjects(form, stack.base),
        default_guidance=guidance_for(stack.base),
        default_steps=usual_of(stack.base).steps,
        samplers=sampler_choices(stack.base),
        errors=errors,
        summary=error.detail if error else "",
        result=result,
        earlier=earlier_renders(session),
        live_note=live_note(session, form, stack.base),
        source=source_panel(session, form, errors),
        pairs=pairs_of(stack.rows),
        with_checkpoints=rows_with_checkpoints(session, stack.rows),
        together=together or TogetherView(len(form.stack)),
        recipe=recipe,
    )

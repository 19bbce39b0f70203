"""Pages of blind tests: the form of a new one, judging, the result, and the list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Request
from pydantic import BaseModel, BeforeValidator
from starlette.responses import RedirectResponse, Response

from app.registry import evaluations, prompt_sets
from app.registry.adapters import service as adapters
from app.registry.blind_tests import judging, plan, results, service
from app.registry.blind_tests.plan import BlindPlan, BlindRequest, CandidateRequest
from app.registry.datasets.figures import dataset_choices
from app.registry.db import Session
from app.registry.deletion.lists import has_deleted
from app.registry.errors import AppError, InvalidInput, invalid_field
from app.registry.paging import find_page
from app.registry.renders.recipes import service as recipes
from app.registry.runs import checkpoints
from app.registry.slugs import LONGEST_SLUG
from app.registry.tables.blind_tests import BlindTest, Choice, Question
from app.web.access.needs import Action, Router
from app.web.addresses import MAX_ADDRESS
from app.web.blind_tests.api import continue_blind_test, judge
from app.web.form_reader import FormReader, as_id
from app.web.forms import SentForm
from app.web.playground.adapter_rows import read_weighted, row_of
from app.web.playground.forms import read_form
from app.web.state import Id, OptionalId, PageNumber, Reading, State, Words, Writing
from app.web.templates import go_to, redirect_with_notice, render
from worker.core.evaluation.preferences import FEWEST_PROMPTS, MOST_CANDIDATES

router = Router(include_in_schema=False)

WITHOUT = "none"
EVERYDAY = "everyday"  # subjects, in place of the prompts of a grid
RECIPE = "recipe:"
PLUS = " + "
MOST_OFFERED = 24


@dataclass(frozen=True)
class Option:
    """A candidate that can be chosen, as the text of its checkbox."""

    text: str
    label: str
    sha256: str | None
    chosen: bool


SentId = Annotated[int | None, BeforeValidator(as_id)]
SentSlug = Annotated[str, BeforeValidator(lambda text: text[:LONGEST_SLUG])]


class BlindForm(BaseModel, frozen=True):
    """The fields of the form as entered.

    A candidate is a text: `none`, `recipe:SLUG`, or adapters as the playground names them, joined
    by a plus. `run`, `adapter` and `grid` are what the test was asked for; their candidates are
    offered. `base`: of all of them; empty: their own.
    """

    question: str = Question.CLOSER.value
    chosen: tuple[str, ...] = ()
    run: SentId = None
    adapter: str = ""
    grid: SentId = None
    base: SentSlug = ""
    prompt_set: SentSlug = ""
    dataset: SentId = None
    is_sent: bool = False

    def wanted(self, session: Session) -> BlindRequest:
        """What to plan. Raises InvalidInput."""
        try:
            question = Question(self.question)
        except ValueError:
            raise invalid_field("question", "Choose one of the two questions.") from None
        return BlindRequest(
            question=question,
            candidates=[self.candidate(session, text) for text in self.chosen],
            run_id=self.run,
            dataset_id=self.dataset,
            prompt_set=None if self.prompt_set == EVERYDAY else self.prompt_set or None,
            grid_id=None if self.prompt_set else self.grid,
        )

    def candidate(self, session: Session, text: str) -> CandidateRequest:
        """The candidate of a text. Raises InvalidInput."""
        base = self.base or None
        if text == WITHOUT:
            return CandidateRequest(base_model=base)
        try:
            if text.startswith(RECIPE):
                recipe = recipes.recipe_by_slug(session, text.removeprefix(RECIPE))
                return CandidateRequest(recipe=recipe.key)
            rows = [read_weighted(part.strip()) for part in text.split("+")]
            if problem := next(filter(None, (row.problem for row in rows)), ""):
                raise InvalidInput(problem)
            named = [row.parse(session) for row in rows]
        except AppError as error:
            raise invalid_field("candidates", f"“{text[:80]}”: {error.detail}") from error
        return CandidateRequest(adapters=named, base_model=base)


def read_blind_form(fields: Iterable[tuple[str, Any]]) -> BlindForm:
    """The form from the fields of a URL or of a sent form; what was typed to add is chosen."""
    pairs = [(name, str(value).strip()) for name, value in fields]
    chosen = [value for name, value in pairs if name in ("candidate", "add") and value]
    read = {"chosen": list(dict.fromkeys(chosen))[: plan.MOST_NAMED]}
    is_sent = any(name == "question" for name, _ in pairs)
    return BlindForm.model_validate(dict(pairs) | read | {"is_sent": is_sent})


def with_usual_choice(session: Session, form: BlindForm) -> BlindForm:
    """The form as it is first shown: with candidates chosen, where what it is about offers them."""
    if form.is_sent or len(form.chosen) > 1:
        return form
    cells = plan.cells_of_grid(session, form.grid) if form.grid is not None else []
    if cells and len({cell.prompt for cell in cells}) < FEWEST_PROMPTS:
        form = form.model_copy(update={"prompt_set": EVERYDAY})
    offered = _offered(session, form)
    first = offered[: 2 if form.run or form.adapter else MOST_CANDIDATES]
    if form.run is not None:
        result = evaluations.recommendation(session, form.run)
        kept = result.recommended if result else None
        named = [text for text in offered if text.endswith(f"@{kept}")]
        first = [*named, *(text for text in offered if text not in named)][:2]
    chosen = tuple(dict.fromkeys([*form.chosen, *first]))[:MOST_CANDIDATES]
    return form.model_copy(update={"chosen": chosen})


def options_of(session: Session, form: BlindForm) -> list[Option]:
    """The candidates that can be chosen: of what the test is about, and those that were added."""
    listed = [text for text in [*_offered(session, form), *form.chosen] if text != WITHOUT]
    found = []
    for text in dict.fromkeys([*listed, WITHOUT]):
        label, sha256 = text[:80], None
        with suppress(AppError):  # the plan says what is wrong with it
            candidate = plan.find_candidate(session, form.candidate(session, text))
            label = candidate.label
            for _, version in candidate.made[:1]:
                samples = adapters.version_samples(session, version)
                sha256 = samples[0].sha256 if samples else None
        found.append(Option(text, label, sha256, text in form.chosen))
    return found


def _offered(session: Session, form: BlindForm) -> list[str]:
    """Texts of candidates."""
    found = []
    if form.run is not None:
        rows = checkpoints.list_checkpoints(session, form.run)
        found = [row.reference for row in rows[:MOST_OFFERED] if row.reference]
    elif form.adapter:
        row = read_weighted(form.adapter)
        adapter = adapters.adapter_by_slug(session, row.slug)
        used = adapters.get_version(session, adapter, row.version)
        others = adapters.list_versions(session, adapter.key)[:MOST_OFFERED]
        found = list(dict.fromkeys(f"{row.slug}@{one.version}" for one in [used, *others]))
    elif form.grid is not None:
        candidates = plan.candidates_of_grid(session, form.grid)
        return list(dict.fromkeys(_text_of(session, one) for one in candidates))
    return [*found, WITHOUT]


def _text_of(session: Session, wanted: CandidateRequest) -> str:
    rows = [
        row_of(adapters.get_adapter(session, one.adapter_id).slug, one) for one in wanted.adapters
    ]
    return PLUS.join(row.weighted for row in rows) or WITHOUT


@dataclass(frozen=True)
class NewBlindPage:
    """The form of a new test; `plan`: what it costs and finds, None where `errors` say why not."""

    form: BlindForm
    options: Sequence[Option]
    plan: BlindPlan | None
    errors: Mapping[str, str]
    prompt_sets: Sequence[tuple[object, str]]
    datasets: Sequence[tuple[object, str]]


@router.get("/blind-tests", Action.LOOK)
def index(
    request: Request, session: Reading, run: OptionalId = None, page: PageNumber = 1
) -> Response:
    """List blind tests, newest first, or those of a run."""
    found = find_page(
        lambda number: service.list_blind_tests(session, run_id=run, number=number), page
    )
    deleted = has_deleted(session, BlindTest)
    return render(request, "blind_tests/list.html", found=found, run=run, has_deleted=deleted)


@router.get("/blind-tests/new", Action.LOOK)
def new(request: Request, session: Reading) -> Response:
    """The form of a new test, with what it costs and finds."""
    form = read_blind_form(request.query_params.multi_items())
    page = _new_page(session, with_usual_choice(session, form))
    return render(request, "blind_tests/new.html", page)


@router.post("/blind-tests/new", Action.DRAW)
def start(request: Request, state: State, sent: SentForm) -> Response:
    """Start a test; its images are drawn in the order in which they are judged."""
    with state.database.read() as session:
        page = _new_page(session, read_blind_form(sent.multi_items()))
    if page.plan is None:
        return render(request, "blind_tests/new.html", page, status=422)
    with state.database.write() as session:
        return _to(service.start(session, page.plan, state.store).key)


@router.post("/blind-tests/play", Action.LOOK)
def from_playground(request: Request, sent: SentForm) -> Response:
    """Go to the form of a new test of the adapters in the playground's form."""
    form = read_form(sent.multi_items())
    stack = PLUS.join(row.weighted for row in form.stack if row.is_on)
    fields = [("candidate", stack or WITHOUT), ("candidate", WITHOUT), ("base", form.base)]
    address = f"/blind-tests/new?{urlencode(fields)}"
    if len(address) > MAX_ADDRESS:
        raise invalid_field("adapter", "These adapters are too many for one candidate. Use fewer.")
    return go_to(request, address)


@router.get("/blind-tests/{test_id}", Action.VOTE)
def show(request: Request, test_id: Id, state: State, pairs: Words = "") -> Response:
    """The next pair of this judge; the result once the test has ended, with `pairs` all of them."""
    with state.database.read() as session:
        test = service.get_blind_test(session, test_id)
        is_open = test.ended_at is None and test.deleted_at is None
    if is_open:
        turn = judging.take_turn(state.database, test_id, judge())
        if turn.state != "ended":
            return render(request, "blind_tests/judge.html", turn=turn)
    with state.database.read() as session:
        view = results.view(session, service.get_blind_test(session, test_id))
    return render(request, "blind_tests/result.html", view=view, is_all=bool(pairs))


@router.post("/blind-tests/{test_id}/votes", Action.VOTE)
def vote(test_id: Id, session: Writing, sent: SentForm) -> Response:
    """Answer the pair that is shown."""
    form = FormReader(sent)
    number, answer = form.whole("number", 0), form.choice("answer", Choice)
    form.check()
    judging.vote(session, test_id, judge(), number, answer)
    return _to(test_id)


@router.post("/blind-tests/{test_id}/undo", Action.VOTE)
def undo(test_id: Id, session: Writing) -> Response:
    """Take the last answer of this judge back."""
    judging.undo(session, test_id, judge())
    return _to(test_id)


@router.post("/blind-tests/{test_id}/end", Action.CONTROL)
def end(test_id: Id, session: Writing) -> Response:
    """End a test with what is judged."""
    service.end(session, test_id)
    return _to(test_id)


@router.post("/blind-tests/{test_id}/continue", Action.CONTROL)
def go_on(test_id: Id, state: State) -> Response:
    """Open a test that has ended."""
    continue_blind_test(test_id, state)
    return _to(test_id)


@router.post("/blind-tests/{test_id}/use", Action.EDIT)
def use(test_id: Id, session: Writing, sent: SentForm) -> Response:
    """Put a candidate into use."""
    form = FormReader(sent)
    number = form.whole("candidate", 0)
    form.check()
    told = service.use_candidate(session, test_id, number)
    return redirect_with_notice(f"/blind-tests/{test_id}", told)


def _to(test_id: int) -> Response:
    return RedirectResponse(f"/blind-tests/{test_id}", status_code=303)


def _new_page(session: Session, form: BlindForm) -> NewBlindPage:
    planned, errors = None, dict[str, str]()
    try:
        planned = plan.plan_blind_test(session, form.wanted(session))
    except InvalidInput as error:
        errors = error.fields or {"candidates": error.detail}
    return NewBlindPage(
        form,
        options_of(session, form),
        planned,
        errors,
        prompt_sets.set_choices(session),
        [(one.id, one.name) for one in dataset_choices(session)],
    )

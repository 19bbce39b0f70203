"""Plans of blind tests: candidates checked, the images that each draws, and what it costs."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints
from sqlmodel import Session

from app.registry import prompt_sets
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.adapters.resolve import resolve
from app.registry.base_models import service as base_models
from app.registry.base_models.service import BaseReference
from app.registry.datasets import service as datasets
from app.registry.datasets.pinned import current_items
from app.registry.datasets.several_captions import item_captions
from app.registry.datasets.used_datasets import version_datasets
from app.registry.errors import AppError, Conflict, InvalidInput, invalid_field
from app.registry.job_kinds.weighted import ResolvedAdapter, WeightedAdapter
from app.registry.renders.grids import service as grids
from app.registry.renders.grids.axes import weight_text
from app.registry.renders.grids.cells import cell_request, read_request, stack_value
from app.registry.renders.grids.plan import GridPlan, plan_axes
from app.registry.renders.plan import base_for, plan_single
from app.registry.renders.recipes import service as recipes
from app.registry.renders.requests import RenderRequest
from app.registry.runs import checkpoints
from app.registry.runs import service as runs
from app.registry.runs.presets import prompt_form_of
from app.registry.slugs import Number, Reference, RowId, id_of
from app.registry.tables.axes import Axis, AxisKind, AxisValue
from app.registry.tables.blind_tests import BlindTest, Question
from app.registry.tables.datasets import Dataset
from app.registry.tables.renders import MAX_TITLE, Recipe, Render
from app.registry.validation import one_line
from app.registry.wording import join_words, plural
from worker.core.documented import DocumentedModel
from worker.core.evaluation import preferences
from worker.core.evaluation.errors import EvaluationError
from worker.core.evaluation.preferences import FEWEST_PROMPTS, MOST_PROMPTS
from worker.core.evaluation.subjects import FEWEST_IMAGES, STEPS, free_subjects, spread
from worker.core.inference.config import MAX_PROMPT_CHARACTERS, AdapterWeight
from worker.core.inference.prompt_syntax import has_syntax
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS, USUAL_WEIGHT
from worker.core.training.presets import PromptForm, usual_form

REFERENCES = 3
MOST_NAMED = 64  # candidates of a request, of which six at most are judged
SPARE_CONTROLS = 2  # for images that could not be drawn
NEXT_ROUND = 1_000  # between the seeds of a prompt
WITHOUT = "Without adapters"
NO_STYLE = (
    "This question needs at least {fewest} images of the style, {controls} of them with a caption; "
    "found: {found}. Choose a dataset, or ask “Which would you keep?”."
)
FEW_PROMPTS = (
    "A blind test needs at least {fewest} different prompts; found: {found}. Name a prompt set "
    "with more subjects."
)


class CandidateRequest(DocumentedModel):
    """A candidate: adapters with their weights, a checkpoint of a run, a recipe, or nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    adapters: list[WeightedAdapter] = Field(default_factory=list, max_length=MAX_RENDER_ADAPTERS)
    """Adapters with their weights; empty and nothing else: without adapters."""
    run_id: RowId | None = Field(None, description="The run that a checkpoint is of.")
    step: Number | None = Field(None, description="The step of the checkpoint.")
    weight: AdapterWeight | None = Field(None, description="Of the checkpoint; absent: as trained.")
    recipe: Reference | None = None
    """Id or slug of a recipe: its adapters and settings, not its prompt."""
    base_model: BaseReference | None = None
    """Absent: that of its adapters, else of the first candidate with some."""


class BlindRequest(DocumentedModel):
    """A blind test to make."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    question: Question
    """`closer`: which is closer to three images of the style; `keep`: which to keep."""
    candidates: list[CandidateRequest] = Field(max_length=MOST_NAMED)
    """Two to six; one without any field is the base model alone."""
    run_id: RowId | None = None
    """The run that it is about; absent: that of the first checkpoint."""
    dataset_id: Reference | None = None
    """Id or slug of a dataset of the style; absent: that of the training."""
    prompt_set: Reference | None = None
    """Id or slug of a prompt set to draw; absent: everyday subjects."""
    grid_id: RowId | None = None
    """A grid whose prompts and seeds are drawn as they are."""
    steps: int = Field(STEPS, ge=1, le=200, description="Denoising steps; recipes have their own.")
    title: Annotated[str, StringConstraints(max_length=MAX_TITLE)] = ""
    """Its title; empty: what it is about."""


@dataclass(frozen=True)
class Candidate:
    """A candidate that was looked up: its request without a prompt, and the words around one."""

    label: str
    request: RenderRequest
    stack: Sequence[ResolvedAdapter]
    made: Sequence[AdapterAndVersion]
    form: PromptForm

    @property
    def stored(self) -> dict[str, Any]:
        """The JSON that the row of the test keeps of it."""
        only = self.stack[0] if len(self.stack) == 1 else None
        named = only.model_dump(include={"adapter_id", "version", "weight"}) if only else {}
        return {"label": self.label} | named


@dataclass(frozen=True)
class BlindPlan:
    """A test that can be started, with its cost; nothing is stored.

    `grids`: the images by the column of `test`, those of the base model for controls first.
    `notes`: sentences on what is unlike.
    """

    test: BlindTest
    statistics: preferences.Plan
    grids: Mapping[str, GridPlan]
    notes: Sequence[str]

    @property
    def images(self) -> int:
        """The number of its images."""
        return sum(grid.images for grid in self.grids.values())

    @property
    def new_images(self) -> int:
        """The number of images to be drawn, if all pairs are judged."""
        return sum(grid.new_images for grid in self.grids.values())

    @property
    def seconds(self) -> float | None:
        """To draw those, about; None while nothing is known of a base model's speed."""
        each = [grid.seconds for grid in self.grids.values()]
        return None if None in each else sum(filter(None, each))


def plan_blind_test(session: Session, wanted: BlindRequest) -> BlindPlan:
    """Check a test and estimate its cost. Raises InvalidInput for the fields of the request."""
    is_closer = wanted.question is Question.CLOSER
    try:
        statistics = preferences.planned(len(wanted.candidates), controls=is_closer)
    except EvaluationError as error:
        raise invalid_field("candidates", str(error)) from error
    candidates = _candidates(session, wanted)
    items = _style_items(session, wanted, candidates)
    scenes = _scenes(session, wanted, items, statistics.scenes)
    statistics = preferences.planned(len(candidates), controls=is_closer, prompts=len(dict(scenes)))
    notes = _compare(session, candidates, scenes)
    test = BlindTest(
        title=(one_line(wanted.title) or _usual_title(candidates))[:MAX_TITLE],
        question=wanted.question.value,
        candidates=[one.stored for one in candidates],
        seed=secrets.randbelow(2**31),
    )
    if wanted.run_id is not None:
        runs.get_run(session, wanted.run_id)
    test.run_id, test.adapter_id = _subject(candidates, wanted.run_id)
    base = base_models.find_base_model(session, candidates[0].request.base_model)
    asked = RenderRequest(prompt="", base_model=base.key, seed=0, steps=wanted.steps)
    planned = {}
    if is_closer:
        controls, others = _split(items, statistics.controls)
        test.references = [item["clean_sha256"] for item in others]
        test.controls = [item["clean_sha256"] for item in controls]
        captions = _captions([item["caption"] for item in controls], candidates)
        alone = _columns("none", [("Base model", None)])
        planned["control_grid_id"] = plan_axes(session, asked, [alone, captions], base)
    columns = _columns(
        ", ".join(map(_text_of, candidates)),
        [(one.label, stack_value(one.request, one.form)) for one in candidates],
    )
    axes = [columns, _rows([(prompt, prompt, seed) for prompt, seed in scenes])]
    planned["grid_id"] = plan_axes(session, asked, axes, base, title=test.title)
    return BlindPlan(test, statistics, planned, notes)


def _split(
    items: Sequence[Mapping[str, Any]], controls: int
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Images for controls, and others to be in view. Raises InvalidInput if there are too few."""
    usable = [item for item in items if _is_plain(item["caption"])]
    if len(items) < FEWEST_IMAGES or len(usable) < controls:
        found = f"{plural(len(items), 'image')} ({len(usable)} with a caption)"
        sentence = NO_STYLE.format(fewest=FEWEST_IMAGES, controls=controls, found=found)
        raise invalid_field("question", sentence)
    chosen = spread(usable, min(controls + SPARE_CONTROLS, len(items) - REFERENCES))
    return chosen, spread([item for item in items if item not in chosen], REFERENCES)


def candidates_of_grid(session: Session, grid_id: int) -> list[CandidateRequest]:
    """The different stacks of a grid's cells, in their order. Raises NotFound."""
    found: list[CandidateRequest] = []
    for cell in cells_of_grid(session, grid_id):
        one = CandidateRequest(adapters=cell.adapters, base_model=cell.base_model)
        found += [one] if one not in found else []
    return found


def cells_of_grid(session: Session, grid_id: int) -> list[RenderRequest]:
    """The requests of all cells of a grid. Raises NotFound."""
    grid = grids.get_grid(session, grid_id)
    request, axes = read_request(grid.request), list(grid.varied)
    return [cell_request(request, axes, place) for place in range(math.prod(grid.sizes))]


def _candidates(session: Session, wanted: BlindRequest) -> list[Candidate]:
    """All candidates, those without adapters on the base model of the first that has some."""
    found = []
    for number, one in enumerate(wanted.candidates, 1):
        try:
            found.append(find_candidate(session, one, wanted.steps))
        except AppError as error:
            raise invalid_field("candidates", f"Candidate {number}: {error.detail}") from error
    usual = next((one.request.base_model for one in found if one.made), None)
    usual = usual or base_models.find_base_model(session, None).key
    bases = [one.request.base_model or usual for one in found]
    names = {key: base_models.find_base_model(session, key).name for key in bases}
    labels = [one.label for one in found]
    if len(set(bases)) > 1:
        labels = [f"{one}, {names[key]}" for one, key in zip(labels, bases, strict=True)]
    return [
        replace(
            one,
            label=label if labels.count(label) == 1 else f"{label} ({number})",
            request=one.request.model_copy(update={"base_model": key}),
            form=("", "") if wanted.grid_id else one.form,  # its prompts have the words
        )
        for number, (label, one, key) in enumerate(zip(labels, found, bases, strict=True), 1)
    ]


def find_candidate(session: Session, wanted: CandidateRequest, steps: int = STEPS) -> Candidate:
    """Look up a candidate. Raises AppError with the reason if there is none."""
    named, label = list(wanted.adapters), ""
    request = RenderRequest(prompt="", steps=steps)
    if wanted.recipe is not None:
        recipe = recipes.get_recipe(session, id_of(session, Recipe, wanted.recipe))
        opened = recipes.open_recipe(session, recipe)
        recipes.require_complete(opened)
        if recipe.source_sha256:
            raise Conflict("It starts from an image, so it cannot draw the prompts of others.")
        request, label = recipes.request_of(opened), recipe.name
        named = [*request.adapters, *named]
    if wanted.run_id is not None:
        address = checkpoints.address_of(session, wanted.run_id)
        if address is None or wanted.step is None:
            raise Conflict("Name a run that has checkpoints, and the step of one.")
        weight = USUAL_WEIGHT if wanted.weight is None else wanted.weight
        named = [
            WeightedAdapter(adapter_id=address.key, version=wanted.step, weight=weight),
            *named,
        ]
    found = [resolve(session, one) for one in named]
    stack, made = [used for used, _ in found], [pair for _, pair in found]
    base = wanted.base_model or request.base_model
    key = base_for(session, base, made).key if base or made else None
    fixed = {"base_model": key, "adapters": [used.named for used in stack], "prompt": ""}
    label = label or " + ".join(_name_of(*each) for each in found) or WITHOUT
    request = request.model_copy(update=fixed)
    return Candidate(label, request, stack, made, _form(session, found))


def _name_of(used: ResolvedAdapter, made: AdapterAndVersion) -> str:
    """An adapter as people name it: “Step 300”, “Chalk, version 2 at 0.80”."""
    adapter, _ = made
    label = adapter.version_label(used.version)
    name = f"{adapter.name}, {label}" if adapter.is_listed else label.capitalize()
    return name if used.weight == USUAL_WEIGHT else f"{name} at {weight_text(used.weight)}"


def _form(
    session: Session, found: Sequence[tuple[ResolvedAdapter, AdapterAndVersion]]
) -> PromptForm:
    """What stands before and after a subject: the trigger words of all adapters that are on."""
    before, after = "", ""
    for used, (adapter, version) in found:
        word = next(iter(version.trigger_words or adapter.trigger_words), None)
        if word is None or used.is_off:
            continue
        own = next((one.dataset.key for one in version_datasets(session, version)), None)
        form = usual_form(word) if before or after else prompt_form_of(session, own, word)
        before, after = form[0] + before, after + form[1]
    return before, after


def _text_of(candidate: Candidate) -> str:
    """A candidate as the axis of a grid names it."""
    named = (f"{used.slug}@{used.version}:{used.weight:g}" for used in candidate.stack)
    return " + ".join(named) or "none"


def _subject(candidates: Sequence[Candidate], run_id: int | None) -> tuple[int | None, int | None]:
    """The run that is asked about, else that of the first adapter, or that adapter."""
    adapter = next((adapter for one in candidates for adapter, _ in one.made), None)
    if run_id is None and adapter is not None:
        return (None, adapter.key) if adapter.is_listed else (adapter.run_id, None)
    return run_id, None


def _usual_title(candidates: Sequence[Candidate]) -> str:
    """What it asks about, without the name of a candidate."""
    names = {adapter.name for one in candidates for adapter, _ in one.made}
    return f"Blind test of {names.pop()}" if len(names) == 1 else "Blind test"


def _style_items(
    session: Session, wanted: BlindRequest, candidates: Sequence[Candidate]
) -> Sequence[Mapping[str, Any]]:
    """Images with captions of the named dataset, else those that a candidate was trained on."""
    if wanted.dataset_id is not None:
        key = id_of(session, Dataset, wanted.dataset_id)
        try:
            return current_items(session, datasets.get_dataset(session, key).key)
        except AppError as error:
            raise invalid_field("dataset_id", error.detail) from error
    for one in candidates:
        for _, version in one.made:
            items = [
                item for each in version_datasets(session, version) for item in each.pinned.items
            ]
            if items:
                return items
    return []


def _is_plain(caption: str) -> bool:
    """True if a prompt reads it as it is."""
    return 0 < len(caption) <= MAX_PROMPT_CHARACTERS and not has_syntax(caption)


def _scenes(
    session: Session, wanted: BlindRequest, items: Sequence[Mapping[str, Any]], most: int
) -> list[tuple[str, int]]:
    """Prompts with a seed: all prompts once, then again with other seeds. Raises InvalidInput."""
    name, seeds = "prompt_set", list[int]()
    if wanted.prompt_set is not None:
        _, prompts = prompt_sets.find_version(session, wanted.prompt_set)
    elif wanted.grid_id is not None:
        name = "grid_id"
        cells = cells_of_grid(session, wanted.grid_id)
        prompts, seeds = [one.prompt for one in cells], [one.seed or 0 for one in cells]
    else:
        texts = [text for item in items for text in item_captions(dict(item))]
        prompts = free_subjects(texts)[:MOST_PROMPTS]
    prompts = list(dict.fromkeys(filter(None, map(one_line, prompts))))
    if len(prompts) < FEWEST_PROMPTS:
        raise invalid_field(name, FEW_PROMPTS.format(fewest=FEWEST_PROMPTS, found=len(prompts)))
    more = [turn * NEXT_ROUND for turn in range(-(-most // len(prompts)))]
    if seeds:  # those of the grid first
        starts = dict.fromkeys([*seeds, *(max(seeds) + turn for turn in more[1:])])
        return [(prompt, seed) for seed in starts for prompt in prompts][:most]
    return [(prompt, turn + place) for turn in more for place, prompt in enumerate(prompts)][:most]


def _columns(text: str, named: Sequence[tuple[str, Any]]) -> Axis:
    values = [AxisValue(label=label, value=value) for label, value in named]
    return Axis(kind=AxisKind.ADAPTER, text=text, values=values)


def _rows(scenes: Sequence[tuple[str, str, int]]) -> Axis:
    """Rows with a label, a prompt and a seed each."""
    values = [
        AxisValue(label=label, value={"prompt": prompt, "seed": seed})
        for label, prompt, seed in scenes
    ]
    text = "\n".join(dict.fromkeys(prompt for _, prompt, _ in scenes))
    return Axis(kind=AxisKind.PROMPT, text=text, values=values)


def _captions(captions: Sequence[str], candidates: Sequence[Candidate]) -> Axis:
    """The rows of the base model, labeled without the words that candidates put around subjects."""
    forms = dict.fromkeys(one.form for one in candidates)
    labels = list(captions)
    for before, after in forms:
        labels = [label.removeprefix(before).removesuffix(after) for label in labels]
    return _rows([(labels[seed], caption, seed) for seed, caption in enumerate(captions)])


def _compare(
    session: Session, candidates: Sequence[Candidate], scenes: Sequence[tuple[str, int]]
) -> list[str]:
    """Sentences on settings that are unlike. Raises InvalidInput for equal candidates."""
    (prompt, seed), first = scenes[0], list[Render]()
    for one in candidates:
        before, after = one.form
        update = {"prompt": f"{before}{prompt}{after}", "seed": seed}
        try:
            row = plan_single(session, one.request.model_copy(update=update))
        except InvalidInput as error:
            raise invalid_field("candidates", f"“{one.label}”: {error.detail}") from error
        equal = next((k for k, other in enumerate(first) if other.cache_key == row.cache_key), None)
        if equal is not None:
            raise invalid_field(
                "candidates",
                f"“{candidates[equal].label}” and “{one.label}” draw the same images, so nobody "
                "can tell them apart. Leave one of them out.",
            )
        first.append(row)
    words = [
        f"{base_models.base_of(session, row.base_model_id).name}, {row.width} × "
        f"{row.height}, {row.steps} steps, guidance {row.guidance:g}"
        for row in first
    ]
    if len(set(words)) == 1:
        return []
    named = zip(candidates, words, strict=True)
    own = join_words(f"“{each.label}” by {text}" for each, text in named)
    return [f"Each candidate is drawn at its own usual settings: {own}."]

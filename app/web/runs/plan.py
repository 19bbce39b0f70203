"""Preview of a run before it is started: settings, time and size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from app.registry.base_models import service as base_models
from app.registry.datasets import service as datasets
from app.registry.datasets.figures import DatasetChoice, dataset_choices
from app.registry.datasets.service import DatasetSummary
from app.registry.datasets.used_datasets import used_datasets
from app.registry.db import Session
from app.registry.errors import AppError, InvalidInput, NotFound
from app.registry.runs import dry_runs, requests, service
from app.registry.runs.dry_runs import DryRun
from app.registry.runs.needs import Estimate, TrainingNeeds, estimate, training_needs
from app.registry.runs.own_presets import list_presets
from app.registry.runs.presets import (
    PRESET_WORDS,
    asks_for_evaluation,
    misfit,
    prompt_form_of,
    shipped_preset,
    with_changes,
)
from app.registry.runs.service import active_runs, is_machine_busy
from app.registry.runs.several_datasets import MAX_DATASETS, trigger_word_problem
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.runs import OwnPreset, Run
from app.registry.wording import about, plural
from app.web.datasets.check_view import AskedSide, ChecksPanel, checks_panel
from app.web.form_reader import as_id
from app.web.runs.form_datasets import DatasetRow, FormDataset, dataset_rows
from app.web.runs.forms import OWN_PRESET, TrainForm, to_text, to_texts
from app.web.runs.plan_warnings import PlanWarning, plan_warnings
from worker.core.families.facts.family_facts import FamilyOptions
from worker.core.families.family import FALLBACK_FAMILY, find_family
from worker.core.training.config import BaseWeights, TrainConfig
from worker.core.training.data.epochs import held_out_count
from worker.core.training.presets import Preset, PromptForm, for_optimizer, preset_config


@dataclass(frozen=True)
class PresetCard:
    """A preset with its estimated time on this machine."""

    value: str
    title: str
    hint: str
    seconds: float | None
    chosen: bool


@dataclass(frozen=True)
class RunPlan:
    """Preview of a run with these settings."""

    config: TrainConfig
    images: int
    rows: list[DatasetRow]
    estimate: Estimate
    dry_run: DryRun
    needs: TrainingNeeds | None
    base_parameters: int | None
    base_bytes: int | None
    runs_ahead: int
    ahead_seconds: float | None
    is_machine_busy: bool
    is_checking: bool
    warnings: list[PlanWarning]
    checks: list[ChecksPanel]
    errors: Mapping[str, str]

    @property
    def is_measuring(self) -> bool:
        """True until this machine's speed with this base model is known."""
        return self.estimate.seconds is None and not self.errors

    @property
    def summary(self) -> str:
        """The steps and the time as a sentence, for a screen reader."""
        time = f", {about(self.estimate.seconds)}" if self.estimate.seconds else ""
        return f"{plural(self.config.steps, 'step')}{time}."

    @property
    def held_out(self) -> int:
        """Number of images that are held out."""
        return held_out_count(self.config.validation_share, self.images) if self.images else 0

    @property
    def seen(self) -> float | None:
        """Number of times each image is trained on; None without images, or with repeats."""
        trained = self.images - self.held_out
        if trained < 1 or len(self.rows) > 1:
            return None
        return self.config.steps * self.config.images_per_step / trained

    @property
    def seen_by_dataset(self) -> list[tuple[str, float]]:
        """Number of times each image of a dataset is trained on, by name, of several datasets."""
        uses = sum(row.image_count * row.uses for row in self.rows)
        if not uses or len(self.rows) < 2:
            return []
        epochs = self.config.steps * self.config.images_per_step / uses
        return [
            (row.summary.dataset.name, epochs * row.uses)
            for row in self.rows
            if row.summary is not None and row.image_count
        ]


@dataclass(frozen=True)
class RunChoices:
    """The datasets and base models to choose from, and the chosen ones.

    `dataset`: the first of the `rows`; `trigger_word`: that of the run, empty for none; `preset`:
    the shipped one, which `own_preset` changes; `optimizer`: that of the form, None for the
    preset's; `evaluate`: whether the form asks for an evaluation.
    """

    datasets: list[DatasetChoice]
    bases: list[BaseModel]
    dataset: DatasetSummary | None
    rows: list[DatasetRow]
    trigger_word: str
    base: BaseModel | None
    preset: Preset
    own_presets: list[OwnPreset]
    own_preset: OwnPreset | None
    optimizer: str | None
    evaluate: bool
    prompt_form: PromptForm = ("", "")

    @cached_property
    def dataset_options(self) -> list[tuple[int | str, str]]:
        """All datasets, for a select."""
        return [
            (one.id, f"{one.name} · {plural(one.image_count, 'image')}") for one in self.datasets
        ]

    @cached_property
    def shipped(self) -> dict[Preset, TrainConfig]:
        """The config of each shipped preset for these datasets, base model and trigger word."""
        return {
            preset: preset_config(
                preset,
                resolution=(self.base.resolution if self.base else None) or 512,
                images=self.image_count,
                family=find_family(self.base.family if self.base else None),
                prompt_form=self.prompt_form,
                evaluate=self.evaluate,
            )
            for preset in Preset
        }

    @cached_property
    def default(self) -> TrainConfig:
        """The chosen preset, shipped or saved, with what the optimizer of the form needs."""
        return self._preset_config(self.optimizer)

    @cached_property
    def default_texts(self) -> dict[str, str]:
        """The values of `default` as text, without those that mean nothing for the base model;
        optimizer and evaluation stay those of the preset."""
        texts = to_texts(self.default) | {
            "optimizer": self._preset_config(None).optimizer.value,
            "evaluate": to_text(asks_for_evaluation(self._own_changes)),
        }
        return {name: text for name, text in texts.items() if name not in self.options.hidden}

    @property
    def options(self) -> FamilyOptions:
        """The settings that the base model has; of an unknown one those of the usual family."""
        family = find_family(self.base.family if self.base else None) or FALLBACK_FAMILY
        return family.facts.options

    @property
    def _own_changes(self) -> Mapping[str, Any]:
        return self.own_preset.config if self.own_preset else {}

    def _preset_config(self, optimizer: str | None) -> TrainConfig:
        family = self.base.family if self.base else None
        return with_changes(self.shipped[self.preset], self._own_changes, optimizer, family=family)

    @property
    def image_count(self) -> int:
        """Number of images of all chosen datasets that are trained on."""
        return sum(row.image_count for row in self.rows)

    @property
    def can_add(self) -> bool:
        """True if the run can have another dataset."""
        return len(self.rows) < min(MAX_DATASETS, len(self.datasets))

    @property
    def valid_trigger(self) -> str:
        """The trigger word, or that of the first dataset where what was typed is refused."""
        is_refused = bool(trigger_word_problem(self.trigger_word))
        return self.usual_trigger if is_refused else self.trigger_word

    @property
    def usual_trigger(self) -> str:
        """The trigger word of the first dataset; empty without one."""
        return (self.dataset.dataset.trigger_word if self.dataset else None) or ""


def find_choices(session: Session, form: TrainForm) -> RunChoices:
    """The datasets and base models to choose from; deleted ones are not chosen."""
    shown = dataset_choices(session)
    here = {row.id for row in shown}
    asked = [form.dataset_id, *(as_id(row.dataset) for row in form.further)]
    found = [datasets.get_dataset(session, key) if key in here else None for key in asked]
    rows = [row for row in found if row is not None]
    summaries = {one.dataset.key: one for one in datasets.summarize(session, rows)}
    chosen = [summaries[row.key] if row is not None else None for row in found]
    first = chosen[0]
    bases = base_models.list_base_models(session)
    base = next((row for row in bases if form.base in (row.slug, str(row.key))), None)
    own_presets = list_presets(session)
    own = next((row for row in own_presets if row.id == form.own_preset), None)
    choices = RunChoices(
        datasets=shown,
        bases=bases,
        dataset=first,
        rows=dataset_rows(first, form.repeats, form.further, chosen[1:]),
        trigger_word=form.trigger(first.dataset.trigger_word if first else None),
        base=base,
        preset=Preset(own.preset) if own else form.preset,
        own_presets=own_presets,
        own_preset=own,
        optimizer=form.values.get("optimizer"),
        evaluate=asks_for_evaluation(form.asked_evaluation, own.config if own else {}),
    )
    key = first.dataset.key if first else None
    return replace(choices, prompt_form=prompt_form_of(session, key, choices.valid_trigger))


def make_plan(session: Session, form: TrainForm, choices: RunChoices) -> RunPlan:
    """Preview of the run; invalid settings are replaced by the preset's and listed in `errors`."""
    config, errors = _check_form(form, choices)
    usual = for_optimizer(choices.shipped[choices.preset], config.optimizer)
    base = choices.base
    ahead = active_runs(session, limit=1)
    keys = {row.summary.dataset.key for row in choices.rows if row.summary}
    needs = training_needs(session, base, config, keys)
    return RunPlan(
        config=config,
        images=choices.image_count,
        rows=choices.rows,
        estimate=estimate(session, base, config),
        dry_run=dry_runs.find_dry_run(session, base.key, config) if base else DryRun(),
        needs=needs,
        base_parameters=base.tunable_parameters if base else None,
        base_bytes=base.size_bytes if base else None,
        runs_ahead=ahead.total,
        ahead_seconds=service.eta_seconds(ahead.shown[0]) if ahead.total == 1 else None,
        is_machine_busy=is_machine_busy(session),
        warnings=_base_warnings(base)
        + _preset_warnings(choices)
        + _memory_warnings(needs)
        + plan_warnings(session, choices.rows, base, config, choices.valid_trigger, usual=usual),
        checks=_checks(session, choices, config),
        is_checking=base is not None and base.status == ModelStatus.CHECKING,
        errors=errors,
    )


def _checks(session: Session, choices: RunChoices, config: TrainConfig) -> list[ChecksPanel]:
    """The findings of each chosen dataset that has images, for this base model and size."""
    found = {row.summary.dataset.key: row.summary for row in choices.rows if row.summary}
    asked = AskedSide(choices.base.slug if choices.base else "", config.resolution)
    return [checks_panel(session, one, asked) for one in found.values() if one.image_count]


def _preset_warnings(choices: RunChoices) -> list[PlanWarning]:
    """That a saved preset was saved for another kind of base model."""
    if choices.own_preset is None or choices.base is None:
        return []
    note = misfit(choices.own_preset.snapshot, choices.base)
    return [PlanWarning(note, "/train/presets", "See your presets")] if note else []


def _base_warnings(base: BaseModel | None) -> list[PlanWarning]:
    """That nothing can be trained on the base model."""
    return [PlanWarning(base.untrained)] if base and base.untrained else []


def _memory_warnings(needs: TrainingNeeds | None) -> list[PlanWarning]:
    """That the run does not fit the GPU of the worker."""
    if needs is None or not needs.problem:
        return []
    place = "resolution" if needs.weights is BaseWeights.INT8 else "base_weights"
    title = TrainConfig.model_fields[place].title
    return [PlanWarning(needs.problem, f"#{place}", f"Go to “{title}”")]


def form_errors(session: Session, form: TrainForm) -> dict[str, str]:
    """A reason for each field with which the run would not start; empty when it would."""
    try:
        requests.check_request(session, form.request())
    except AppError as error:
        return error.fields
    return {}


def preset_cards(session: Session, form: TrainForm, choices: RunChoices) -> list[PresetCard]:
    """The presets with their estimated time, the shipped ones first."""
    cards = []
    for preset, (title, hint) in PRESET_WORDS.items():
        seconds = estimate(session, choices.base, choices.shipped[preset]).seconds
        chosen = form.preset is preset and form.own_preset is None
        cards.append(PresetCard(preset.value, title, hint, seconds, chosen))
    for own in choices.own_presets:
        preset = Preset(own.preset)
        family = choices.base.family if choices.base else None
        config = with_changes(choices.shipped[preset], own.config, family=family)
        seconds = estimate(session, choices.base, config).seconds
        hint = f"{PRESET_WORDS[preset][0]} with {plural(len(own.config), 'change')}."
        value, chosen = f"{OWN_PRESET}{own.key}", form.own_preset == own.id
        cards.append(PresetCard(value, own.name, hint, seconds, chosen))
    return cards


def base_seconds(session: Session, choices: RunChoices) -> dict[int, float | None]:
    """The estimated time of the chosen preset on each base model that is ready, by its id."""
    found = {}
    for base in choices.bases:
        if base.status == ModelStatus.READY:
            its = choices if base is choices.base else replace(choices, base=base)
            found[base.key] = estimate(session, base, its.default).seconds
    return found


def first_form(
    session: Session,
    *,
    dataset: str,
    base: str,
    preset: Preset | None,
    own_preset: int | None = None,
    from_run: int | None,
    checkpoint: int | None = None,
    adapter: int | None = None,
) -> TrainForm:
    """The initial form, filled from the URL, an earlier run and the preset.

    With a `checkpoint` of that run, training continues from there for the same number of steps.
    The result becomes the next version of `adapter`, unless the person chooses otherwise.
    """
    form = _form_of_run(session, from_run) if from_run else TrainForm()
    if from_run and form.values and checkpoint is not None:
        steps = str(checkpoint + int(form.values["steps"]))
        form = replace(
            form,
            values={**form.values, "steps": steps},
            continue_run=str(from_run),
            continue_step=str(checkpoint),
        )
    shown = dataset_choices(session)
    named = next((row for row in shown if dataset in (row.slug, str(row.id))), None)
    if named is None and not form.dataset:
        named = next((row for row in shown if row.image_count), None)
    bases = base_models.list_base_models(session)
    first = next((row for row in bases if row.status == ModelStatus.READY), None)
    return replace(
        form,
        name=form.name or (named.name if named else ""),
        dataset=str(named.id) if named else form.dataset,
        base=base or form.base or (first or bases[0]).slug if bases else "",
        preset=preset or form.preset,
        for_adapter=str(adapter or ""),
        own_preset=own_preset if preset else form.own_preset,
    )


def _form_of_run(session: Session, run_id: int) -> TrainForm:
    try:
        run = service.get_run(session, run_id)
    except NotFound:
        return TrainForm()
    own = (run.own_preset or {}).get("id")
    first, *further = used_datasets(session, run)
    usual = datasets.trigger_word_of(session, first.id)
    return TrainForm(
        name=run.name,
        dataset=str(run.dataset_id),
        base=_slug_of_base(session, run),
        preset=shipped_preset(run.preset),
        own_preset=own if any(row.id == own for row in list_presets(session)) else None,
        values=to_texts(TrainConfig.model_validate(run.config)),
        repeats=str(first.repeats),
        further=tuple(FormDataset(str(one.id), str(one.repeats)) for one in further),
        trigger_word=run.trigger_word or "",
        shown_trigger=usual,
    )


def _slug_of_base(session: Session, run: Run) -> str:
    """The base model of a run; empty, for the first one, if it is retired."""
    base = base_models.base_of(session, run.base_model_id)
    return "" if base.is_retired else base.slug


def _check_form(form: TrainForm, choices: RunChoices) -> tuple[TrainConfig, dict[str, str]]:
    values, typed = choices.default.model_dump(mode="json"), form.typed
    family = choices.base.family if choices.base else None
    try:
        return requests.check_config(values | typed, family=family), {}
    except InvalidInput as error:
        sound = {name: value for name, value in typed.items() if name not in error.fields}
        try:
            return requests.check_config(values | sound, family=family), error.fields
        except InvalidInput:
            return choices.default, error.fields

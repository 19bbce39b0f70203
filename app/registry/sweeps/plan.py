"""Plans of sweeps: every configuration checked, the cost estimated, nothing stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from sqlmodel import Session

from app.registry import evaluations
from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.datasets import pinned
from app.registry.datasets.several_captions import item_captions
from app.registry.errors import InvalidInput
from app.registry.runs.needs import Estimate, estimate
from app.registry.runs.presets import prompt_form_of
from app.registry.runs.requests import CheckedRequest, RunRequest, check_request
from app.registry.runs.settings import setting_label, value_words
from app.registry.sweeps.records import Configuration, Cost, SweepPlan
from app.registry.tables.added_models import BaseModel
from app.registry.validation import MAX_NAME, Reasons, one_line, too_long
from app.registry.wording import capitalized, duration, join_words, plural, size_text
from worker.core.evaluation.intervals import FEWEST
from worker.core.evaluation.recipes import Recipe, better_half
from worker.core.evaluation.subjects import FEWEST_IMAGES, free_subjects
from worker.core.training.config import MAX_SEED, TrainConfig
from worker.core.training.presets import prompts_of

MOST_RUNS = 64
MOST_SEEDS = 16
SUBJECTS = 16  # of the prompts that rank, and as many that confirm
CHARACTERS_NAMED = 60
STATE = 3  # times the adapter: itself and two moments of its optimizer
PIXEL_BYTES = 2  # of a stored image with its thumbnails, about

OTHER_IMAGES = "it decides which images are held out, so the configurations would differ in them."
OTHER_SIZE = "the configurations would learn from other images than those they are measured by."
OTHER_BASE = "it belongs to the base model, and decides how its images are drawn."
OTHER_LENGTH = "each run would end at a step of its own."
NO_EFFECT = "it changes nothing in the result. Set it for all runs."
OTHER_RUN = "it would be another training. Start a sweep for each."
INCOMPARABLE = {
    "seed": "seeds have an axis of their own: every configuration is trained with each.",
    "validation_seed": OTHER_IMAGES,
    "validation_share": OTHER_IMAGES,
    "resolution": OTHER_SIZE,
    "clip_skip": OTHER_BASE,
    "prediction_type": OTHER_BASE,
    "zero_terminal_snr": OTHER_BASE,
    "patience": OTHER_LENGTH,
    **dict.fromkeys(("checkpoint_every", "keep_checkpoints", "keep_adapters"), NO_EFFECT),
    **dict.fromkeys(("evaluate", "compile", "gradient_checkpointing"), NO_EFFECT),
    **dict.fromkeys((n for n in TrainConfig.model_fields if n.startswith("sample_")), NO_EFFECT),
    **dict.fromkeys(("base_model", "dataset_id", "datasets", "trigger_word"), OTHER_RUN),
    **dict.fromkeys(("preset", "prompt_set", "regularization_dataset_id"), OTHER_RUN),
}
"""What cannot differ between the configurations of a sweep, and why."""


@dataclass(frozen=True)
class SweepRequest:
    """A sweep to start: the training that all share, what differs, and the training seeds.

    `axes`: the values of each setting, all combined; or `configurations`, as a list. `subjects`:
    of the prompts that rank.
    """

    run: RunRequest
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    configurations: Sequence[Mapping[str, Any]] = ()
    seeds: Sequence[int] = (0, 1, 2)
    title: str = ""
    subjects: int = SUBJECTS


@dataclass(frozen=True)
class PlannedSweep:
    """A sweep that can be started: the request of each run by place and seed."""

    title: str
    plan: SweepPlan
    runs: Mapping[tuple[int, int], RunRequest]


def plan_sweep(session: Session, wanted: SweepRequest) -> PlannedSweep:
    """Check a sweep and estimate its cost.

    Raises InvalidInput with a reason for each wrong field: those of the training, `axes`,
    `configurations`, `seeds`, `title`, and settings that differ.
    """
    problems = Reasons()
    seeds = _checked_seeds(wanted.seeds, problems)
    title = one_line(wanted.title)
    if len(title) > MAX_NAME:
        problems.fields["title"] = too_long(title, MAX_NAME)
    if wanted.run.continues is not None:
        problems.fields["continues"] = "A sweep trains from the beginning: leave it out."
    count = _count(wanted, problems)
    problems.check()
    shared = check_request(session, wanted.run)
    if count * len(seeds) > MOST_RUNS:
        raise _too_many(session, shared, count, len(seeds))
    base_request = _shared_request(wanted.run, shared)
    checked = _check_each(session, base_request, wanted, problems)
    problems.check()
    _refuse_equal(checked, problems)
    prompts = _prompts(session, shared, wanted.subjects, problems)
    problems.check()
    configs = [one.config for _, one in checked]
    cost = _cost(session, shared.base, configs, len(seeds), len(prompts["prompts"]))
    plan = SweepPlan(
        name=shared.name,
        configurations=tuple(one for one, _ in checked),
        seeds=seeds,
        halves=halves(configs),
        cost=cost,
        **prompts,
    )
    runs = {
        (place, seed): with_settings(base_request, seed=seed, **one.settings)
        for seed in seeds
        for place, (one, _) in enumerate(checked)
    }
    differ = dict.fromkeys(name for one, _ in checked for name in one.settings)
    words = join_words(setting_label(name).lower() for name in differ)
    title = title or f"{capitalized(words)} of {shared.name}"[:MAX_NAME]
    return PlannedSweep(title, plan, runs)


def with_settings(request: RunRequest, **settings: Any) -> RunRequest:
    """The request with these settings."""
    return replace(request, config={**(request.config or {}), **settings})


def halves(configs: Sequence[TrainConfig]) -> bool:
    """True if half of the configurations end at half of their steps."""
    return len(configs) > 2 and all(config.steps > 1 for config in configs)


def _checked_seeds(seeds: Sequence[int], problems: Reasons) -> tuple[int, ...]:
    known = tuple(dict.fromkeys(seeds[: MOST_SEEDS + 1]))
    if not 2 <= len(seeds) <= MOST_SEEDS or len(known) < len(seeds):
        problems.fields["seeds"] = (
            f"Use 2 to {MOST_SEEDS} different seeds: with one, a difference between configurations "
            "cannot be told from what another seed changes."
        )
    elif not all(0 <= seed <= MAX_SEED for seed in known):
        problems.fields["seeds"] = f"Seeds are whole numbers from 0 to {MAX_SEED:,}."
    return known


def _count(wanted: SweepRequest, problems: Reasons) -> int:
    """The number of configurations."""
    if bool(wanted.axes) == bool(wanted.configurations):
        problems.fields["axes"] = "Give either axes or configurations: what is to differ."
        return 0
    named = dict.fromkeys(wanted.axes or (name for one in wanted.configurations for name in one))
    for name in named:
        if why := INCOMPARABLE.get(name):
            problems.fields[name] = f"{setting_label(name)} cannot differ in a sweep: {why}"
        elif name not in TrainConfig.model_fields:
            short = name[:CHARACTERS_NAMED]
            problems.fields[short] = f"There is no setting called “{short}”."
    for name, values in wanted.axes.items():
        if not values:
            problems.fields[name] = "This axis has no values. Give at least one, or leave it out."
    count = math.prod(map(len, wanted.axes.values())) if wanted.axes else 0
    count = count or len(wanted.configurations)
    if count == 1:
        problems.fields["configurations"] = (
            "This is one configuration. A sweep compares at least two: add a value, or start a run."
        )
    return count


def _settings(wanted: SweepRequest) -> Iterator[Mapping[str, Any]]:
    if wanted.configurations:
        yield from wanted.configurations
        return
    for values in product(*wanted.axes.values()):
        yield dict(zip(wanted.axes, values, strict=True))


def _shared_request(request: RunRequest, checked: CheckedRequest) -> RunRequest:
    """The request with what a sweep sets for all: the split, and no end or result of their own."""
    config = checked.config
    return with_settings(
        replace(request, name=checked.name),
        validation_share=config.validation_share,
        validation_seed=config.measuring_seed,
        evaluate=False,
        patience=0,
        keep_checkpoints=1,
        keep_adapters=2,
    )


def _check_each(
    session: Session, request: RunRequest, wanted: SweepRequest, problems: Reasons
) -> list[tuple[Configuration, CheckedRequest]]:
    found = []
    for settings in _settings(wanted):
        try:
            checked = check_request(session, with_settings(request, **settings))
        except InvalidInput as error:
            for name, reason in error.fields.items():
                value = f"{settings[name]!r}"[:CHARACTERS_NAMED] if name in settings else ""
                problems.fields.setdefault(name, f"{value}: {reason}" if value else reason)
            continue
        words = [
            f"{setting_label(name).lower()} {value_words(name, getattr(checked.config, name))}"
            for name in settings
        ]
        values = checked.config.model_dump(mode="json", include=set(settings))
        found.append((Configuration(name=", ".join(words), settings=values), checked))
    return found


def _refuse_equal(
    checked: Sequence[tuple[Configuration, CheckedRequest]], problems: Reasons
) -> None:
    seen: dict[str, int] = {}
    for number, (one, request) in enumerate(checked, start=1):
        first = seen.setdefault(request.config.model_dump_json(), number)
        if first != number:
            problems.fields["configurations"] = (
                f"Configurations {first} and {number} are equal ({one.name}). Take one out."
            )


def _prompts(
    session: Session, shared: CheckedRequest, count: int, problems: Reasons
) -> dict[str, tuple[str, ...]]:
    """The prompts that rank and those that confirm, with their subjects, which no caption names."""
    images = sum(one.summary.trained_count for one in shared.datasets)
    if images < FEWEST_IMAGES:
        problems.fields["dataset_id"] = (
            f"A sweep ranks by style, which takes at least {FEWEST_IMAGES} images; these are "
            f"{images}."
        )
    first = shared.datasets[0].summary.dataset
    captions = [
        text
        for one in shared.datasets
        for item in pinned.current_items(session, one.summary.dataset.key)
        for text in item_captions(item)
    ]
    free = free_subjects(captions)
    count = min(count, len(free) // 2)
    if count < FEWEST:
        problems.fields["subjects"] = (
            f"The captions leave {len(free)} subjects to draw that they do not name; a sweep takes "
            f"at least {2 * FEWEST}."
        )
    form = prompt_form_of(session, first.key, shared.trigger_word)
    ranking, confirming = free[:count], free[count : 2 * count]
    return {
        "subjects": tuple(ranking),
        "prompts": tuple(prompts_of(ranking, form)),
        "confirm_subjects": tuple(confirming),
        "confirm_prompts": tuple(prompts_of(confirming, form)),
    }


def _cost(
    session: Session, base: BaseModel, configs: Sequence[TrainConfig], seeds: int, prompts: int
) -> Cost:
    """The cost of a sweep whose dearest configurations go on, with its confirmation."""
    each = [estimate(session, base, config) for config in configs]
    count = len(configs)
    kept = count
    if halves(configs):
        kept = len(better_half([Recipe(str(place), {0: 0.0}) for place in range(count)]))
    stages = (count if kept < count else 0) + kept  # in which a configuration is drawn
    images = prompts * (1 + stages * seeds + 3)
    seconds = size_bytes = None
    times = sorted((one.seconds for one in each if one.seconds is not None), reverse=True)
    if len(times) == count:
        early = sum(times[kept:]) / 2
        seconds = seeds * (sum(times[:kept]) + early) + 2 * times[0]
        seconds += images * (evaluations.image_seconds(session, base) or 0.0)
    sizes = [size for one in each if (size := _run_bytes(one)) is not None]
    if len(sizes) == count:
        side = base.resolution or USUAL_SIDE
        size_bytes = seeds * sum(sizes) + 2 * max(sizes) + images * side * side * PIXEL_BYTES
    return Cost(runs=count * seeds, images=images, seconds=seconds, size_bytes=size_bytes)


def _run_bytes(one: Estimate) -> int | None:
    """Of a run: two adapters and a training state, in fp32."""
    parameters = one.trainable_parameters
    return None if parameters is None else 4 * parameters * (2 + STATE)


def _too_many(session: Session, shared: CheckedRequest, count: int, seeds: int) -> InvalidInput:
    """The error of a sweep of too many runs, with what they would cost."""
    one, runs = estimate(session, shared.base, shared.config), count * seeds
    parts = [duration(one.seconds * runs)] if one.seconds is not None else []
    size = _run_bytes(one)
    parts += [size_text(size * runs)] if size is not None else []
    cost = f", about {' and '.join(parts)}" if parts else ""
    sentence = (
        f"{plural(count, 'configuration')} with {seeds} seeds are {runs:,} runs{cost}; a sweep has "
        f"at most {MOST_RUNS}. Use fewer values or seeds."
    )
    return InvalidInput(sentence, fields={"configurations": sentence})

"""How a sweep goes on: a look after each of its runs has ended, and once images were measured.

A look decides from what is stored, so it may come twice or late: nothing is lost with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from sqlmodel import Session

from app.registry import evaluations
from app.registry.base_models import service as base_models
from app.registry.db import database_now
from app.registry.errors import AppError
from app.registry.evaluations import EvaluationDraft, EvaluationPlan
from app.registry.job_kinds.kinds import AdvanceSweepArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.runs import checkpoints
from app.registry.storage.store import BlobStore
from app.registry.sweeps.records import (
    Confirmation,
    Cost,
    Found,
    Score,
    SweepPlan,
    SweepResult,
    read_plan,
    read_result,
)
from app.registry.sweeps.service import (
    get_sweep,
    measuring,
    next_seeds,
    repeat_run,
    runs_of,
    save_result,
)
from app.registry.tables.runs import RUINED, Run, Stage, Sweep
from app.registry.wording import capitalized, join_words, plural, shortened
from worker.core.evaluation.intervals import mean_interval
from worker.core.evaluation.recipes import SEEN, Comparison, Recipe, better_half, compare
from worker.core.training.errors import DivergedError

CONFIRM_SEED = 1_000  # of the first image that confirms: no image that ranks has it
ERRORS_SHOWN = 120  # characters


class _Look:
    """A look at one sweep, in a transaction that holds its row."""

    def __init__(self, session: Session, sweep: Sweep) -> None:
        self.session = session
        self.sweep = sweep
        self.plan: SweepPlan = read_plan(sweep)
        self.result: SweepResult = read_result(sweep)
        self.stage = Stage(sweep.stage)
        self.runs = runs_of(session, sweep)

    def go_on(self) -> EvaluationDraft | None:
        """The images to draw next; None while something is awaited, or once all is decided."""
        while self.sweep.state is JobStatus.RUNNING:
            mine = self._runs_of_stage()
            if any(run.state.is_active for run in mine):
                return None
            self._leave_out(mine)
            due = self._due(mine)
            if due and not self.result.not_measured:
                return self._draft(due) if self._may_draw() else None
            self._decide(mine)
        return None

    def _due(self, mine: Sequence[Run]) -> list[Run]:
        """The runs that are to be measured, at the step that they have reached."""
        if self.stage is Stage.CONFIRM and any(self._why_not(run) for run in mine):
            return []
        known, left_out = self.result.of(self.stage), self.result.left_out
        return [run for run in mine if run.key not in known and run.sweep_place not in left_out]

    def _may_draw(self) -> bool:
        """False while images are drawn and measured, and once that has failed."""
        job = measuring(self.session, self.sweep.key)
        if job is None or job.state is JobStatus.SUCCEEDED or job.key == self.result.retried:
            return True
        if job.state.is_final:
            self.fail(job.error or "Measuring its images was canceled.")
        return False

    def _draft(self, due: Sequence[Run]) -> EvaluationDraft | None:
        """The images of these runs."""
        try:
            base = base_models.get_base_model(self.session, due[0].base_model_id)
            base_models.require_ready(base)
        except AppError as error:
            self.fail(error.detail)
            return None
        columns = []
        for run in due:
            address = checkpoints.address_of(self.session, run.key)
            assert address is not None  # else `_why_not` leaves it out
            label = f"{self._name(run.sweep_place or 0)}, seed {run.config['seed']}"
            columns.append((label, address, run.step, 1.0))
        is_last = self.stage is Stage.CONFIRM
        args = AdvanceSweepArgs(
            prompts=self.plan.confirm_prompts if is_last else self.plan.prompts,
            subjects=self.plan.confirm_subjects if is_last else self.plan.subjects,
            run_ids=tuple(run.key for run in due),
            steps=tuple(run.step for run in due),
            stage=self.stage,
        )
        return EvaluationDraft(
            self.sweep.key,
            f"{self.sweep.title}: {self.stage}",
            base,
            evaluations.adapter_columns(columns),
            args,
            first_seed=CONFIRM_SEED if is_last else 0,
        )

    def fail(self, error: str) -> None:
        """Say why the images cannot be drawn; a person may let the sweep go on."""
        self.sweep.status, self.sweep.error = JobStatus.FAILED, error
        self.session.add(self.sweep)

    def _runs_of_stage(self) -> list[Run]:
        confirming = self.result.confirm_seed
        is_last = self.stage is Stage.CONFIRM
        found = [run for run in self.runs if (run.config["seed"] == confirming) is is_last]
        if self.stage is Stage.FULL:
            return [run for run in found if run.sweep_place in self.result.going]
        return found

    def _leave_out(self, mine: Sequence[Run]) -> None:
        """Leave configurations out of which a run is missing, has failed or was canceled."""
        left_out = dict(self.result.left_out)
        every: Sequence[int] = range(len(self.plan.configurations))
        places = {Stage.HALF: every, Stage.FULL: self.result.going, Stage.CONFIRM: ()}
        for place in places[self.stage]:
            own = [run for run in mine if run.sweep_place == place]
            reasons = list(filter(None, map(self._why_not, own)))
            if len(own) < len(self.plan.seeds):
                reasons.append("a run was deleted")
            if reasons and place not in left_out:
                left_out[place] = reasons[0]
                self._end_early(run for run in own if run.state is JobStatus.PAUSED)
        if left_out != self.result.left_out:
            self._save(left_out=left_out)

    def _why_not(self, run: Run) -> str:
        """Why a run that no longer trains cannot be compared; empty if it can."""
        if run.state is JobStatus.CANCELED:
            return f"canceled at {run.step:,}"
        if run.state is JobStatus.FAILED and run.error_code == DivergedError.code:
            return f"diverged at {run.step:,}"
        if run.state is JobStatus.FAILED:
            return f"failed at {run.step:,}: {shortened(run.error or '', ERRORS_SHOWN)}"
        if run.step < (run.pause_at or run.total_steps):
            return f"stopped at {run.step:,}"
        if run.key in self.result.of(self.stage):
            return ""
        found = checkpoints.list_checkpoints(self.session, run.key, steps=[run.step])
        return "" if any(row.version for row in found) else "a checkpoint was deleted"

    def _decide(self, mine: Sequence[Run]) -> None:
        if self.result.not_measured:
            self._finish(f"No winner. {self.result.not_measured}")
        elif self.stage is Stage.CONFIRM:
            self._confirm(mine)
        else:
            recipes = self._recipes(self.stage)
            if len(recipes) < 2:
                self._finish(self._nothing_to_compare(recipes))
            elif self.stage is Stage.HALF:
                self._halve(recipes)
            else:
                self._compare(recipes)

    def _recipes(self, stage: Stage) -> list[Recipe]:
        """The configurations of a stage that are left, those of equal seeds only."""
        styles: dict[int, dict[int, float]] = {}
        for one in self.result.scores.get(stage, ()):
            if one.seed in self.plan.seeds:
                styles.setdefault(one.place, {})[one.seed] = one.style
        wanted = self.result.going if stage is Stage.FULL else range(len(self.plan.configurations))
        left_out = self._ruined(stage).keys() | self.result.left_out.keys()
        left = (place for place in wanted if place in styles and place not in left_out)
        return [Recipe(str(place), styles[place]) for place in left]

    def _ruined(self, stage: Stage) -> dict[int, str]:
        """Why configurations are not to be kept, from half of their steps on only if all are."""
        if stage is Stage.HALF:
            return {}
        found = {run.sweep_place: "ruined" for run in self.runs if run.outcome == RUINED}
        scores = self.result.scores.get(stage, ())
        return {place: why for place, why in found.items() if place is not None} | {
            one.place: f"{one.ruined} (seed {one.seed})" for one in scores if one.ruined
        }

    def _halve(self, recipes: Sequence[Recipe]) -> None:
        """Let the better half go on; the others end where they are."""
        going = {int(one.name) for one in better_half(recipes)}
        ended = []
        for run in self.runs:
            if run.state is not JobStatus.PAUSED:
                continue
            if run.sweep_place in going:
                run.pause_at = None
                self.session.add(run)
                self.session.flush()
                self._move(run, JobStatus.QUEUED)
            else:
                ended.append(run)
        self._end_early(ended)
        self.sweep.stage = self.stage = Stage.FULL
        self._save(going=tuple(sorted(going)))

    def _compare(self, recipes: Sequence[Recipe]) -> None:
        """Compare the finalists; the first two are trained once more if the first is ahead."""
        ruined = self._ruined(Stage.FULL)
        known = {int(one.name) for one in recipes} | ruined.keys()
        early = [one for one in self._recipes(Stage.HALF) if int(one.name) not in known]
        looks = self.result.looks + 1
        found = compare(recipes, early, looks=looks)
        left_out = {**self.result.left_out, **ruined}
        self._save(found=self._found(found), looks=looks, left_out=left_out)
        if found.winner is None:
            self._finish(self._no_difference(found))
            return
        (seed,) = next_seeds({run.config["seed"] for run in self.runs}, 1)
        self._save(confirm_seed=seed)
        self.sweep.stage = self.stage = Stage.CONFIRM
        for one in found.order[:2]:
            self.runs.append(repeat_run(self.session, self.sweep, int(one.name), seed))

    def _confirm(self, mine: Sequence[Run]) -> None:
        """Name the winner if it is ahead with a seed and prompts that did not choose it."""
        assert self.result.found is not None
        first, second = self.result.found.order[:2]
        scores = {one.place: one for one in self.result.of(Stage.CONFIRM).values()}
        names = capitalized(self._name(first)), self._name(second)
        if not {first, second} <= scores.keys():
            problem = next(filter(None, map(self._why_not, mine)), "a run was deleted")
            self._finish(
                f"No winner. {names[0]} is ahead, but that could not be confirmed on another seed: "
                f"{problem}."
            )
            return
        pairs = zip(scores[first].parts, scores[second].parts, strict=True)
        ahead = mean_interval(np.array([one - other for one, other in pairs]))
        confirmation = Confirmation(
            seed=scores[first].seed, difference=ahead.mean, low=ahead.low, high=ahead.high
        )
        self._save(confirmation=confirmation)
        if ahead.mean <= 0 or scores[first].ruined:
            self._finish(
                f"No difference found at this cost. {names[0]} was ahead of {names[1]} by "
                f"{self.result.found.gap:.2f}, but not with a seed and prompts that did not choose "
                "it."
            )
            return
        self._save(winner=first)
        self._finish(
            f"{names[0]} wins. It has {self.result.found.gap:.2f} more style than {names[1]}; "
            f"another seed changes {self.result.found.spread:.2f}. Confirmed with a seed and "
            f"{plural(len(self.plan.confirm_prompts), 'prompt')} that did not choose it, by "
            f"{ahead.mean:.2f}."
        )

    def _found(self, found: Comparison) -> Found:
        more = found.more_seeds()
        equal = tuple(int(name) for name in found.equal)
        finalists = [run for run in self.runs if run.sweep_place in equal and not run.pause_at]
        count = more * max(2, len(equal))
        seconds = [run.training_seconds for run in finalists]
        return Found(
            order=tuple(int(one.name) for one in found.order),
            equal=equal,
            gap=found.gap,
            spread=found.spread,
            half=found.half,
            least=found.least,
            more_seeds=more,
            finds=SEEN,
            cost=Cost(
                runs=count,
                images=count * len(self.plan.prompts),
                seconds=count * sum(seconds) / len(seconds) if seconds else None,
            ),
        )

    def _no_difference(self, found: Comparison) -> str:
        equal = capitalized(join_words(self._name(int(name)) for name in found.equal))
        words = (
            f"No difference found at this cost. {equal} lie within {found.least:.2f}, and another "
            f"seed changes {found.spread:.2f}."
        )
        if more := found.more_seeds():
            return f"{words} {plural(more, 'more seed')} of each would find one of {SEEN:.2f}."
        return f"{words} One of {SEEN:.2f} would have been found; eyes hardly see less."

    def _nothing_to_compare(self, recipes: Sequence[Recipe]) -> str:
        reasons = {**self._ruined(self.stage), **self.result.left_out}
        self._save(left_out=reasons)
        said = "; ".join(f"{self._name(place)}: {reason}" for place, reason in reasons.items())
        left = f"Only {self._name(int(recipes[0].name))} is left" if recipes else "None is left"
        return f"No winner. {left} to compare: {said[:1_000]}."

    def _finish(self, reason: str) -> None:
        self._end_early(run for run in self.runs if run.state is JobStatus.PAUSED)
        self._save(reason=reason)
        self.sweep.status = JobStatus.SUCCEEDED
        self.sweep.finished_at = database_now(self.session)
        self.session.add(self.sweep)

    def _end_early(self, ended: Iterable[Run]) -> None:
        for run in ended:
            self._move(run, JobStatus.SUCCEEDED)

    def _move(self, run: Run, status: JobStatus) -> None:
        jobs.transition(self.session, Run, run.key, old=JobStatus.PAUSED, new=status)
        self.session.refresh(run)

    def _save(self, **changes: object) -> None:
        self.result = save_result(self.session, self.sweep, self.result, **changes)

    def _name(self, place: int) -> str:
        return self.plan.configurations[place].name


def advance(session: Session, sweep_id: int) -> EvaluationDraft | None:
    """Decide how a sweep goes on; the images to draw next, if it is that. Raises NotFound."""
    return _Look(session, get_sweep(session, sweep_id, lock=True)).go_on()


def start_drawing(session: Session, planned: EvaluationPlan, store: BlobStore) -> None:
    """Queue planned images and the job that measures them, unless somebody has."""
    due = advance(session, planned.draft.subject_id)
    if due is not None and due.args == planned.draft.args:
        evaluations.start_evaluation(session, planned, store)


def fail_drawing(session: Session, sweep_id: int, error: AppError) -> None:
    """Say why the images of a sweep cannot be drawn; a person may let it go on."""
    look = _Look(session, get_sweep(session, sweep_id, lock=True))
    if look.sweep.state is JobStatus.RUNNING:
        look.fail(error.detail)


def add_scores(
    session: Session,
    sweep_id: int,
    stage: Stage,
    scores: Sequence[Score],
    *,
    eyes: str = "",
    not_measured: str = "",
) -> None:
    """Keep what was measured of runs at a stage."""
    sweep = get_sweep(session, sweep_id, lock=True)
    result = read_result(sweep)
    known = {**result.of(stage), **{score.run_id: score for score in scores}}
    changes = {"scores": {**result.scores, stage: tuple(known.values())}, "eyes": eyes}
    save_result(session, sweep, result, **changes, not_measured=not_measured)


def style_images(session: Session, sweep_id: int) -> tuple[int, list[str]]:
    """The base model, and the images whose style is compared with. Raises NotFound and Conflict."""
    run = runs_of(session, get_sweep(session, sweep_id))[0]
    return run.base_model_id, [one.sha256 for one in evaluations.run_images(session, run)]

"""Bulk edits of a dataset: `edit` shows or makes them, `undo` takes one back."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator

from app.registry.datasets import service
from app.registry.datasets.edits.actions import Edit, EditAction
from app.registry.datasets.edits.applying import apply_edit
from app.registry.datasets.edits.plan import Change, EditPlan, LeftOut, plan_edit
from app.registry.datasets.edits.selection import Selection, read_ids
from app.registry.datasets.edits.steps import NOTHING_UNDONE, describe_step, list_steps, undo_edit
from app.registry.datasets.filters import ImageFilter
from app.registry.errors import Conflict
from app.registry.state import AppState
from worker.core.words import CaptionKind

SHOWN = 20  # changes


def run_edit(arguments: Namespace, state: AppState) -> int:
    """Print what would change, or what has with `--apply`. Raises InvalidInput and NotFound."""
    edit, selection = _edit(arguments, state), _selection(arguments)
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        plan = plan_edit(session, dataset, edit, selection)
    if not arguments.apply:
        for line in _lines(plan):
            print(line)
        return 0
    outcome = apply_edit(state.database, dataset.key, edit, selection, seen=plan.seen)
    for row in _left_out([*plan.left_out, *outcome.left_out]):
        print(row)
    if outcome.step is None:
        print("Nothing changed.")
        return 0
    with state.database.read() as session:
        print(f"{describe_step(session, outcome.step)}.")
    print(f"To undo it: brushwork datasets undo {arguments.slug} {outcome.step.key}")
    return 0


def _edit(arguments: Namespace, state: AppState) -> Edit:
    target = None
    with state.database.read() as session:
        if arguments.to:
            target = service.dataset_by_slug(session, arguments.to).key
        word = service.dataset_by_slug(session, arguments.slug).trigger_word
    action = EditAction(arguments.do.replace("-", "_"))
    text = arguments.text
    if text is None:
        text = word or "" if action is EditAction.ADD_TRIGGER else ""
    return Edit(
        action,
        text=text,
        find=text,
        replacement=arguments.replacement,
        is_regex=arguments.regex,
        match_case=arguments.match_case,
        whole_words=arguments.whole_words,
        at_end=arguments.at_end,
        sets_trigger=arguments.set_trigger,
        with_space=arguments.with_space,
        repeats=int(text) if text.isascii() and text.isdigit() else 0,
        value=not arguments.off,
        dataset_id=target,
        kind=CaptionKind(arguments.kind) if arguments.kind else None,
    )


def _selection(arguments: Namespace) -> Selection:
    if arguments.images:
        return Selection(read_ids(arguments.images))
    return Selection(all_matching=True, wanted=ImageFilter.from_text(arguments.filter))


def _lines(plan: EditPlan) -> Iterator[str]:
    stay = f" {plan.unchanged:,} stay as they are." if plan.unchanged else ""
    yield f"{plan.sentence}.{stay} Nothing is changed without --apply."
    yield from _left_out(plan.left_out)
    for change in plan.changes[:SHOWN]:
        yield from _change(change)
    if plan.changed > SHOWN:
        yield f"… and {plan.changed - SHOWN:,} more"


def _change(change: Change) -> Iterator[str]:
    yield f"  {change.image.filename}{f' ({change.kind})' if change.kind else ''}"
    for mark, values in (("-", change.before), ("+", change.after)):
        for name, value in values.items():
            yield f"    {mark} {value if name == 'caption' else f'{name}: {json.dumps(value)}'}"


def _left_out(rows: list[LeftOut]) -> Iterator[str]:
    for row in rows:
        yield f"Left out: {row.filename}. {row.reason}"


def run_undo(arguments: Namespace, state: AppState) -> int:
    """Undo a step, or the last one; 1 if nothing was left to undo.

    Raises Conflict if there is none, and NotFound.
    """
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        steps = list_steps(session, dataset.key, limit=1, to_undo=True)
        if arguments.step is None and not steps:
            raise Conflict("This dataset has no step that can be undone.")
        outcome = undo_edit(session, dataset.key, arguments.step or steps[0].id)
        assert outcome.step is not None
        sentence = describe_step(session, outcome.step)
    done = bool(outcome.changed or outcome.edit.sets_trigger)
    said = f"Undone: {sentence[:1].lower()}{sentence[1:]}" if done else NOTHING_UNDONE
    out = sys.stdout if done else sys.stderr
    print(f"{said}.", file=out)
    for row in _left_out(outcome.left_out):
        print(row, file=out)
    return 0 if done else 1

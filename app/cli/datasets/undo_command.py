"""`brushwork datasets undo`: takes a bulk edit of a dataset back."""

from __future__ import annotations

import sys
from argparse import Namespace

from app.registry.datasets import service
from app.registry.datasets.edits.steps import (
    NOTHING_UNDONE,
    describe_step,
    list_steps,
    undo_edit,
)
from app.registry.errors import Conflict
from app.registry.state import AppState


def run(arguments: Namespace, state: AppState) -> int:
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
    for row in outcome.left_out:
        print(f"Left out: {row.filename}. {row.reason}", file=out)
    return 0 if done else 1

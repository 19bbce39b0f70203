"""The things that addresses name, and the right to change them that a request needs."""

from __future__ import annotations

from itertools import pairwise

from app.registry.actor import Principal
from app.registry.people import rights
from app.registry.state import AppState
from app.web.access.needs import Action, Rule

TABLES = {
    "adapters": "adapter",
    "base-models": "base_model",
    "blind-tests": "blind_test",
    "caption-models": "caption_model",
    "datasets": "dataset",
    "dry-runs": "io_job",
    "evaluations": "io_job",
    "grids": "grid",
    "hub": "io_job",
    "hub-imports": "io_job",
    "images": "image",
    "imports": "io_job",
    "orders": "io_job",
    "presets": "own_preset",
    "previews": "io_job",
    "prompt-sets": "prompt_set",
    "publications": "io_job",
    "recipes": "recipe",
    "renders": "render",
    "runs": "run",
    "sweeps": "sweep",
    "tool-jobs": "io_job",
}
"""The table of the rows that a parameter after this part of a path names."""
CHANGES = frozenset({Action.EDIT, Action.OWN, Action.CONTROL})
FOREVER = "forever"  # part of the addresses that delete for good


def named_things(pattern: str, path: str) -> list[tuple[str, str]]:
    """(table, id or slug) of the things in a path with this pattern, in its order."""
    parts = list(zip(pattern.split("/"), path.split("/"), strict=False))
    return [
        (TABLES[before], value)
        for (before, _), (part, value) in pairwise(parts)
        if part.startswith("{") and before in TABLES
    ]


def require_right(state: AppState, principal: Principal, rule: Rule, path: str) -> None:
    """Raise Forbidden, with who may, if this person may not change what the path names.

    Who may change a thing may also delete a part of it, such as an image, but not for good, and
    may stop its jobs; the owner of a job may stop it, too. What is hidden or absent is left to the
    route, which answers both in the same way, and so is what its parameters name by a table.
    """
    things = named_things(rule.path, path)
    if not things:
        return
    is_of_whole = rule.path.count("{") == 1 or FOREVER in rule.path
    with state.database.read() as session:
        if rule.action is Action.CONTROL and any(
            rights.owns_job(session, principal, value)
            for table, value in things
            if table == "io_job"
        ):
            return
        table, reference = things[0]
        rights.require_named(
            session,
            principal,
            table,
            reference,
            own=rule.action is Action.OWN and is_of_whole,
            for_good=FOREVER in rule.path,
        )

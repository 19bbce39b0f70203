"""Statements that no hook of a session sees stand in few modules, each for a reason.

A hook hides what is deleted, and what a person may not see, from statements of `session.exec` that
name mapped classes. Statements of `session.connection()`, of bare tables and of text find all rows,
and so do those inside of `everything(session)`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("app", "worker")
CALLS = {"Session", "all_parts", "connection", "everything", "exec_driver_sql", "raw_connection"}
OF_SQLALCHEMY = {"literal_column", "table", "text"}
OF_ENGINES = {"begin", "connect"}
TABLES = {"__table__", "local_table", "sorted_tables"}

REGISTRY = "app/registry"
UNSEEN = {
    "makes sessions; locks, times and rows put in place of others": {"db.py": 14},
    "changes the tables": {"migrate.py": 10},
    "who is asking is not known yet": {
        "access/idempotency.py": 4,
        "access/service.py": 2,
        "people/service.py": 1,
        "people/tokens.py": 1,
    },
    "the rule itself, and all that a thing was made from": {
        "people/shares.py": 2,
        "tables/owned.py": 7,
    },
    "deletes for good, and counts who else needs it": {
        "datasets/pinned.py": 3,
        "datasets/used_datasets.py": 1,
        "deletion/adapters.py": 6,
        "deletion/base_models.py": 1,
        "deletion/datasets.py": 10,
        "deletion/renders.py": 9,
        "deletion/runs.py": 10,
        "deletion/sweeps.py": 1,
        "likeness/similar.py": 1,
        "renders/sources.py": 2,
    },
    "files belong to all that refer to them": {
        "blobs/deletion.py": 1,
        "blobs/disk_quota.py": 9,
        "blobs/findings.py": 2,
        "blobs/guard.py": 2,
        "blobs/looks.py": 5,
        "blobs/ownership.py": 1,
        "blobs/references.py": 7,
        "blobs/thumbnails.py": 3,
        "blobs/visible.py": 1,
        "datasets/measures.py": 2,
        "datasets/new_images.py": 1,
    },
    "workers claim, continue and end any job": {
        "jobs/presence.py": 3,
        "jobs/quotas.py": 1,
        "jobs/service.py": 4,
        "runs/checkpoint_adapters.py": 2,
        "runs/progress.py": 3,
        "tables/jobs.py": 3,
        "tables/runs.py": 1,
    },
    "the queue and the machine are everybody's": {"runs/service.py": 4},
    "the texts of all are indexed": {
        "adapters/library/search.py": 14,
    },
    "in use, or taken, is whatever anybody has": {
        "adapters/mentions.py": 9,
        "base_models/service.py": 1,
        "datasets/auto_caption/orders.py": 1,
        "datasets/service.py": 1,
        "prompt_sets.py": 1,
        "slugs.py": 1,
    },
    "conditions of indexes": {"tables/adapters.py": 3},
    "parts of adapters that the session read": {"adapters/library/cards.py": 1},
    "the same, rows that were found, and counts of all less those of what is hidden": {
        "adapters/library/listing.py": 4
    },
    "many texts in one statement, of images that the session read": {
        "datasets/edits/writing.py": 3
    },
}
ELSEWHERE = {
    "app/cli/archive.py": 1,  # a whole database is kept, and put back
    "app/cli/backup.py": 1,
    "app/cli/restore.py": 1,
    "worker/runtime/upkeep/look_jobs.py": 1,  # what a worker measures is anybody's
}


def count_unseen(source: str) -> int:
    """The number of expressions of a program that lead to rows past the hooks of sessions."""
    return sum(map(_is_unseen, ast.walk(ast.parse(source))))


def _is_unseen(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in TABLES
    if isinstance(node, ast.ImportFrom):
        of_sqlalchemy = (node.module or "").startswith("sqlalchemy")
        return of_sqlalchemy and bool(OF_SQLALCHEMY & {alias.name for alias in node.names})
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    if isinstance(called, ast.Name):
        return called.id in CALLS
    if not isinstance(called, ast.Attribute):
        return False
    if called.attr in OF_ENGINES:
        return ast.unparse(called.value).endswith("engine")
    if called.attr in OF_SQLALCHEMY:
        return ast.unparse(called.value) in ("sa", "sqlalchemy")
    if called.attr == "execute":  # else it was counted with the connection
        return not ast.unparse(called.value).endswith("connection()")
    return called.attr in CALLS


def test_what_no_hook_sees_is_in_the_list() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): number
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (number := count_unseen(path.read_text()))
    }
    listed = {
        f"{REGISTRY}/{module}": number
        for modules in UNSEEN.values()
        for module, number in modules.items()
    }
    assert found == listed | ELSEWHERE


@pytest.mark.parametrize(
    "line",
    [
        "session.connection().execute(sa.select(col(Run.id)))",
        "execute = session.connection().execute",
        "session.exec(sa.text('SELECT name FROM run'))",
        "runs = sa.table('run', sa.column('name'))",
        "from sqlalchemy import text",
        "rows = Run.__table__",
        "images = sa.inspect(Image).local_table",
        "with database.engine.connect() as connection: pass",
        "with self.engine.begin() as connection: pass",
        "session.execute(sa.select(col(Run.id)))",
        "rows = connection.execute(query)",
        "connection.exec_driver_sql('SELECT name FROM run')",
        "with Session(engine) as session: pass",
        "with everything(session): pass",
        "with owned.everything(session): pass",
    ],
)
def test_a_statement_past_the_hooks_is_counted(line: str) -> None:
    assert count_unseen(f"def read(session):\n    {line}\n") == 1


def test_statements_that_hooks_see_are_not_counted() -> None:
    source = "session.exec(sa.select(col(Run.id)))\nsocket.connect(address)\nrow.text\n"
    assert count_unseen(source) == 0

"""runs have notes, and keys to sort them by name and to search them

Revision: 0030, after 0029.
"""

import re
import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

SORT_NAME = sa.String(240).with_variant(sa.String(240, collation="C"), "postgresql")
COLUMNS = {"notes": sa.Text(), "sort_name": SORT_NAME, "search_text": sa.Text()}
ALONE = re.compile(
    r"([^\w\s]|_|[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af])"
)
RUN = sa.table(
    "run",
    sa.column("id", sa.Integer),
    *(sa.column(name, sa.String) for name in ("name", "trigger_word", "sort_name", "search_text")),
)


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        empty = sa.text("''")
        op.add_column("run", sa.Column(name, kind, nullable=False, server_default=empty))
        if op.get_bind().dialect.name != "sqlite":
            op.alter_column("run", name, server_default=None)
    op.create_index(op.f("ix_run_sort_name"), "run", ["sort_name"])
    connection = op.get_bind()
    rows = connection.execute(sa.select(RUN.c.id, RUN.c.name, RUN.c.trigger_word)).all()
    values = [
        {"key": key, "sort": fold(name)[:240], "text": text_of(name, word)}
        for key, name, word in rows
    ]
    if values:
        change = RUN.update().where(RUN.c.id == sa.bindparam("key"))
        named = {"sort_name": sa.bindparam("sort"), "search_text": sa.bindparam("text")}
        connection.execute(change.values(named), values)


def fold(text: str) -> str:
    """The text without case, accents, control and direction characters, with single spaces."""
    signs = unicodedata.normalize("NFKD", text.casefold())
    kept = (sign for sign in signs if unicodedata.category(sign) not in ("Mn", "Cf", "Cs"))
    joined = "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in kept)
    return " ".join(unicodedata.normalize("NFKC", joined).casefold().split())


def text_of(*values: str | None) -> str:
    """What is searched of a run: two spaces before each word, and a line for each value."""
    lines = (ALONE.sub(r" \1 ", fold(value)).split() for value in values if value)
    return "\n".join("".join(f"  {word}" for word in words) for words in lines)


def downgrade() -> None:
    op.drop_index(op.f("ix_run_sort_name"), "run")
    for name in COLUMNS:
        op.drop_column("run", name)

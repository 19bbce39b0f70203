"""renders can be starred, and have a key to search them

Revision: 0033, after 0032.
"""

import re
import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

BATCH = 1_000
ALONE = re.compile(
    r"([^\w\s]|_|[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af])"
)
RENDER = sa.table(
    "render",
    sa.column("id", sa.Integer),
    sa.column("prompt", sa.Text),
    sa.column("adapters", sa.JSON),
    sa.column("search_text", sa.Text),
)
COLUMNS = {
    "starred": (sa.Boolean(), sa.false()),
    "search_text": (sa.Text(), sa.text("''")),
}


def upgrade() -> None:
    for name, (kind, default) in COLUMNS.items():
        op.add_column("render", sa.Column(name, kind, nullable=False, server_default=default))
        if op.get_bind().dialect.name != "sqlite":
            op.alter_column("render", name, server_default=None)
    connection = op.get_bind()
    change = RENDER.update().where(RENDER.c.id == sa.bindparam("key"))
    last = 0
    while rows := connection.execute(
        sa.select(RENDER.c.id, RENDER.c.prompt, RENDER.c.adapters)
        .where(RENDER.c.id > last)
        .order_by(RENDER.c.id)
        .limit(BATCH)
    ).all():
        values = [
            {"key": row.id, "text": text_of(row.prompt, *names(row.adapters))} for row in rows
        ]
        connection.execute(change.values(search_text=sa.bindparam("text")), values)
        last = rows[-1].id


def names(adapters: list[dict[str, str]] | None) -> list[str]:
    """The names and slugs of the adapters of a render."""
    return [used.get(field) or "" for used in adapters or [] for field in ("name", "slug")]


def fold(text: str) -> str:
    """The text without case, accents, control and direction characters, with single spaces."""
    signs = unicodedata.normalize("NFKD", text.casefold())
    kept = (sign for sign in signs if unicodedata.category(sign) not in ("Mn", "Cf", "Cs"))
    joined = "".join(" " if unicodedata.category(sign) == "Cc" else sign for sign in kept)
    return " ".join(unicodedata.normalize("NFKC", joined).casefold().split())


def text_of(*values: str | None) -> str:
    """What is searched of a render: two spaces before each word, and a line for each value."""
    lines = (ALONE.sub(r" \1 ", fold(value)).split() for value in values if value)
    return "\n".join("".join(f"  {word}" for word in words) for words in lines)


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("render", name)

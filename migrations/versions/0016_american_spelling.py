"""columns and settings are spelled in American English

Revision: 0016, after 0015.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

OLD, NEW = "regularisation_version_id", "regularization_version_id"
OLD_SETTING, NEW_SETTING = "regularisation_weight", "regularization_weight"


def upgrade() -> None:
    op.execute("ALTER TABLE adapter RENAME COLUMN licence TO license")  # keeps all else on SQLite
    _rename_dataset(OLD, NEW)
    _rename_setting(OLD_SETTING, NEW_SETTING)


def downgrade() -> None:
    _rename_setting(NEW_SETTING, OLD_SETTING)
    _rename_dataset(NEW, OLD)
    op.execute("ALTER TABLE adapter RENAME COLUMN license TO licence")


def _rename_dataset(before: str, after: str) -> None:
    """The column of a run for its regularization images, with the name of its constraint."""
    old, new = (f"fk_run_{name}_dataset_version" for name in (before, after))
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("run", before, new_column_name=after)
        op.execute(f"ALTER TABLE run RENAME CONSTRAINT {old} TO {new}")
        return
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f(old), type_="foreignkey")
        batch_op.alter_column(before, new_column_name=after)
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.create_foreign_key(batch_op.f(new), "dataset_version", [after], ["id"])


def _rename_setting(before: str, after: str) -> None:
    """The setting in every stored config: its key, with both quotes and the colon, is unique."""
    changed = "replace(CAST(config AS TEXT), :before, :after)"
    if op.get_bind().dialect.name != "sqlite":
        changed = f"CAST({changed} AS JSON)"
    keys = {"before": f'"{before}":', "after": f'"{after}":', "like": f'%"{before}":%'}
    for table in ("run", "adapter_version"):
        where = "CAST(config AS TEXT) LIKE :like"
        statement = sa.text(f"UPDATE {table} SET config = {changed} WHERE {where}")
        op.get_bind().execute(statement, keys)

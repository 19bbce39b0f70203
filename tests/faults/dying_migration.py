"""Migrates a database and kills itself before its statement number N; without N, counts them.

python -m tests.faults.dying_migration DATABASE_URL DATA_DIR MIGRATIONS [N]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from app.cli.migrate import migrate
from app.registry.config import Settings
from tests.next_revision import use_migrations


def main(database_url: str, data_dir: str, migrations: str, last: str = "0") -> None:
    """Migrate; print the number of statements."""
    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        done += 1
        if done == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)
    settings = Settings(_env_file=None, data_dir=Path(data_dir), database_url=database_url or None)
    with use_migrations(Path(migrations)):
        migrate(settings)
    print(done)


if __name__ == "__main__":
    main(*sys.argv[1:])

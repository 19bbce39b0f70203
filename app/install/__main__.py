"""`python -m app.install`: what `make` runs. Old versions of Python read only this file."""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (whoever has an older one runs this line)
    print(
        "Brushwork needs Python 3.11 or newer, and {} is {}.{}. Install one, or name it: make "
        "PYTHON=python3.12 run (after `make clean` if .venv exists).".format(
            sys.executable, *sys.version_info[:2]
        ),
        file=sys.stderr,
    )
    sys.exit(2)

from app.install.main import main

if __name__ == "__main__":
    sys.exit(main())

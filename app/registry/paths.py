"""Paths of the program's own folders, in a checkout and in an installed wheel."""

from __future__ import annotations

import os
import site
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent
"""The folder of the packages `app` and `worker`: a checkout, or `site-packages`."""

IS_CHECKOUT = not (PACKAGE / "migrations").is_dir()
"""True in a checkout, where the folders of data stand next to the packages; a wheel has them in
`app`, because top-level folders in `site-packages` would clash with those of other projects."""

DATA = ROOT if IS_CHECKOUT else PACKAGE
MIGRATIONS = DATA / "migrations"
TEMPLATES = DATA / "templates"
STATIC = DATA / "static"


def python_path() -> str:
    """PYTHONPATH with which a child process in any folder finds the packages `app` and `worker`.

    `site-packages` is left out: Python searches it anyway, and PYTHONPATH would put it before the
    standard library.
    """
    inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    own = () if str(ROOT) in site.getsitepackages() else (str(ROOT),)
    return os.pathsep.join(dict.fromkeys((*own, *inherited)))

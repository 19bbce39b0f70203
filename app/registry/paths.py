"""Where the program's own folders are; the only module that knows."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
MIGRATIONS = ROOT / "migrations"
TEMPLATES = ROOT / "templates"
STATIC = ROOT / "static"

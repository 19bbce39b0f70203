"""What was made of a base model after its training, which decides how it draws and trains."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path


class Variant(StrEnum):
    """The base itself, one distilled to few steps, or one from which that was trained away."""

    BASE = "base"
    TURBO = "turbo"
    DEDISTILLED = "dedistilled"

    @property
    def label(self) -> str:
        """The variant in a word."""
        return {"base": "Base", "turbo": "Turbo", "dedistilled": "De-distilled"}[self]


_COMMIT = re.compile(r"[0-9a-f]{40}")


def variant_in_name(folder: Path) -> Variant | None:
    """The variant that the name of a folder states; of a download, that of its repository."""
    parts = folder.parts[-3:] if _COMMIT.fullmatch(folder.name) else folder.parts[-1:]
    name = " ".join(parts).lower()
    if re.search(r"de-?_?(distill|turbo)", name):
        return Variant.DEDISTILLED
    return Variant.TURBO if re.search(r"turbo|distill", name) else None

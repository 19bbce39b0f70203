"""The subjects that the embedded base knows by name, as the build wrote them to `subjects.json`.

A prompt of other words gives nothing recognizable, so the page offers this list beside the prompt.
Importing this module loads no model.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

PATH: Path = Path(__file__).parent / "subjects.json"


@dataclass(frozen=True)
class KnownSubject:
    """A subject that a base model knows by name."""

    name: str = Field(description="What to write into a prompt.", examples=["deciduous tree"])
    group: str = Field(
        description="animals-nature, food-drink, travel-places, activities or objects."
    )
    plain_names: tuple[str, ...] = Field(
        description="Everyday names that mean this subject and no other.", examples=[["tree"]]
    )
    keywords: tuple[str, ...] = Field(exclude=True)
    """Words about it, which other subjects may share; useful for a search, not as a prompt."""
    drawn_by: str = Field(exclude=True)
    """The set whose drawing the bare name means: noto, twemoji or fluent."""


@cache
def known_subjects() -> tuple[KnownSubject, ...]:
    """Every subject of the shipped base, in the order of Unicode's groups."""
    entries = json.loads(PATH.read_text(encoding="utf-8"))["subjects"]
    return TypeAdapter(tuple[KnownSubject, ...]).validate_python(entries)


def write_known_subjects(subjects: Iterable[KnownSubject], path: Path, *, notice: str) -> None:
    """Write the list as JSON, one subject a line, with the notice that its license requires."""
    lines = ",\n".join(json.dumps(asdict(subject)) for subject in subjects)
    path.write_text(
        f'{{"notice": {json.dumps(notice)}, "subjects": [\n{lines}\n]}}\n', encoding="utf-8"
    )

"""Samples of two trainings side by side, prompt by prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.registry.tables.runs import Sample


@dataclass(frozen=True)
class PromptPair:
    """Two samples of the same prompt and seed, or of prompts in the same place."""

    a: Sample | None
    b: Sample | None

    @property
    def caption(self) -> str:
        """The prompt and seed; of both samples if they differ."""
        texts = dict.fromkeys(f"{row.prompt}, seed {row.seed}" for row in (self.a, self.b) if row)
        return " / ".join(texts)


def pair_samples(a: Sequence[Sample], b: Sequence[Sample]) -> list[PromptPair]:
    """Samples of the same prompt and seed, then the others by their place; none if one has none."""
    return list(_matched(a, b)) if a and b else []


def _matched(a: Sequence[Sample], b: Sequence[Sample]) -> Iterator[PromptPair]:
    same = {(row.prompt, row.seed): row for row in reversed(b)}
    partners = {row.prompt_index: same.pop((row.prompt, row.seed), None) for row in a}
    rest = {row.prompt_index: row for row in same.values()}
    for row in a:
        yield PromptPair(row, partners[row.prompt_index] or rest.pop(row.prompt_index, None))
    for row in rest.values():
        yield PromptPair(None, row)

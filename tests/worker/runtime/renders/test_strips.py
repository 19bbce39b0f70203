"""Strips in parts, so that few adapters are in use at once."""

from __future__ import annotations

from app.registry.job_kinds.weighted import ResolvedAdapter
from worker.runtime.renders.strips import split_stacks


def stack(*names: str) -> list[ResolvedAdapter]:
    values = {"adapter_id": 1, "version": 1, "version_id": 1, "name": "", "slug": ""}
    return [ResolvedAdapter(**values, sha256=name) for name in names]


def test_the_stacks_of_a_part_have_few_adapters_together() -> None:
    stacks = [stack("a", "b"), stack("a"), stack(), stack("a", "c"), stack("c"), stack("d", "a")]
    parts = [[[one.sha256 for one in own] for own in part] for part in split_stacks(stacks, 2)]
    assert parts == [[["a", "b"], ["a"], []], [["a", "c"], ["c"]], [["d", "a"]]]
    assert split_stacks(stacks[:1], 1) == [stacks[:1]]  # one image can have more

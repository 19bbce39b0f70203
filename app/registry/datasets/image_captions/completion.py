"""Completes tags from those of the dataset: the parts of its captions between commas."""

from __future__ import annotations

from collections import Counter

from sqlmodel import Session

from app.registry.datasets.several_captions import read_texts
from app.registry.tables.datasets import Dataset

OFFERED = 8
LONGEST_TAG = 60  # characters; a longer part is a sentence


def complete_tag(session: Session, dataset: Dataset, typed: str) -> list[str]:
    """The tags that begin with what was typed, then those with a word that does, most used first.

    The trigger word counts as a tag.
    """
    typed = " ".join(typed.casefold().split())
    if not typed or len(typed) > LONGEST_TAG:
        return []
    counted = _count_tags(session, dataset.key)
    if dataset.trigger_word:
        counted[dataset.trigger_word] += 1
    ranked = [
        (not tag.casefold().startswith(typed), -count, tag)
        for tag, count in counted.items()
        if f" {tag.casefold()}".find(f" {typed}") >= 0 and tag.casefold() != typed
    ]
    return [tag for _, _, tag in sorted(ranked)[:OFFERED]]


def _count_tags(session: Session, dataset_id: int) -> Counter[str]:
    texts = read_texts(session, dataset_id)
    tags = (tag.strip() for _, caption in texts for tag in caption.split(","))
    return Counter(tag for tag in tags if tag and len(tag) <= LONGEST_TAG)

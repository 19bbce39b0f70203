"""A row of the adapter stack as a person enters it: a reference and weights, kept as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.registry.adapters import service as adapters
from app.registry.adapters.versions.aliases import ALIAS, NUMBER
from app.registry.db import Session
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.validation import NOT_A_NUMBER
from app.web.form_reader import parse_number
from worker.core.inference.config import BlockWeights
from worker.core.lora_files.weights import MAX_WEIGHT

OUT_OF_RANGE = f"The weight must be between −{MAX_WEIGHT:g} and {MAX_WEIGHT:g}."
BLOCKS = tuple(BlockWeights.model_fields)
THOUSAND = 1_000  # a blend has whole thousandths, so that its sum is exact


@dataclass(frozen=True)
class AdapterRow:
    """One adapter of the stack as entered; weights stay as typed.

    `weight`: None means the usual one. `text_weight`: that of the text encoders, empty: the same.
    `blocks`: the factors in the input, middle and output blocks of the UNet, empty: 1. `held`: the
    weight that the page had shown, while a blend is still to be held.
    """

    slug: str
    weight: str | None = None
    text_weight: str = ""
    version: int | str | None = None
    is_on: bool = True
    blocks: tuple[str, str, str] = ("", "", "")
    held: str = ""

    @property
    def reference(self) -> str:
        """Its reference in a URL: `slug`, `slug@2` or `slug@best`."""
        return f"{self.slug}@{self.version}" if self.version else self.slug

    @property
    def weighted(self) -> str:
        """Its reference with its weights, `slug:0.8:0.5:1 1 0`, without those that are not its own.

        The last ones are those of the blocks.
        """
        typed = ["".join(text.split()) or "1" for text in self.blocks]
        blocks = " ".join(typed) if self.has_blocks else ""
        return ":".join([self.reference, self.weight or "", self.text_weight, blocks]).rstrip(":")

    @property
    def number(self) -> float | None:
        """The weight; None when the typed text is not a number, or there is none."""
        return None if self.weight is None else parse_number(self.weight)

    @property
    def text_number(self) -> float | None:
        """The weight of the text encoders; None if it is not a number, or the same."""
        return parse_number(self.text_weight) if self.text_weight else None

    @property
    def block_numbers(self) -> list[float | None]:
        """The factors of the blocks; None for one that is not a number."""
        return [parse_number(text) if text else 1.0 for text in self.blocks]

    @property
    def has_blocks(self) -> bool:
        """True if a block has another factor than 1."""
        return any(number != 1 for number in self.block_numbers)

    @property
    def block_weights(self) -> BlockWeights:
        """The factors, which must be valid."""
        return BlockWeights.model_validate(dict(zip(BLOCKS, self.block_numbers, strict=True)))

    @property
    def block_problems(self) -> dict[str, str]:
        """The reasons why factors are invalid, by the name of their block."""
        named = zip(BLOCKS, self.block_numbers, strict=True)
        found = {name: _weight_problem(number) for name, number in named}
        return {name: problem for name, problem in found.items() if problem}

    @property
    def problem(self) -> str:
        """The reason why the weight is invalid; empty if it is valid."""
        return "" if self.weight is None else _weight_problem(self.number)

    @property
    def text_problem(self) -> str:
        """The reason why the weight of the text encoders is invalid; empty if it is valid."""
        return _weight_problem(self.text_number) if self.text_weight else ""

    def parse(self, session: Session) -> WeightedAdapter:
        """The adapter with its weights, which must be valid. Raises NotFound."""
        adapter = adapters.adapter_by_slug(session, self.slug)
        return WeightedAdapter(
            adapter_id=adapter.key,
            version=self.version,
            weight=self.number,
            text_encoder_weight=self.text_number,
            block_weights=self.block_weights,
        )


def _weight_problem(number: float | None) -> str:
    """The reason why a typed weight is invalid; None: it is not a number."""
    if number is None:
        return NOT_A_NUMBER
    return OUT_OF_RANGE if abs(number) > MAX_WEIGHT else ""


def read_reference(text: str) -> AdapterRow:
    """Parse `slug`, `slug@2` or `slug@best` into a row; an invalid version is ignored."""
    slug, _, name = text.partition("@")
    if number := NUMBER.fullmatch(name):
        return AdapterRow(slug, version=int(number[1]) or None)
    return AdapterRow(slug, version=name if ALIAS.fullmatch(name) else None)


def read_weighted(text: str) -> AdapterRow:
    """Parse what `AdapterRow.weighted` writes; missing weights are the usual ones."""
    reference, _, weights = text.partition(":")
    weight, text_weight, blocks, *_ = [*weights.split(":", 3), "", "", ""]
    first, second, third, *_ = [*blocks.split(maxsplit=3), "", "", ""]
    return replace(
        read_reference(reference),
        weight=weight or None,
        text_weight=text_weight,
        blocks=(first, second, third),
    )


def row_of(slug: str, used: WeightedAdapter) -> AdapterRow:
    """The row of an adapter with its weights."""
    text, blocks = used.text_encoder_weight, used.block_weights or BlockWeights()
    first, second, third = (f"{factor:g}" for factor in blocks.factors)
    return AdapterRow(
        slug,
        weight=None if used.weight is None else f"{used.weight:g}",
        text_weight="" if text in (None, used.weight) else f"{text:g}",
        version=used.version,
        blocks=(first, second, third),
    )


def hold_sum(rows: Sequence[AdapterRow]) -> tuple[AdapterRow, ...]:
    """The rows with the weights that nobody changed scaled, so that the sum of those that are on
    stays what the page had shown.

    For a browser without scripts; with scripts, blend.js does it. Where every weight was changed,
    or one is not a number, they stay as they were typed.
    """
    on = [place for place, row in enumerate(rows) if row.is_on]
    shown = {place: parse_number(rows[place].held) for place in on}
    typed = {place: rows[place].number for place in on}
    if None in shown.values() or None in typed.values():
        return tuple(rows)
    before = {place: number or 0.0 for place, number in shown.items()}
    now = {place: number or 0.0 for place, number in typed.items()}
    others = [place for place in on if now[place] == before[place]]
    changed = list(rows)
    if others and len(others) < len(on):
        rest = sum(before.values()) - sum(now[place] for place in on if place not in others)
        weights = _round(divide([before[place] for place in others], rest))
        for place, weight in zip(others, weights, strict=True):
            changed[place] = replace(changed[place], weight=f"{weight:g}")
    return tuple(replace(row, held="") for row in changed)


def divide(shares: Sequence[float], rest: float) -> list[float]:
    """The weights of the others for this rest of the sum; their shares say how it is divided."""
    total = sum(shares)
    if min(shares) < 0 < max(shares):
        return [share + (rest - total) / len(shares) for share in shares]
    if total == 0:
        return [max(0.0, rest) / len(shares)] * len(shares)
    return [share * max(0.0, rest / total) for share in shares]


def _round(weights: Sequence[float]) -> list[float]:
    """In whole thousandths; what rounding leaves goes to the largest."""
    whole = [round(weight * THOUSAND) for weight in weights]
    largest = max(range(len(weights)), key=lambda place: abs(weights[place]))
    whole[largest] += round(sum(weights) * THOUSAND) - sum(whole)
    return [number / THOUSAND for number in whole]

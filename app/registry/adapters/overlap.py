"""The overlap of the adapters of a stack: measured once for each pair of versions, by an io job.

The versions never change, so the finished job of a pair is its cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from itertools import combinations
from typing import Annotated, Self

from pydantic import Field, PlainSerializer, computed_field
from sqlmodel import Session, col, select

from app.registry.adapters import fitting
from app.registry.adapters.fitting import AdapterAndVersion
from app.registry.api_records import api_record
from app.registry.db import Database, utcnow
from app.registry.job_kinds.kinds import JobKind, MeasureOverlapArgs, MeasureOverlapResult
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs.service import enqueue_io
from app.registry.tables.jobs import IoJob
from app.registry.wording import aware, join_words, plural

NOTABLE = 0.5
"""A cosine of a layer from which on it is called the same direction, or the opposite one.

Trained on unrelated styles, adapters stay below 0.4 in all layers with one seed, which gives both
the same input directions, and below 0.25 with two (`docs/benchmarks.md`).
"""
MUCH_SHARE = 1 / 3
"""The share of such layers from which on the overlap is called much."""
AGAIN_AFTER = timedelta(minutes=1)  # a measurement that failed


class OverlapLevel(StrEnum):
    """The degree to which two adapters overlap."""

    LITTLE = "little"
    SOME = "some"
    MUCH = "much"

    @property
    def label(self) -> str:
        """Text for users."""
        return f"{self.value.capitalize()} overlap"


class PairState(StrEnum):
    """The state of the overlap of a pair."""

    READY = "ready"
    COMPUTING = "computing"
    FAILED = "failed"
    UNFIT = "unfit"


@api_record
class LayerCosine:
    """The overlap in one layer that both adapters change."""

    layer: str = Field(examples=["unet.mid_block.attentions.0.transformer_blocks.0…"])
    """Its key."""
    cosine: float = Field(description="Of both weight changes: 1 the same, -1 the opposite.")
    inputs: float = Field(description="Share of the input directions that are the same, 0 to 1.")
    outputs: float = Field(description="Share of the output directions that are the same, 0 to 1.")


@api_record
class ComparedVersion:
    """One side of a pair."""

    id: int = Field(description="Id of the adapter.")
    version: int = Field(description="Number of the version.")
    name: str = Field(description="Name of the adapter.")

    @classmethod
    def of(cls, made: AdapterAndVersion) -> Self:
        """An adapter and its version."""
        return cls(made[0].key, made[1].version, made[0].name)


Side = Annotated[
    AdapterAndVersion, PlainSerializer(ComparedVersion.of, return_type=ComparedVersion)
]


@api_record
class PairOverlap:
    """The overlap of two of the adapters; `changed`: the number of layers that either changes."""

    first: Side = Field(description="The one that was named first.")
    second: Side = Field(description="The other one.")
    status: PairState = Field(
        description="`ready`, `computing`, `failed`, or `unfit`: made for different base models."
    )
    problem: str | None = Field(default=None, description="Why there is no overlap, as a sentence.")
    cosine: float | None = Field(default=None, description="Of both whole weight changes.")
    changed: int = Field(default=0, exclude=True)
    layers: Sequence[LayerCosine] = ()
    """The layers that both change, from the text encoders to the output."""

    @property
    def notable(self) -> list[LayerCosine]:
        """The layers in which both pull clearly the same way or against each other."""
        return [layer for layer in self.layers if abs(layer.cosine) >= NOTABLE]

    @computed_field(  # type: ignore[prop-decorator]
        description=f"`much`: a third of the layers have a cosine of {NOTABLE:g} or more, or of "
        "minus that or less; `some`: at least one has; null: not known."
    )
    @property
    def level(self) -> OverlapLevel | None:
        """The level of their overlap; None if it is not known."""
        if self.status is not PairState.READY:
            return None
        if not self.notable:
            return OverlapLevel.LITTLE
        is_much = len(self.notable) >= MUCH_SHARE * len(self.layers)
        return OverlapLevel.MUCH if is_much else OverlapLevel.SOME

    @property
    def names(self) -> str:
        """Both names, with the versions where the adapter is the same."""
        (one, first), (two, second) = self.first, self.second
        if one.key == two.key:
            return f"{one.version_label(first.version)} and {two.version_label(second.version)}"
        return f"“{one.name}” and “{two.name}”"

    @property
    def finding(self) -> str:
        """The finding of the layers, as a clause."""
        if not self.layers:
            return "they change different layers"
        same = sorted((x.cosine for x in self.notable if x.cosine > 0), reverse=True)
        against = sorted(x.cosine for x in self.notable if x.cosine < 0)
        total = len(self.layers)
        clauses = []
        if same:
            clauses.append(f"{_pull(len(same), total)} the same way ({_cosines(same)})")
        if against:
            what = _pull(len(against), total if not same else None)
            clauses.append(f"{what} against each other ({_cosines(against)})")
        if clauses:
            return ", and ".join(clauses)
        highest = max(self.layers, key=lambda layer: abs(layer.cosine)).cosine
        of = f"{plural(total, 'layer')} that both change"
        return f"none of the {of} pulls clearly the same way (cosines up to {_number(highest)})"


@api_record
class StackCheck:
    """The overlap of the adapters of a stack."""

    pairs: Sequence[PairOverlap] = Field(description="Each adapter with each other.")
    shared_words: Sequence[str] = Field(
        serialization_alias="shared_trigger_words",
        description="Trigger words that several have.",
    )
    all_have_words: bool = Field(exclude=True)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> PairState:
        """`computing` while a pair is, then `ready`; ask again until it is."""
        return PairState.COMPUTING if self.is_computing else PairState.READY

    @property
    def is_computing(self) -> bool:
        """True while the overlap of a pair is still to come."""
        return any(pair.status is PairState.COMPUTING for pair in self.pairs)

    @property
    def worst(self) -> PairOverlap | None:
        """The pair that overlaps most; None while none is known."""
        known = [pair for pair in self.pairs if pair.status is PairState.READY]
        return max(known, key=_rank_of, default=None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def level(self) -> OverlapLevel | None:
        """Of the pair that overlaps most."""
        if self.is_computing or self.worst is None:
            return None
        return self.worst.level

    @computed_field  # type: ignore[prop-decorator]
    @property
    def sentence(self) -> str:
        """What was found, for people."""
        problems = [pair.problem for pair in self.pairs if pair.problem]
        if problems:
            return " ".join(dict.fromkeys(problems))
        if self.is_computing:
            count = sum(pair.status is PairState.COMPUTING for pair in self.pairs)
            what = "both adapters are" if len(self.pairs) == 1 else f"{plural(count, 'pair')} left,"
            return f"Comparing: {what} read layer by layer."
        assert self.worst is not None
        found = self.worst.finding
        if len(self.pairs) > 1:
            found = f"{self.worst.names} overlap most: {found}"
        return f"{found[0].upper()}{found[1:]}{self._words_clause()}."

    def _words_clause(self) -> str:
        if self.shared_words:
            quoted = join_words(f"“{word}”" for word in self.shared_words)
            word = "trigger word is" if len(self.shared_words) == 1 else "trigger words are"
            return f"; the {word} the same: {quoted}"
        return "; the trigger words differ" if self.all_have_words else ""


def check_stack(database: Database, made: Sequence[AdapterAndVersion]) -> StackCheck:
    """Compare the versions of a stack, each with each; a version that is named twice counts once.

    Pairs that nobody compared before are queued, also those whose job failed a while ago.
    """
    distinct = list({version.key: (adapter, version) for adapter, version in made}.values())
    with database.read() as session:
        pairs = _look_up(session, distinct)
    if any(pair is None for pair in pairs):
        with database.write() as session:
            pairs = [
                _order(session, *both) if pair is None else pair
                for both, pair in zip(combinations(distinct, 2), pairs, strict=True)
            ]
    words = [
        {" ".join(word.casefold().split()): word for word in version.trigger_words}
        for _, version in distinct
    ]
    shared = {
        fold: word for one, two in combinations(words, 2) for fold, word in one.items()
        if fold in two
    }  # fmt: skip
    found = [pair for pair in pairs if pair is not None]
    return StackCheck(found, list(shared.values()), all(words))


def _look_up(session: Session, made: Sequence[AdapterAndVersion]) -> list[PairOverlap | None]:
    """The known overlap of each pair; None: its comparison has to be ordered."""
    kinds = {
        version.key: kind
        for (_, version), kind in zip(made, fitting.kinds(session, made), strict=True)
    }
    found: list[PairOverlap | None] = []
    for first, second in combinations(made, 2):
        one, two = kinds[first[1].key], kinds[second[1].key]
        if one.fits(two):
            found.append(_of_job(first, second, _newest_job(session, first, second)))
            continue
        sentence = (
            f"“{first[0].name}” was made for {one.name} and “{second[0].name}” for {two.name}, so "
            "they do not go together."
        )
        found.append(PairOverlap(first, second, PairState.UNFIT, sentence))
    return found


def _newest_job(
    session: Session, first: AdapterAndVersion, second: AdapterAndVersion
) -> IoJob | None:
    lower, higher = sorted((first[1].key, second[1].key))
    query = select(IoJob).where(
        IoJob.kind == JobKind.MEASURE_OVERLAP,
        IoJob.subject_id == lower,
        col(IoJob.args)["other_id"].as_integer() == higher,
    )
    return session.exec(query.order_by(col(IoJob.id).desc()).limit(1)).first()


def _of_job(
    first: AdapterAndVersion, second: AdapterAndVersion, job: IoJob | None
) -> PairOverlap | None:
    if job is None or job.state is JobStatus.CANCELED:
        return None
    if job.state is JobStatus.FAILED:
        if job.finished_at is None or utcnow() - aware(job.finished_at) > AGAIN_AFTER:
            return None
        return PairOverlap(first, second, PairState.FAILED, job.error or "The comparison failed.")
    result = job.outcome(MeasureOverlapResult)
    if job.state is not JobStatus.SUCCEEDED or result.layers is None:
        return PairOverlap(first, second, PairState.COMPUTING)
    layers = [LayerCosine(*layer) for layer in result.layers]
    return PairOverlap(
        first, second, PairState.READY, None, result.cosine, result.changed or 0, layers
    )


def _order(session: Session, first: AdapterAndVersion, second: AdapterAndVersion) -> PairOverlap:
    """Queue the comparison, unless another request just did."""
    known = _of_job(first, second, _newest_job(session, first, second))
    if known is not None:
        return known
    lower, higher = sorted((first[1].key, second[1].key))
    enqueue_io(session, MeasureOverlapArgs(other_id=higher), subject_id=lower)
    return PairOverlap(first, second, PairState.COMPUTING)


def _rank_of(pair: PairOverlap) -> tuple[int, float]:
    strongest = max((abs(layer.cosine) for layer in pair.layers), default=0.0)
    return len(pair.notable), strongest


def _pull(count: int, total: int | None) -> str:
    of = "" if total is None else f" of {plural(total, 'layer')}"
    return f"{count}{of} {'pulls' if count == 1 else 'pull'}"


def _cosines(values: Sequence[float]) -> str:
    """One or two in full, else the range."""
    first, *rest = [_number(value) for value in values]
    if not rest:
        return f"cosine {first}"
    return f"cosine {first} and {rest[0]}" if len(rest) == 1 else f"cosines {first} to {rest[-1]}"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")

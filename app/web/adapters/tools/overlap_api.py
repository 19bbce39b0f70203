"""REST: how far adapters overlap before they are combined."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.registry.adapters import overlap
from app.registry.adapters.overlap import PairOverlap, PairState
from app.registry.adapters.resolve import resolve
from app.registry.errors import invalid_field
from app.registry.job_kinds.weighted import WeightedAdapter
from app.web.answers import Answer
from app.web.problems import problems
from app.web.rest.bodies import example
from app.web.state import State
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS

router = APIRouter(tags=["tools"])


class OverlapIn(BaseModel):
    """The adapters to compare, each with each."""

    model_config = example(adapters=[{"id": 1}, {"id": 2}])
    adapters: list[WeightedAdapter] = Field(
        min_length=2,
        max_length=MAX_RENDER_ADAPTERS,
        description="At least two; weights do not matter.",
    )


class ComparedVersionOut(Answer):
    """One side of a pair."""

    id: int = Field(description="Id of the adapter.")
    version: int = Field(description="Number of the version.")
    name: str = Field(description="Name of the adapter.")


class LayerOverlapOut(Answer):
    """The overlap in one layer that both adapters change."""

    layer: str = Field(
        description="Its key.", examples=["unet.mid_block.attentions.0.transformer_blocks.0…"]
    )
    cosine: float = Field(description="Of both weight changes: 1 the same, -1 the opposite.")
    inputs: float = Field(description="Share of the input directions that are the same, 0 to 1.")
    outputs: float = Field(description="Share of the output directions that are the same, 0 to 1.")


class PairOverlapOut(Answer):
    """The overlap of two of the adapters."""

    first: ComparedVersionOut = Field(description="The one that was named first.")
    second: ComparedVersionOut = Field(description="The other one.")
    status: PairState = Field(
        description="`ready`, `computing`, `failed`, or `unfit`: made for different base models."
    )
    problem: str | None = Field(description="Why there is no overlap, as a sentence.")
    level: overlap.OverlapLevel | None = Field(
        description=f"`much`: a third of the layers have a cosine of {overlap.NOTABLE:g} or more, "
        "or of minus that or less; `some`: at least one has; null: not known."
    )
    cosine: float | None = Field(description="Of both whole weight changes.")
    layers: list[LayerOverlapOut] = Field(
        description="The layers that both change, from the text encoders to the output."
    )


class StackCheckOut(Answer):
    """The overlap of the adapters of a stack."""

    status: PairState = Field(
        description="`computing` while a pair is, then `ready`; ask again until it is."
    )
    sentence: str = Field(description="What was found, for people.")
    level: overlap.OverlapLevel | None = Field(description="Of the pair that overlaps most.")
    shared_trigger_words: list[str] = Field(description="Trigger words that several have.")
    pairs: list[PairOverlapOut] = Field(description="Each adapter with each other.")


@router.post(
    "/adapters/overlap",
    responses=problems({404: "There is no such adapter or version."}),
)
def compare_adapters(body: OverlapIn, state: State) -> StackCheckOut:
    """Compare adapters before they are combined.

    The answer comes at once, and has the status `computing` until a worker has read all of them:
    send the same request again. What was computed once is kept. A pair that failed is computed
    again when it is asked for a minute later.
    """
    with state.database.read() as session:
        made = [resolve(session, one)[1] for one in body.adapters]
    if len({version.key for _, version in made}) < len(made):
        raise invalid_field("adapters", "The same version is named twice. Name different ones.")
    check = overlap.check_stack(state.database, made)
    return StackCheckOut.of(
        check,
        status=PairState.COMPUTING if check.is_computing else PairState.READY,
        shared_trigger_words=check.shared_words,
        pairs=[_pair_out(pair) for pair in check.pairs],
    )


def _pair_out(pair: PairOverlap) -> PairOverlapOut:
    return PairOverlapOut.of(
        pair,
        first=ComparedVersionOut.of(*pair.first),
        second=ComparedVersionOut.of(*pair.second),
        status=pair.state,
        problem=pair.problem or None,
    )

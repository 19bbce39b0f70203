"""REST: captions of a dataset by providers: previews, orders and their proposals."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.registry.datasets import service
from app.registry.datasets.auto_caption import guesses, orders, proposals
from app.registry.datasets.auto_caption.orders import OrderProgress, Preview
from app.registry.datasets.auto_caption.proposals import Applied, ProposedChange
from app.registry.datasets.auto_caption.providers import (
    MAX_ADDRESS,
    MAX_MODEL,
    Provider,
    default_words,
    list_providers,
    local_models,
)
from app.registry.job_kinds.caption_kinds import CaptionArgs
from app.registry.slugs import Number, Reference, RowId
from app.registry.tables.datasets import Dataset, ProposalState
from app.registry.validation import Fraction
from app.web.access.needs import Action, Router
from app.web.answers import Answer, JobAnswer
from app.web.problems import CANCEL, problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import DatasetId, Id, Reading, State, Writing
from worker.core.captioning.do_not_name import MAX_WORD_LENGTH, MAX_WORDS
from worker.core.captioning.interface import DEFAULT_PROMPT, MAX_PROMPT
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.core.documented import DocumentedModel
from worker.core.words import CaptionKind

router = Router(tags=["datasets"])

MAX_IDS = 20_000
ProposalT = TypeVar("ProposalT", bound="ProposalOut")
Word = Annotated[str, Field(max_length=MAX_WORD_LENGTH)]


class ProvidersOut(BaseModel):
    """The caption providers of this server, and the usual prompt."""

    providers: list[Provider] = Field(description="The providers.")
    prompt: str = Field(description="The prompt.")
    do_not_name: list[str] = Field(description="Words that are taken out of every caption.")


class AskIn(DocumentedModel):
    """A question to a provider."""

    model_config = ConfigDict(extra="forbid")
    provider: ProviderKind = ProviderKind.BUILTIN
    """Who writes the captions. `builtin` needs nothing; `filename` is done at once."""
    address: str = Field("", max_length=MAX_ADDRESS)
    """Address of the server; empty: the configured one."""
    model: str = Field("", max_length=MAX_MODEL)
    """Model of the server, empty: the configured one; or the slug of a local model."""
    model_id: Reference | None = Field(None, description="A local model, by its id or slug.")
    prompt: str = Field(DEFAULT_PROMPT, max_length=MAX_PROMPT)
    """What captions should describe."""
    do_not_name: list[Word] | None = Field(None, max_length=MAX_WORDS)
    """Words taken out of every caption; absent: the trigger word and words for styles."""

    def request(self, dataset: Dataset) -> CaptionArgs:
        """The request as the registry takes it."""
        values = self.model_dump(include={"provider", "address", "model", "model_id", "prompt"})
        if isinstance(self.model_id, str):
            values |= {"model": self.model_id, "model_id": None}
        words = self.do_not_name
        given = default_words(dataset) if words is None else [w for w in words if w.strip()]
        return CaptionArgs(**values, do_not_name=tuple(given))


class PreviewIn(AskIn):
    """One image to try a provider on."""

    model_config = example(image_id=1, provider="builtin")
    image_id: RowId = Field(description="Id of the image.")


class PreviewOut(JobAnswer):
    """The caption of one image; nothing is changed."""

    address: ClassVar[str] = "/api/v1/datasets/{dataset_id}/captions/previews/{id}"
    image_id: int = Field(description="Id of the image.")
    caption: str = Field(description="The caption; empty while it is being written, or if none.")
    note: str = Field(description="Why a preview that succeeded has no caption, as a sentence.")
    guess: str = Field(description="What it was too unsure to name; empty: nothing.")
    confidence: float | None = Field(description="The confidence of the guess, 0 to 1.")
    removed: list[str] = Field(description="Words that were taken out of the caption.")
    provider: str = Field(description="Who wrote it, such as `Ollama llava`.")


class OrderIn(AskIn):
    """Captions of a dataset."""

    model_config = example(provider="builtin", mode="fill", write=True)
    image_ids: list[RowId] | None = Field(None, max_length=MAX_IDS)
    """Ids of the images; absent: all of the dataset."""
    mode: CaptionMode = CaptionMode.FILL
    """`fill`: images without a caption. `append`, `replace`: change captions, which are proposals
    first."""
    caption_kind: CaptionKind | None = None
    """Which caption of each image, added where it is missing; null: the first one."""
    write: StrictBool = Field(False, description="Write them when all are made; for `fill` only.")


class OrderOut(JobAnswer):
    """An order of captions, and how far it is."""

    address: ClassVar[str] = "/api/v1/datasets/{dataset_id}/captions/orders/{id}"
    provider: ProviderKind = Field(description="Who writes the captions.")
    mode: CaptionMode = Field(description="fill, append or replace.")
    caption_kind: CaptionKind | None = Field(description="Which captions; null: the first ones.")
    total: int = Field(description="Number of images.")
    done: int = Field(description="Number of images looked at.")
    captioned: int = Field(description="Number of images that got a caption.")
    empty: int = Field(description="Images without one, because the provider was not sure.")
    failed: int = Field(description="Images that failed; an order can be continued with them.")
    written: int | None = Field(description="Captions written at the end; null: none were to be.")


class ProposalOut(Answer):
    """A proposed caption."""

    id: int = Field(description="Id of the proposal.")
    image_id: int = Field(description="Id of the image.")
    filename: str = Field(description="Name of the image.")
    kind: CaptionKind = Field(description="Which of its captions.")
    before: str = Field(description="The caption now.")
    after: str = Field(description="The caption once the proposal is applied.")
    caption_version: int = Field(description="Version of the caption now; 0: it was never written.")
    changed_meanwhile: bool
    """True if the caption was changed after the proposal was made. Applying leaves it then, unless
    `seen` names the version that it has now."""
    removed: list[str] = Field(description="Words that were taken out of the proposal.")
    provider: str = Field(description="Who wrote it.")


class GuessOut(ProposalOut):
    """What a provider was too unsure to write."""

    guess: str = Field(description="What it would have named.")
    confidence: float = Field(description="Its confidence, 0 to 1.")


class GuessesIn(DocumentedModel):
    """The guesses to write: those of these ids, or those that are confident enough."""

    model_config = example(above=0.5)
    proposal_ids: list[RowId] | None = Field(None, max_length=MAX_IDS)
    """Ids of guesses."""
    above: Fraction | None = Field(None, description="The least confidence, 0 to 1.")


class ChosenIn(DocumentedModel):
    """The proposals to decide about."""

    model_config = example(proposal_ids=[1, 2])
    proposal_ids: list[RowId] | None = Field(None, max_length=MAX_IDS)
    """Ids of proposals; absent: all of the dataset."""


class SeenIn(DocumentedModel):
    """The caption that somebody saw beside a proposal."""

    model_config = ConfigDict(extra="forbid")
    id: RowId = Field(description="Id of the proposal.")
    caption_version: Number
    """`caption_version` of the proposal; it is applied to this version alone."""


class ApplyIn(ChosenIn):
    """The proposals to apply."""

    model_config = example(proposal_ids=[1], seen=[{"id": 1, "caption_version": 2}])
    seen: list[SeenIn] = Field(default_factory=list, max_length=MAX_IDS)
    """Captions as they were seen, for proposals with `changed_meanwhile`."""


class DiscardedOut(BaseModel):
    """The number of discarded proposals."""

    discarded: int = Field(description="Number of proposals.")


def preview_out(preview: Preview) -> PreviewOut:
    """A preview as the API shows it."""
    result = preview.result
    return PreviewOut.of(result, preview.job, image_id=preview.image.key, provider=result.title)


def order_out(order: OrderProgress) -> OrderOut:
    """An order as the API shows it."""
    return OrderOut.of(
        order,
        order.job,
        order.args,
        empty=order.count(ProposalState.EMPTY),
        failed=order.count(ProposalState.FAILED),
    )


def _proposal_out(change: ProposedChange, out: type[ProposalT]) -> ProposalT:
    row = change.proposal
    return out.of(
        change,
        row,
        change.image,
        caption_version=change.now.version,
        changed_meanwhile=change.is_outdated,
        removed=row.removed.split(", ") if row.removed else [],
        provider=row.source_name,
    )


@router.get("/datasets/{dataset_id}/captions/providers", Action.LOOK)
def list_caption_providers(dataset_id: DatasetId, state: State, session: Reading) -> ProvidersOut:
    """List who can write captions here, with the prompt and the words not to name.

    An Ollama on this machine is asked for its models, for at most 0.3 seconds.
    """
    models = local_models(state.settings)
    dataset = service.get_dataset(session, dataset_id)
    found = list_providers(session, state.settings, models)
    return ProvidersOut(
        providers=found,
        prompt=DEFAULT_PROMPT,
        do_not_name=list(default_words(dataset)),
    )


@router.post("/datasets/{dataset_id}/captions/previews", Action.DRAW, status_code=202)
def preview_caption(
    dataset_id: DatasetId, body: PreviewIn, state: State, session: Writing
) -> PreviewOut:
    """Caption one image as an order would, and keep nothing.

    Ask for the preview until its status is `succeeded` or `failed`. It is `failed`, with its
    `error`, where the server or the model gave no answer, or refused; it is `succeeded` with an
    empty caption and a `note` where the model was not sure of anything.
    """
    dataset = service.get_dataset(session, dataset_id)
    asked = body.request(dataset)
    job = orders.order_preview(session, dataset, body.image_id, asked, state.settings)
    return preview_out(orders.get_preview(session, dataset_id, job.key))


@router.get("/datasets/{dataset_id}/captions/previews/{job_id}", Action.LOOK)
def get_caption_preview(dataset_id: DatasetId, job_id: Id, session: Reading) -> PreviewOut:
    """Get a preview."""
    return preview_out(orders.get_preview(session, dataset_id, job_id))


@router.post(
    "/datasets/{dataset_id}/captions/orders",
    Action.EDIT,
    status_code=202,
    responses=problems({409: "Captions of this dataset are being written."}),
)
def order_captions(
    dataset_id: DatasetId, body: OrderIn, state: State, session: Writing
) -> OrderOut:
    """Order captions of images of a dataset.

    They become proposals, which change nothing until they are applied; with `write`, captions of
    images without one are written at the end, in one step that can be undone.
    """
    dataset = service.get_dataset(session, dataset_id)
    job = orders.order_captions(
        session,
        dataset,
        body.request(dataset),
        state.settings,
        image_ids=body.image_ids,
        mode=body.mode,
        kind=body.caption_kind,
        write=body.write,
    )
    return order_out(orders.progress_of(session, job))


@router.get("/datasets/{dataset_id}/captions/orders/{job_id}", Action.LOOK)
def get_caption_order(dataset_id: DatasetId, job_id: Id, session: Reading) -> OrderOut:
    """Get an order of captions with its progress."""
    return order_out(orders.get_order(session, dataset_id, job_id))


@router.post("/datasets/{dataset_id}/captions/orders/{job_id}/cancel", Action.CONTROL, **CANCEL)
def cancel_caption_order(dataset_id: DatasetId, job_id: Id, session: Writing) -> OrderOut:
    """Cancel an order of captions.

    What it has made stays proposed.
    """
    return order_out(orders.cancel_order(session, dataset_id, job_id))


@router.post(
    "/datasets/{dataset_id}/captions/orders/{job_id}/continue",
    Action.EDIT,
    status_code=202,
    responses=problems({409: "It is at work, or complete."}),
)
def continue_caption_order(
    dataset_id: DatasetId, job_id: Id, state: State, session: Writing
) -> OrderOut:
    """Order the images that an ended order has left, those that failed included."""
    dataset = service.get_dataset(session, dataset_id)
    job = orders.continue_order(session, dataset, job_id, state.settings)
    return order_out(orders.progress_of(session, job))


@router.get("/datasets/{dataset_id}/captions/orders/{job_id}/guesses", Action.LOOK)
def list_caption_guesses(
    dataset_id: DatasetId,
    job_id: Id,
    session: Reading,
    part: Part,
    above: Annotated[Fraction, Query(description="The least confidence, 0 to 1.")] = 0.0,
) -> list[GuessOut]:
    """List what the provider was too unsure to write, the surest first."""
    order = orders.get_order(session, dataset_id, job_id)
    found = guesses.list_guesses(session, order, above=above)
    shown = part.of(found, lambda one: (-(one.proposal.confidence or 0), one.image.key))
    return [_proposal_out(change, GuessOut) for change in shown]


@router.post("/datasets/{dataset_id}/captions/orders/{job_id}/guesses/apply", Action.EDIT)
def apply_caption_guesses(
    dataset_id: DatasetId, job_id: Id, body: GuessesIn, session: Writing
) -> Applied:
    """Write guesses as captions, in one step that can be undone.

    An order that fills empty captions leaves images that have one by now.
    """
    order = orders.get_order(session, dataset_id, job_id)
    return guesses.apply_guesses(session, order, body.proposal_ids, above=body.above)


@router.get("/datasets/{dataset_id}/captions/proposals", Action.LOOK)
def list_caption_proposals(
    dataset_id: DatasetId, session: Reading, part: Part
) -> list[ProposalOut]:
    """List the proposed captions that wait for a decision, by image."""
    service.get_dataset(session, dataset_id)
    found = proposals.list_proposed(session, dataset_id)
    shown = part.of(found, lambda one: (one.image.key, one.proposal.key))
    return [_proposal_out(change, ProposalOut) for change in shown]


@router.post("/datasets/{dataset_id}/captions/proposals/apply", Action.EDIT)
def apply_caption_proposals(dataset_id: DatasetId, body: ApplyIn, session: Writing) -> Applied:
    """Write proposed captions, in one step that can be undone.

    A caption that was changed after its proposal was made is left, unless `seen` names the version
    that it has now; so a request that is repeated changes nothing more. Only captions that are
    empty now are filled.
    """
    seen = {one.id: one.caption_version for one in body.seen}
    service.get_dataset(session, dataset_id)
    return proposals.apply_proposals(session, dataset_id, body.proposal_ids, seen=seen)


@router.post("/datasets/{dataset_id}/captions/proposals/discard", Action.EDIT)
def discard_caption_proposals(
    dataset_id: DatasetId, body: ChosenIn, session: Writing
) -> DiscardedOut:
    """Discard proposed captions."""
    service.get_dataset(session, dataset_id)
    return DiscardedOut(
        discarded=proposals.discard_proposals(session, dataset_id, body.proposal_ids)
    )

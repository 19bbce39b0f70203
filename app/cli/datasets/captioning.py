"""`brushwork datasets caption`: a model captions the images of a dataset."""

from __future__ import annotations

import sys
from argparse import Namespace

from app.cli.io_jobs import wait_for_io
from app.registry.datasets import service
from app.registry.datasets.auto_caption import guesses, orders, proposals
from app.registry.datasets.auto_caption.providers import default_words
from app.registry.datasets.edits.selection import read_ids
from app.registry.job_kinds.caption_kinds import CaptionArgs, PreviewCaptionResult
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset
from app.registry.tables.jobs import IoJob
from app.registry.wording import plural
from worker.core.captioning.do_not_name import parse_words
from worker.core.captioning.words import CaptionMode, ProviderKind
from worker.core.words import CaptionKind

SHOWN = 10_000  # images without a caption
NO_WORKER = (
    "No io worker is at work. Start Brushwork (`brushwork serve`) and it continues; the page of "
    "the dataset shows it."
)


def run_caption(arguments: Namespace, state: AppState) -> int:
    """Caption one image, or order captions and print or write them; 1 if something failed.

    Raises NotFound, InvalidInput, Conflict and NotReady.
    """
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
    if arguments.preview:
        return _preview(state, dataset, _request(arguments, dataset), arguments.preview)
    return _order(state, dataset, arguments)


def _request(arguments: Namespace, dataset: Dataset) -> CaptionArgs:
    words = arguments.do_not_name
    given = {"prompt": arguments.prompt} if arguments.prompt else {}
    return CaptionArgs(
        provider=ProviderKind(arguments.provider),
        address=arguments.address,
        model=arguments.model,
        do_not_name=default_words(dataset) if words is None else parse_words(words),
        **given,
    )


def _preview(state: AppState, dataset: Dataset, asked: CaptionArgs, image_id: int) -> int:
    with state.database.write() as session:
        key = orders.order_preview(session, dataset, image_id, asked, state.settings).key

    def find() -> IoJob | None:
        with state.database.read() as session:
            job = session.get_one(IoJob, key)
        return None if job.state.is_active else job

    job = wait_for_io(state, find, lambda: "waiting for the caption", NO_WORKER)
    if job.error:
        print(job.error, file=sys.stderr)
        return 1
    result = job.outcome(PreviewCaptionResult)
    print(result.caption or f"No caption: {result.note}")
    return 0


def _order(state: AppState, dataset: Dataset, arguments: Namespace) -> int:
    mode = CaptionMode(arguments.mode)
    chosen = sorted(read_ids(arguments.images)) if arguments.images else None
    with state.database.write() as session:
        key = orders.order_captions(
            session,
            dataset,
            _request(arguments, dataset),
            state.settings,
            image_ids=chosen,
            mode=mode,
            kind=CaptionKind(arguments.kind) if arguments.kind else None,
        ).key
    latest = ""

    def find() -> orders.OrderProgress | None:
        nonlocal latest
        with state.database.read() as session:
            order = orders.get_order(session, dataset.key, key)
        latest = f"{order.done:,} of {plural(order.total, 'image')}"
        return None if order.is_active else order

    order = wait_for_io(state, find, lambda: latest, NO_WORKER)
    _print_captions(state, order, arguments.above)
    if order.job.error:
        print(order.job.error, file=sys.stderr)
    if arguments.apply:
        with state.database.write() as session:
            print(proposals.apply_proposals(session, dataset.key).sentence)
            if arguments.above is not None:
                taken = guesses.apply_guesses(session, order, above=arguments.above)
                print(f"Of guesses, {taken.sentence}")
    return 0 if order.done == order.total and not order.count("failed") else 1


def _print_captions(state: AppState, order: orders.OrderProgress, above: float | None) -> None:
    """Print captions, guesses with at least the confidence `above`, and why others are empty."""
    assert order.job.subject_id is not None
    with state.database.read() as session:
        for change in proposals.list_proposed(session, order.job.subject_id):
            print(f"{change.image.filename}: {change.after}")
        unsure = guesses.list_guesses(session, order)
        left = proposals.list_left_empty(session, order.job.key, limit=SHOWN)
    for change in [*unsure, *left]:
        row, name = change.proposal, change.image.filename
        if above is not None and row.confidence is not None and row.confidence >= above:
            print(f"{name}: {change.after} ({row.confidence:.0%})")
        else:
            print(f"{name}: no caption. {row.note}", file=sys.stderr)

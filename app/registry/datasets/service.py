"""Operations on datasets, their images and captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from app.registry.blobs import findings
from app.registry.datasets import new_images as adding
from app.registry.datasets import used_datasets
from app.registry.datasets.caption_words import contains_words, has_words
from app.registry.datasets.caption_writes import BY_HAND, CaptionOrigin, write_caption
from app.registry.datasets.captions import CaptionFromFile, CaptionRefused, clean_caption
from app.registry.datasets.figures import DatasetFigures, count_figures
from app.registry.datasets.image_conditions import Scope, any_caption
from app.registry.datasets.new_images import NewImage
from app.registry.datasets.sent_files.pairing import PairedCaptions
from app.registry.db import in_chunks, utcnow
from app.registry.errors import Conflict, InUse, NotFound, invalid_field
from app.registry.paging import Page, read_rows
from app.registry.slugs import insert_named
from app.registry.tables.datasets import MAX_REPEATS, Dataset, Image, is_live, is_trained
from app.registry.tables.owned import everything, is_hidden, principal_of
from app.registry.tables.runs import Run
from app.registry.validation import checked_name, one_line

DATASETS_A_PAGE = 24
COLLAGE = 4
NAMELESS = "Give the dataset a name, so that you can find it again."
NEWEST = (col(Dataset.created_at).desc(), col(Dataset.id).desc())
CAPTIONS_READ = 200  # for the form that they have in common
COLLAGES_AT_ONCE = 100  # datasets in one query; SQLite joins at most 500


@dataclass(frozen=True)
class AddedImage:
    """The row of an uploaded image; `duplicate` if the dataset already had it.

    `unused`: captions that were sent for it, but that are only in its history. `filled`: it had no
    caption, and has that of a file now.
    """

    image: Image
    duplicate: bool
    unused: tuple[CaptionFromFile, ...] = ()
    filled: bool = False


@dataclass(frozen=True, kw_only=True)
class DatasetSummary(DatasetFigures):
    """Summary of a dataset for cards."""

    dataset: Dataset
    collage: list[Image]
    run_count: int


def create_dataset(session: Session, name: str, *, trigger_word: str | None = None) -> Dataset:
    """Create an empty dataset. Raises InvalidInput for a name without a character to be seen."""
    name, trigger_word = checked_name(name, empty=NAMELESS), one_line(trigger_word or "") or None
    return insert_named(session, Dataset, name, fallback="dataset", trigger_word=trigger_word)


def get_dataset(session: Session, dataset_id: int, *, lock: bool = False) -> Dataset:
    """Look up a dataset. Raises NotFound, also if it was deleted."""
    return _find_dataset(session, col(Dataset.id) == dataset_id, lock=lock)


def lock_datasets(session: Session, dataset_ids: Iterable[int]) -> None:
    """Keep these datasets as they are until the session ends.

    They are locked in the order of their ids, so that two requests never wait for each other.
    """
    wanted = col(Dataset.id).in_(set(dataset_ids))
    session.exec(select(Dataset.id).where(wanted).order_by(col(Dataset.id)).with_for_update()).all()


def dataset_by_slug(session: Session, slug: str) -> Dataset:
    """Look up a dataset by its slug. Raises NotFound, also if it was deleted."""
    return _find_dataset(session, col(Dataset.slug) == slug)


def _find_dataset(
    session: Session, wanted: sa.ColumnElement[bool], *, lock: bool = False
) -> Dataset:
    query = select(Dataset).where(wanted, col(Dataset.deleted_at).is_(None))
    dataset = session.exec(query.with_for_update() if lock else query).first()
    if dataset is None:
        raise NotFound("There is no such dataset; it may have been deleted.")
    return dataset


def list_datasets(
    session: Session, *, q: str = "", limit: int | None = None
) -> list[DatasetSummary]:
    """Summaries of datasets, newest first."""
    query = select(Dataset).where(*_dataset_filters(q)).order_by(*NEWEST).limit(limit)
    return summarize(session, session.exec(query).all())


def page_datasets(
    session: Session, *, q: str = "", number: int = 1, size: int = DATASETS_A_PAGE
) -> Page[DatasetSummary]:
    """A page of `list_datasets`."""
    filters = _dataset_filters(q)
    found = read_rows(session, Dataset, *filters, size=size, number=number, order=NEWEST)
    return found.of(summarize(session, found.items))


def _dataset_filters(q: str) -> list[sa.ColumnElement[bool]]:
    filters: list[sa.ColumnElement[bool]] = [col(Dataset.deleted_at).is_(None)]
    if q:
        filters.append(
            col(Dataset.name).icontains(q, autoescape=True)
            | col(Dataset.trigger_word).icontains(q, autoescape=True)
        )
    return filters


def caption_has_word(session: Session, dataset_id: int, trigger_word: str) -> bool:
    """True if a caption contains the trigger word; without trigger word or image, too."""
    if not trigger_word:
        return True
    images = select(Image.id).where(is_trained(dataset_id))
    if session.exec(images.limit(1)).first() is None:
        return True
    scope = Scope(dataset_id, trigger_word, 0)
    naming = images.where(any_caption(scope, lambda text: has_words(text, trigger_word)))
    return session.exec(naming.limit(1)).first() is not None


def count_without_word(session: Session, dataset_id: int, trigger_word: str) -> int:
    """The number of images that are trained on whose first caption lacks this word."""
    lacking = sa.not_(has_words(Image.caption, trigger_word))
    query = select(func.count()).select_from(Image).where(is_trained(dataset_id), lacking)
    return session.exec(query).one()


def caption_form(session: Session, dataset_id: int, trigger_word: str) -> tuple[str, str] | None:
    """What stands before and after the subject in most captions with this word: "", ", ink".

    None unless most of them have it in the same first or last part between commas.
    """
    naming = has_words(Image.caption, trigger_word)
    query = select(Image.caption).where(is_trained(dataset_id), naming).limit(CAPTIONS_READ)
    forms = Counter(_form_of(caption, trigger_word) for caption in session.exec(query))
    form, count = next(iter(forms.most_common(1)), (None, 0))
    return form if 2 * count > forms.total() else None


def _form_of(caption: str, word: str) -> tuple[str, str] | None:
    parts = [part.strip() for part in caption.split(",")]
    if len(parts) > 1 and contains_words(parts[-1], word):
        return "", f", {parts[-1]}"
    return (f"{parts[0]}, ", "") if len(parts) > 1 and contains_words(parts[0], word) else None


def trigger_word_of(session: Session, dataset_id: int) -> str:
    """The trigger word of a dataset; empty without one, or if it is deleted for good."""
    dataset = session.get(Dataset, dataset_id)
    return (dataset.trigger_word if dataset else None) or ""


def summarize(
    session: Session,
    datasets: Sequence[Dataset],
    figures: Mapping[int, DatasetFigures] | None = None,
) -> list[DatasetSummary]:
    """Summaries of these datasets, in a constant number of queries.

    `figures`: those of all of them by id, if they are known already.
    """
    keys = [dataset.key for dataset in datasets]
    counted = count_figures(session, keys) if figures is None else figures
    runs = used_datasets.count_runs(session, keys)
    collages = _collage_images(session, keys)
    return [
        DatasetSummary(
            **vars(counted[dataset.key]),
            dataset=dataset,
            collage=collages.get(dataset.key, []),
            run_count=runs.get(dataset.key, 0),
        )
        for dataset in datasets
    ]


def _collage_images(session: Session, keys: list[int]) -> dict[int, list[Image]]:
    collages: dict[int, list[Image]] = {}
    for start in range(0, len(keys), COLLAGES_AT_ONCE):
        first = _first_images(keys[start : start + COLLAGES_AT_ONCE])
        images = select(Image).where(col(Image.id).in_(first)).order_by(col(Image.id))
        for image in session.exec(images):
            collages.setdefault(image.dataset_id, []).append(image)
    return collages


def _first_images(keys: Sequence[int]) -> sa.CompoundSelect[tuple[int]]:
    """The ids of the first images of each dataset, without reading the others."""
    of_each = [
        sa.select(col(Image.id).label("id"))
        .where(is_live(key))
        .order_by(col(Image.id))
        .limit(COLLAGE)
        .subquery()
        for key in keys
    ]
    return sa.union_all(*(sa.select(images.c.id) for images in of_each))


def summary(
    session: Session, dataset: Dataset, figures: DatasetFigures | None = None
) -> DatasetSummary:
    """Summary of one dataset; `figures`: if they are known."""
    return summarize(session, [dataset], {dataset.key: figures} if figures else None)[0]


def change_dataset(
    session: Session, dataset_id: int, *, name: str | None = None, trigger_word: str | None = None
) -> Dataset:
    """Change the name or trigger word ("" removes it); None leaves a value unchanged."""
    dataset = get_dataset(session, dataset_id, lock=True)
    if name is not None:
        dataset.name = checked_name(name, empty=NAMELESS)
    if trigger_word is not None:
        dataset.trigger_word = one_line(trigger_word) or None
    session.add(dataset)
    return dataset


def delete_dataset(session: Session, dataset_id: int) -> Dataset:
    """Delete a dataset. Raises InUse if an unfinished run uses it.

    Finished runs keep the version they were trained on.
    """
    dataset = get_dataset(session, dataset_id, lock=True)
    unfinished = select(Run.id, Run.name, Run.visibility, Run.owner_id).where(
        used_datasets.is_of_datasets([dataset_id]),
        col(Run.status).in_(("queued", "running", "paused")),
    )
    principal = principal_of(session)
    with everything(session):
        running = session.exec(unfinished).first()
    if running is not None:
        run_id, name, *_ = running
        run = "A private run" if is_hidden(principal, running) else f"The run “{name}”"
        raise InUse(
            f"{run} uses this dataset. Wait until it ends or cancel it, then delete the dataset.",
            about={"run_id": run_id or 0},
        )
    dataset.deleted_at = utcnow()
    session.add(dataset)
    return dataset


def list_images(session: Session, dataset_id: int, *, lock: bool = False) -> list[Image]:
    """The images of a dataset, oldest first; with `lock`, nobody else changes them meanwhile."""
    images = select(Image).where(is_live(dataset_id))
    ordered = images.order_by(col(Image.id))
    return list(session.exec(_locked(ordered) if lock else ordered))


def _locked(images: SelectOfScalar[Image]) -> SelectOfScalar[Image]:
    """The query, for rows as they are once nobody else is changing them."""
    return images.with_for_update().execution_options(populate_existing=True)


def trained_images(session: Session, dataset_id: int) -> list[Image]:
    """The images that a run is trained on, oldest first: all but those set aside."""
    return [image for image in list_images(session, dataset_id) if not image.set_aside]


def get_image(session: Session, image_id: int, *, lock: bool = False) -> Image:
    """Look up an image. Raises NotFound, also if it was deleted."""
    query = select(Image).where(Image.id == image_id, col(Image.deleted_at).is_(None))
    image = session.exec(query.with_for_update() if lock else query).first()
    if image is None:
        raise NotFound("There is no such image; it may have been deleted.")
    return image


def add_images(session: Session, dataset_id: int, images: Iterable[NewImage]) -> list[AddedImage]:
    """Add checked images; existing ones keep their captions, deleted ones are restored."""
    get_dataset(session, dataset_id, lock=True)
    wanted = list(images)
    hashes = (hash_ for new in wanted for hash_ in (new.clean_sha256, new.thumbnail_sha256))
    findings.forget_problems(session, *hashes)
    known = _images_by_hash(session, dataset_id, {new.sha256 for new in wanted})
    return [_add_image(session, dataset_id, new, known) for new in wanted]


def _images_by_hash(session: Session, dataset_id: int, hashes: Collection[str]) -> dict[str, Image]:
    """The images of a dataset that are these files, deleted ones too."""
    of_dataset = _locked(
        select(Image).where(Image.dataset_id == dataset_id).order_by(col(Image.id))
    )
    return {
        image.sha256: image
        for part in in_chunks(hashes)
        for image in session.exec(of_dataset.where(col(Image.sha256).in_(part)))
    }


def _add_image(
    session: Session, dataset_id: int, new: NewImage, known: dict[str, Image]
) -> AddedImage:
    existing = known.get(new.sha256)
    if existing is None:
        image = known[new.sha256] = adding.add_new(session, dataset_id, new)
        return AddedImage(image, duplicate=False, unused=new.unused_captions)
    was_deleted, was_empty = existing.deleted_at is not None, not existing.caption
    unused = adding.add_again(session, existing, new)
    filled = was_empty and bool(existing.caption)
    return AddedImage(existing, duplicate=not was_deleted, unused=unused, filled=filled)


def caption_by_stem(
    session: Session, dataset_id: int, captions: Mapping[str, PairedCaptions]
) -> dict[str, AddedImage]:
    """Give images what files say about them; return the images found.

    An image is known by its hash, which exports name, else by its name without suffix.
    """
    by_stem: dict[str, Image] = {}
    by_hash: dict[str, Image] = {}
    get_dataset(session, dataset_id, lock=True)  # before its images, as everywhere
    for row in list_images(session, dataset_id, lock=True) if captions else ():
        by_stem.setdefault(row.filename.rsplit(".", 1)[0], row)
        by_hash |= {row.clean_sha256: row, row.sha256: row}
    found = {}
    for stem, caption in captions.items():
        hashes = caption.facts.hashes
        image = next((by_hash[one] for one in hashes if one in by_hash), None) or by_stem.get(stem)
        if image is None:
            continue
        was_empty = not image.caption
        unused = adding.add_loose(session, image, caption)
        filled = was_empty and bool(image.caption)
        found[stem] = AddedImage(image, duplicate=True, unused=unused, filled=filled)
    return found


def checked_caption(caption: str) -> str:
    """The caption as it is stored. Raises InvalidInput with the reason."""
    try:
        return clean_caption(caption)
    except CaptionRefused as refused:
        raise invalid_field("caption", str(refused)) from None


def require_seen(seen_version: int | None, version: int, caption: str) -> None:
    """Raise Conflict with the text if a caption was changed since a version."""
    if seen_version is not None and seen_version != version:
        raise Conflict(
            f"This caption was changed elsewhere to “{caption}”. Yours was not saved; "
            "save again to replace theirs.",
            fields={"caption": caption, "caption_version": str(version)},
        )


def caption_image(
    session: Session,
    image_id: int,
    caption: str,
    *,
    seen_version: int | None = None,
    origin: CaptionOrigin = BY_HAND,
) -> Image:
    """Change a caption and keep the old one as a revision.

    `seen_version`: the version that the user edited. If it has changed since, nothing is written
    and the Conflict contains the new text.
    """
    caption = checked_caption(caption)
    image = get_image(session, image_id, lock=True)
    if caption == image.caption:
        return image
    require_seen(seen_version, image.caption_version, image.caption)
    write_caption(session, image, caption, origin)
    return image


def change_image(
    session: Session,
    image_id: int,
    *,
    repeats: int | None = None,
    never_flip: bool | None = None,
    set_aside: bool | None = None,
) -> Image:
    """Change how runs use an image; None leaves a value unchanged."""
    if repeats is not None and not 1 <= repeats <= MAX_REPEATS:
        raise invalid_field("repeats", f"Enter a number of repeats from 1 to {MAX_REPEATS}.")
    image = get_image(session, image_id, lock=True)
    image.repeats = image.repeats if repeats is None else repeats
    image.never_flip = image.never_flip if never_flip is None else never_flip
    image.set_aside = image.set_aside if set_aside is None else set_aside
    return _store_image(session, image)


def set_focus(session: Session, image_id: int, focus: tuple[float, float] | None) -> Image:
    """Set the point (x, y) that crops of an image keep, each 0 to 1; None: the center."""
    if focus is not None and not all(0 <= place <= 1 for place in focus):  # NaN is not
        sentence = "The focus is two numbers from 0 to 1: from the left, and from the top."
        raise invalid_field("focus", sentence)
    image = get_image(session, image_id, lock=True)
    image.focus_x, image.focus_y = focus or (None, None)
    return _store_image(session, image)


def _store_image(session: Session, image: Image) -> Image:
    """Flush a changed image, so that later queries of this session see it."""
    session.add(image)
    session.flush()
    return image


def delete_image(session: Session, image_id: int) -> Image:
    """Delete an image from its dataset; dataset versions of runs keep it."""
    image = get_image(session, image_id, lock=True)
    image.deleted_at = utcnow()
    return _store_image(session, image)

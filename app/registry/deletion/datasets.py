"""Deletes deleted datasets and images for good.

Runs keep the images and captions they were trained on, unless they are deleted too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.blobs.deletion import Deletion
from app.registry.datasets import pinned, used_datasets
from app.registry.datasets.used_datasets import forget_datasets, trained_on
from app.registry.db import in_chunks
from app.registry.deletion import runs as run_deletion
from app.registry.deletion.lists import count_deleted, deleted_row
from app.registry.errors import NotFound
from app.registry.tables.datasets import (
    CaptionProposal,
    CaptionRevision,
    Dataset,
    DatasetEdit,
    DatasetVersion,
    Image,
    ImageCaption,
    ImageMeasure,
)
from app.registry.tables.owned import everything, may_own, principal_of
from app.registry.tables.runs import Run
from app.registry.wording import plural


def list_deleted_images(session: Session, dataset_id: int) -> list[Image]:
    """The deleted images of a dataset, the last deleted first."""
    deleted = select(Image).where(
        Image.dataset_id == dataset_id, col(Image.deleted_at).is_not(None)
    )
    return list(session.exec(deleted.order_by(col(Image.deleted_at).desc(), col(Image.id))))


def count_deleted_images(session: Session, dataset_id: int) -> int:
    """Number of deleted images of a dataset."""
    return count_deleted(session, Image, col(Image.dataset_id) == dataset_id)


def delete_image(session: Session, image_id: int, *, with_runs: bool = False) -> Deletion:
    """Delete a deleted image with its captions, and on request the runs that were trained on it.

    Raises Conflict if it is not deleted yet, or if such a run has not ended.
    """
    image = deleted_row(session, Image, image_id)
    deletion = Deletion(f"image “{image.filename}”")
    _delete_images(session, image.dataset_id, [image], deletion, with_runs=with_runs)
    return deletion


def delete_deleted_images(
    session: Session, dataset_id: int, *, with_runs: bool = False
) -> Deletion:
    """Delete all deleted images of a dataset, like `delete_image`."""
    dataset = session.get(Dataset, dataset_id, with_for_update=True)
    if dataset is None:
        raise NotFound("There is no such dataset; it may have been deleted for good.")
    deletion = Deletion(f"the deleted images of “{dataset.name}”")
    images = list_deleted_images(session, dataset_id)
    _delete_images(session, dataset_id, images, deletion, with_runs=with_runs)
    return deletion


def delete_all_deleted_images(session: Session) -> Deletion:
    """Delete the deleted images of all datasets that are not deleted themselves."""
    deleted = select(Image.dataset_id).where(col(Image.deleted_at).is_not(None)).distinct()
    live = select(Dataset.id).where(col(Dataset.deleted_at).is_(None))
    deletion = Deletion("the deleted images of all datasets")
    for key in session.exec(live.where(col(Dataset.id).in_(deleted)).order_by(col(Dataset.id))):
        if key is not None:
            deletion.include(delete_deleted_images(session, key))
    return deletion


def _delete_images(
    session: Session,
    dataset_id: int,
    images: Sequence[Image],
    deletion: Deletion,
    *,
    with_runs: bool,
) -> None:
    session.get(Dataset, dataset_id, with_for_update=True)  # no run pins a version meanwhile
    hashes = {image.clean_sha256 for image in images}
    versions = [
        version.key
        for version in _versions(session, dataset_id)
        if hashes & {item["clean_sha256"] for item in version.items}
    ]
    deletion.count(len(images), "image")
    _delete_image_rows(session, images, deletion)
    _delete_or_keep_runs(session, versions, deletion, with_runs=with_runs, hashes=hashes)


def delete_dataset(session: Session, dataset_id: int, *, with_runs: bool = False) -> Deletion:
    """Delete a deleted dataset with its images and captions, and on request the runs on it.

    If runs stay, the images and captions they were trained on stay too, and the dataset's name.
    Raises Conflict if it is not deleted yet, or if such a run has not ended.
    """
    dataset = deleted_row(session, Dataset, dataset_id)
    deletion = Deletion(f"dataset “{dataset.name}”")
    images = session.exec(select(Image).where(Image.dataset_id == dataset_id)).all()
    deletion.count(len(images), "image")
    _delete_image_rows(session, images, deletion)
    versions = [version.key for version in _versions(session, dataset_id)]
    _delete_or_keep_runs(session, versions, deletion, with_runs=with_runs)
    if _runs_of(session, dataset_id):
        return deletion
    with everything(session):
        for trained in trained_on(session, versions):
            forget_datasets(trained, versions)
            session.add(trained)
        session.flush()
    owned = sa.delete(DatasetVersion).where(col(DatasetVersion.dataset_id) == dataset_id)
    session.connection().execute(owned)
    session.connection().execute(sa.delete(Dataset).where(col(Dataset.id) == dataset_id))
    session.expire_all()
    return deletion


def _versions(session: Session, dataset_id: int) -> list[DatasetVersion]:
    query = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset_id)
    return list(session.exec(query.order_by(col(DatasetVersion.id))))


def _runs_of(session: Session, dataset_id: int) -> list[int | None]:
    """The runs that refer to a dataset or to a version of it."""
    versions = select(DatasetVersion.id).where(DatasetVersion.dataset_id == dataset_id)
    referring = used_datasets.is_of_datasets([dataset_id]) | used_datasets.uses_versions(versions)
    with everything(session):
        return list(session.exec(select(Run.id).where(referring)))


def _delete_image_rows(session: Session, images: Sequence[Image], deletion: Deletion) -> None:
    captions = _delete_rows(session, images)
    deletion.captions |= {pinned.caption_hash(caption) for caption in captions}
    for image in images:
        deletion.files |= {image.sha256, image.clean_sha256, image.thumbnail_sha256}


def _delete_or_keep_runs(
    session: Session,
    versions: Sequence[int],
    deletion: Deletion,
    *,
    with_runs: bool,
    hashes: Iterable[str] | None = None,
) -> None:
    """Delete the runs on these dataset versions, or say which images stay because of them.

    `hashes`: only these images are deleted; None: all of them. Versions without runs go. Runs of
    other people stay.
    """
    principal, runs = principal_of(session), pinned.runs_of_versions(session, versions)
    gone = [run for run in runs if with_runs and (principal is None or may_own(principal, run))]
    names = {run.key: run.name for run in gone}
    if runs := [run for run in runs if run.key not in names]:
        kept = _images_of_runs(session, versions, runs)
        number = len(kept if hashes is None else kept & set(hashes))
        deletion.stays.append(
            f"{plural(number, 'image')} {'stays' if number == 1 else 'stay'}, with captions, "
            f"because {plural(len(runs), 'run')} {'was' if len(runs) == 1 else 'were'} trained on "
            f"{'it' if number == 1 else 'them'}."
        )
    for key, name in sorted(names.items(), reverse=True):
        deletion.goes.append(f"run {key}, “{name}”")
        deletion.include(run_deletion.delete_run(session, key))
    deletion.include(pinned.prune_versions(session, versions))
    left = sa.update(DatasetVersion).where(col(DatasetVersion.id).in_(versions))
    session.connection().execute(left.values(outlives_images=True))


def _images_of_runs(session: Session, versions: Sequence[int], runs: Sequence[Run]) -> set[str]:
    with everything(session):
        needed = {key for run in runs for key in used_datasets.version_ids(session, run)}
    rows = session.exec(
        select(DatasetVersion).where(col(DatasetVersion.id).in_(needed & set(versions)))
    )
    return {item["clean_sha256"] for row in rows for item in row.items}


def _delete_rows(session: Session, images: Sequence[Image]) -> set[str]:
    """Delete the rows of these images for good; return every caption that they ever had."""
    captions: set[str] = set()
    keys = [image.key for image in images]
    for chunk in in_chunks(keys):
        for table in (CaptionRevision, ImageCaption, CaptionProposal):
            of_images = col(table.image_id).in_(chunk)
            captions.update(session.exec(select(table.caption).where(of_images)))
            session.connection().execute(sa.delete(table).where(of_images))
    _delete_from_edits(session, {image.dataset_id for image in images}, set(keys))
    for image in images:
        session.delete(image)
    session.flush()
    _delete_measures(session, {image.clean_sha256 for image in images})
    return captions


def _delete_from_edits(session: Session, dataset_ids: set[int], image_ids: set[int]) -> None:
    """Remove the images from the edits of their datasets; an edit of no other image goes."""
    edits = select(DatasetEdit).where(col(DatasetEdit.dataset_id).in_(dataset_ids))
    for edit in session.exec(edits).all():
        kept = [row for row in edit.before if row["image_id"] not in image_ids]
        if kept and len(kept) < len(edit.before):
            edit.before = kept
            session.add(edit)
        elif not kept:
            unlink = sa.update(CaptionRevision).where(col(CaptionRevision.edit_id) == edit.key)
            session.connection().execute(unlink.values(edit_id=None))
            session.delete(edit)
    session.flush()


def _delete_measures(session: Session, hashes: set[str]) -> None:
    for chunk in in_chunks(hashes):
        named = select(Image.clean_sha256).where(col(Image.clean_sha256).in_(chunk))
        with everything(session):
            used = session.exec(named).all()
        unused = set(chunk) - set(used)
        of_unused = col(ImageMeasure.clean_sha256).in_(unused)
        session.connection().execute(sa.delete(ImageMeasure).where(of_unused))

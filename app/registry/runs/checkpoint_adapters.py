"""Adapters of checkpoints, written by the train worker; every write requires a valid claim."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters.mentions import delete_version_rows, version_users
from app.registry.adapters.versions.create_version import NewVersion, make_version
from app.registry.blobs import findings
from app.registry.blobs.deletion import Deletion
from app.registry.datasets.used_datasets import dataset_details, used_datasets
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.runs.checkpoints import address_of
from app.registry.slugs import slugify, unique_slug
from app.registry.tables.adapters import Adapter, AdapterFile, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.runs import NOTICE, Run
from worker.core.families.family import FALLBACK_FAMILY

SLUG_OF_NAME = 60  # characters


@dataclass(frozen=True)
class NewAdapter:
    """The adapter of a checkpoint, whose canonical file is stored.

    `is_requested`: a person saved it, so it is kept. `best`: the step of the one that is closest
    to the style so far, if the run measures that.
    """

    step: int
    sha256: str
    size_bytes: int
    tensor_sha256: str
    is_requested: bool = False
    best: int | None = None


def add_adapter(session: Session, claim: Claim, new: NewAdapter, *, keep: int | None) -> None:
    """Store the adapter of a checkpoint, replacing that of the same step; drop all but `keep`.

    None: all are kept. Those that a person keeps do not count, nor those that a job needs now. The
    best one stays.
    """
    jobs.require_owner(session, Run, claim)
    run = session.get_one(Run, claim.job_id)
    address = address_of(session, run.key) or _add_address(session, run)
    at_step = select(AdapterVersion).where(
        AdapterVersion.adapter_id == address.key, AdapterVersion.version == new.step
    )
    row = session.exec(at_step).first()
    if row is None:
        row = make_version(session, _new_version(session, run, address, new), address)
    elif row.sha256 != new.sha256:  # the run resumed from an earlier step
        # its downloads are deleted here, their files by the sweep
        files = sa.delete(AdapterFile).where(col(AdapterFile.version_id) == row.key)
        session.connection().execute(files)
        row.sha256, row.size_bytes = new.sha256, new.size_bytes
        row.tensor_sha256 = new.tensor_sha256
    if new.is_requested and not row.kept:
        row.kept = True
        text = f"A checkpoint was saved at step {new.step:,}; it is kept."
        jobs.record(session, Run, run.key, NOTICE, text=text)
    session.add(row)
    session.flush()
    findings.forget_problems(session, new.sha256)
    if keep is not None:
        _drop_old(session, address, keep, best=new.best)


def _add_address(session: Session, run: Run) -> Adapter:
    base = session.get_one(BaseModel, run.base_model_id)
    name = f"{slugify(run.name, fallback='adapter')[:SLUG_OF_NAME]}-run-{run.key}"
    address = Adapter(
        run_id=run.key,
        slug=unique_slug(session, Adapter, name, fallback="adapter"),
        name=run.name,
        trigger_words=[run.trigger_word] if run.trigger_word else [],
        base_family=base.family or FALLBACK_FAMILY,
    )
    session.add(address)
    session.flush()
    return address


def _new_version(session: Session, run: Run, address: Adapter, new: NewAdapter) -> NewVersion:
    base = session.get_one(BaseModel, run.base_model_id)
    return NewVersion(
        name=address.name,
        base_family=address.base_family,
        sha256=new.sha256,
        size_bytes=new.size_bytes,
        tensor_sha256=new.tensor_sha256,
        rank=run.config["rank"],
        alpha=run.config["alpha"],
        trigger_words=address.trigger_words,
        base_model_id=run.base_model_id,
        dataset_version_id=run.dataset_version_id,
        run_id=run.key,
        steps=new.step,
        trainable_parameters=run.trainable_parameters,
        base_parameters=run.base_parameters,
        peak_memory_bytes=run.peak_memory_bytes,
        training_seconds=run.training_seconds,
        config=dict(run.config),
        details={
            "outcome": "checkpoint",
            **dataset_details(used_datasets(session, run)),
            "base": base.name,
        },
        number=new.step,
    )


def _drop_old(session: Session, address: Adapter, keep: int, *, best: int | None) -> None:
    """Delete old adapters that nobody keeps or needs; the sweep deletes their files."""
    query = select(AdapterVersion).where(
        AdapterVersion.adapter_id == address.key, col(AdapterVersion.kept).is_(False)
    )
    newest_first = session.exec(query.order_by(col(AdapterVersion.version).desc())).all()
    old = [
        row
        for row in newest_first[keep:]
        if row.version != best and not version_users(session, row)
    ]
    if not old:
        return
    keys = [row.key for row in old]
    delete_version_rows(session, old, Deletion(""))
    gone = sa.delete(AdapterVersion).where(col(AdapterVersion.id).in_(keys))
    session.connection().execute(gone)
    session.expire_all()

"""The question of the form of a new run: the next version of an adapter, or a new adapter."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.adapters import service as adapters
from app.registry.adapters.versions import create_version as versions
from app.registry.adapters.versions.create_version import adapter_of_child
from app.registry.db import Session
from app.registry.errors import NotFound, invalid_field
from app.registry.jobs.rights import can_edit
from app.registry.runs import service as runs
from app.registry.tables.adapters import Adapter
from app.web.form_reader import as_id
from app.web.runs.forms import TrainForm
from app.web.runs.plan import RunChoices

CHANGED = (
    "The dataset or the base model was changed after this was chosen. Choose again whether the run "
    "makes the next version of “{name}”, then start it."
)


@dataclass(frozen=True)
class VersionOffer:
    """The adapter that the run can make a version of, and what is chosen.

    `key` names the adapter with the dataset and base model that it was offered for. `is_asked`:
    False when a continued run makes it anyway; `is_same`: it was trained for this base model.
    """

    next: versions.NextVersion
    key: str
    is_chosen: bool
    is_asked: bool
    is_same: bool

    @property
    def adapter(self) -> Adapter:
        """The adapter."""
        return self.next.adapter


def version_offer(session: Session, form: TrainForm, choices: RunChoices) -> VersionOffer | None:
    """The offer for the chosen dataset and base model, if there is an adapter for it.

    It is chosen from the beginning where the base model is the same, then as the person left it.
    """
    base, dataset = choices.base, choices.dataset
    if base is None or dataset is None:
        return None
    named = _named_adapter(session, form)
    words = [choices.valid_trigger] if choices.valid_trigger else []
    adapter = named or versions.adapter_to_extend(session, dataset.dataset, base.key, words)
    if adapter is None or base.family not in (None, adapter.base_family):
        return None
    if not can_edit(session, adapter):
        return None
    key = _key(adapter.key, dataset.dataset.key, base.slug)
    is_same = versions.is_made_for(session, adapter, base.key)
    was_shown = form.offer == key
    is_asked = form.start is None or bool(form.for_adapter)
    return VersionOffer(
        next=versions.next_version(session, adapter),
        key=key,
        is_chosen=form.adapter == str(adapter.key) if was_shown else is_same,
        is_asked=is_asked,
        is_same=is_same,
    )


def check_offer(session: Session, form: TrainForm) -> None:
    """Raise InvalidInput if another dataset or base model was chosen after the offer was shown."""
    adapter = _adapter(session, as_id(form.adapter))
    if adapter is None or not form.offer:
        return
    if form.offer == _key(adapter.key, form.dataset, form.base):
        return
    raise invalid_field("adapter_id", CHANGED.format(name=adapter.name))


def _key(adapter_id: int, dataset: int | str, base: str) -> str:
    return f"{adapter_id}:{dataset}:{base}"


def _named_adapter(session: Session, form: TrainForm) -> Adapter | None:
    """The adapter of the address, or that of the run to continue; None if it is gone."""
    if form.for_adapter or form.start is None:
        return _adapter(session, as_id(form.for_adapter))
    try:
        parent = runs.get_run(session, form.start.run_id)
    except NotFound:
        return None
    return _adapter(session, adapter_of_child(session, parent))


def _adapter(session: Session, key: int | None) -> Adapter | None:
    """The adapter, if it is there and takes versions."""
    try:
        adapter = adapters.get_adapter(session, key or 0)
    except NotFound:
        return None
    return adapter if adapter.is_listed else None

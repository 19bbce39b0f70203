"""The usual weight of a version: what is used and written down when no weight is named.

Its weight cards say what was measured: where the style starts to show, is best, and breaks.
"""

from __future__ import annotations

from dataclasses import asdict

from sqlmodel import Session

from app.registry.adapters import service
from app.registry.errors import InvalidInput
from app.registry.tables.adapters import WEIGHT_CARDS, Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel
from worker.core.lora_files.weights import WeightCard, weight_problem


def set_usual_weight(
    session: Session, adapter_id: int, reference: int | str | None, weight: float
) -> AdapterVersion:
    """Set the usual weight of a version, given by its number or an alias; None: `latest`.

    A checkpoint has one as well, which a version made of it gets. The downloads carry the weight,
    so the default one, if it was written, is written again in the background. Raises InvalidInput
    for a weight that renders do not accept, and NotFound.
    """
    if problem := weight_problem(weight):
        raise InvalidInput(problem, fields={"usual_weight": problem})
    adapter = service.get_adapter(session, adapter_id)
    version = service.get_version(session, adapter, reference)
    with service.renewed_download(session, adapter, version):
        version.usual_weight = weight
    return version


def keep_weight_card(
    session: Session,
    adapter: Adapter,
    version: AdapterVersion,
    base: BaseModel,
    card: WeightCard,
) -> None:
    """Keep a card in place of the one for this base model. The usual weight stays.

    The default download, if it was written, is written again: it carries the cards.
    """
    cards = version.details.get(WEIGHT_CARDS, {}) | {base_key(base): asdict(card)}
    with service.renewed_download(session, adapter, version):
        version.details = version.details | {WEIGHT_CARDS: cards}


def weight_card_of(version: AdapterVersion, base: BaseModel) -> WeightCard | None:
    """The card of a version for a base model; None: not measured."""
    return version.weight_cards.get(base_key(base))


def base_key(base: BaseModel) -> str:
    """What tells a base model apart in the cards: its files, if they are known."""
    return base.fingerprint or base.slug

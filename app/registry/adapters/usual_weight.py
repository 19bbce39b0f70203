"""The usual weight of a version: what is used and written down when no weight is named."""

from __future__ import annotations

from sqlmodel import Session

from app.registry.adapters import service
from app.registry.errors import InvalidInput
from app.registry.tables.adapters import AdapterVersion
from worker.core.lora_files.weights import weight_problem


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

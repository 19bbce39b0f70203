"""`brushwork datasets duplicate`: copies a dataset; its files are shared."""

from __future__ import annotations

from argparse import Namespace

from app.registry.datasets import service
from app.registry.datasets.transfer.duplicating import duplicate_dataset
from app.registry.errors import InvalidInput
from app.registry.state import AppState
from app.registry.tables.datasets import NAME_LENGTH
from app.registry.wording import plural


def run(arguments: Namespace, state: AppState) -> int:
    """Copy a dataset and print the slug of the copy. Raises NotFound and InvalidInput."""
    name = " ".join((arguments.name or "").split()) or None
    if name and len(name) > NAME_LENGTH:
        raise InvalidInput(f"Use a name of at most {NAME_LENGTH} letters.")
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        copy = duplicate_dataset(session, dataset.key, name=name)
        summary = service.summary(session, copy)
    print(f"{copy.slug}: {plural(summary.image_count, 'image')}")
    return 0

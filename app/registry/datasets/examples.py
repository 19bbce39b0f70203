"""Datasets of the example styles that come with the project."""

from __future__ import annotations

from app.registry.datasets import service, uploads
from app.registry.errors import NotFound
from app.registry.state import AppState
from app.registry.tables.datasets import Dataset
from app.registry.uploads import UploadedFile
from worker.core.starter.examples import EXAMPLES, Example


def find_example(style: str) -> Example:
    """The example style with this key. Raises NotFound."""
    if style not in EXAMPLES:
        raise NotFound(f"There is no example “{style[:60]}”. Choose {' or '.join(EXAMPLES)}.")
    return EXAMPLES[style]


def add_example(state: AppState, example: Example) -> tuple[Dataset, bool]:
    """The dataset of this example, made through the normal upload unless it exists; True if so.

    A dataset of the example's name counts as the example, also one of an earlier version with other
    images; images are added only when it has none.
    """
    with state.database.write() as session:
        known = service.list_datasets(session, q=example.title)
        found = next((row for row in known if row.dataset.name == example.title), None)
        dataset = (
            found.dataset
            if found
            else service.create_dataset(session, example.title, trigger_word=example.trigger)
        )
    is_new = found is None or not found.image_count
    if is_new:
        files = [
            path for path in sorted(example.folder.iterdir()) if path.suffix in (".webp", ".jsonl")
        ]
        uploads.receive(
            state, dataset.key, [UploadedFile(filename=path.name, content=path) for path in files]
        )
    return dataset, is_new

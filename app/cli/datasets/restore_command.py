"""`brushwork datasets restore`: lets a caption say again what it said in a version."""

from __future__ import annotations

from argparse import Namespace

from app.cli.datasets.one_image import caption_lines, find_image
from app.registry.datasets import service
from app.registry.datasets.image_captions.history import restore_caption
from app.registry.state import AppState
from worker.core.words import CaptionKind


def run(arguments: Namespace, state: AppState) -> int:
    """Restore a caption and print all of the image. Raises NotFound and InvalidInput."""
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        image = find_image(session, dataset, arguments.image)
        kind = CaptionKind(arguments.kind or image.caption_kind)
        restore_caption(session, image.key, kind, arguments.version)
        print("\n".join(caption_lines(session, image)))
    return 0

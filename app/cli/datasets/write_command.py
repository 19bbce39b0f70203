"""`brushwork datasets write`: writes a caption of one image, or how often it is used."""

from __future__ import annotations

from argparse import Namespace

from app.cli.datasets.one_image import caption_lines, find_image
from app.registry.datasets import service
from app.registry.datasets.image_captions.changes import CaptionChange, change_caption
from app.registry.errors import InvalidInput
from app.registry.state import AppState
from worker.core.words import CaptionKind


def run(arguments: Namespace, state: AppState) -> int:
    """Change a caption and print all of the image. Raises NotFound and InvalidInput."""
    if arguments.text is None and arguments.share is None:
        raise InvalidInput("Say what to write, or a share with --share.")
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        image = find_image(session, dataset, arguments.image)
        kind = CaptionKind(arguments.kind or image.caption_kind)
        change_caption(session, image.key, kind, CaptionChange(arguments.text, arguments.share))
        print("\n".join(caption_lines(session, image)))
    return 0

"""`brushwork datasets captions`: the captions of one image, and their history."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from datetime import datetime

from app.cli.datasets.one_image import caption_lines, find_image
from app.registry.datasets import service
from app.registry.datasets.image_captions.history import caption_history
from app.registry.datasets.several_captions import captions_of_image
from app.registry.state import AppState


def run(arguments: Namespace, state: AppState) -> int:
    """Print the captions of an image. Raises NotFound and InvalidInput."""
    with state.database.read() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        image = find_image(session, dataset, arguments.image)
        if not arguments.json:
            print("\n".join(caption_lines(session, image)))
            return 0
        captions = [asdict(one) for one in captions_of_image(session, image)]
        history = [asdict(row) for row in caption_history(session, image)]
    found = {"image_id": image.key, "captions": captions, "history": history}
    print(json.dumps(found, indent=2, ensure_ascii=False, default=datetime.isoformat))
    return 0

"""`brushwork datasets focus`: shows or sets the point of an image that crops keep."""

from __future__ import annotations

from argparse import Namespace

from app.cli.datasets.one_image import find_image
from app.registry.datasets import service
from app.registry.datasets.training_side import training_side
from app.registry.errors import InvalidInput
from app.registry.runs.crops import crop_of
from app.registry.state import AppState
from app.registry.tables.datasets import Image


def run(arguments: Namespace, state: AppState) -> int:
    """Set the focus point, if one is given, and print the crop. Raises NotFound, InvalidInput."""
    point = arguments.point
    if point and (len(point) != 2 or arguments.center):
        raise InvalidInput("Give two numbers from 0 to 1, from the left and the top, or --center.")
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        image = find_image(session, dataset, arguments.image)
        if point or arguments.center:
            image = service.set_focus(session, image.key, (point[0], point[1]) if point else None)
        side = training_side(session, dataset.key)
    crop = crop_of(image, side.pixels, squares=side.squares)
    print(f"{image.filename}: {_focus(image)}")
    print(
        f"At {crop.bucket.width}x{crop.bucket.height}, training keeps {crop.kept:.0%}: "
        f"{crop.width:.0f}x{crop.height:.0f} pixels from {crop.left:.0f}, {crop.top:.0f}."
    )
    return 0


def _focus(image: Image) -> str:
    if image.focus is None:
        return "focus in the center"
    return f"focus at {image.focus[0]:g} from the left, {image.focus[1]:g} from the top"

"""The images of a blind test: those that are drawn, and a pair of them as a judge sees it.

That is equal in size and format, with nothing but pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property

from PIL import Image, ImageOps
from sqlmodel import Session

from app.registry.blind_tests import service
from app.registry.errors import NotFound
from app.registry.renders.grids.views import CellView, grid_view
from app.registry.storage.store import BlobDamaged, BlobNotFound, BlobStore
from app.registry.tables.blind_tests import BlindTest, BlindVote, Choice, PairKind
from app.registry.tables.renders import Grid

REAL, BASE = 0, 1  # the sides of a control
GONE = "This image is not there any more. Get the next pair."
GRAY = "#808080"  # around an image of another shape
Sides = tuple[str | None, str | None]
"""The hashes of the left and the right image; None: it is not there."""


class Drawn:
    """The cells of a grid: rows are scenes; without any for a grid that was deleted for good.

    `subjects`: the labels of its rows.
    """

    def __init__(self, session: Session, grid_id: int | None) -> None:
        grid = session.get(Grid, grid_id) if grid_id else None
        view = grid_view(session, grid) if grid else None
        self.cells: Sequence[CellView] = view.cells if view else ()
        self.subjects = view.axes[1].labels if view else []
        self.columns = len(view.axes[0].values) if view else 1

    @property
    def images(self) -> int:
        """The number of cells whose image is there."""
        return sum(cell.image is not None for cell in self.cells)

    @property
    def error(self) -> str:
        """Why the first image that failed is not there; empty if none did."""
        return next(filter(None, (cell.error for cell in self.cells)), "")

    def image(self, scene: int, column: int) -> str | None:
        """The hash of the image of a scene by a candidate; None if it is not there."""
        cell = self._cell(scene, column)
        return cell.image.sha256 if cell and cell.image else None

    def is_coming(self, scene: int, column: int) -> bool:
        """True if the image is there, or still to come."""
        cell = self._cell(scene, column)
        return cell is not None and (cell.image is not None or cell.state.is_active)

    def _cell(self, scene: int, column: int) -> CellView | None:
        place = scene * self.columns + column
        return self.cells[place] if place < len(self.cells) else None


class TestImages:
    """The images of a test, each grid read when it is asked for."""

    def __init__(self, session: Session, test: BlindTest) -> None:
        self.test = test
        self._session = session

    @cached_property
    def drawn(self) -> Drawn:
        """Those of its candidates."""
        return Drawn(self._session, self.test.grid_id)

    @cached_property
    def base(self) -> Drawn:
        """Those of the base model, for controls."""
        return Drawn(self._session, self.test.control_grid_id)

    def sides(self, vote: BlindVote) -> Sides:
        """The two images of a pair."""
        if vote.kind != PairKind.CONTROL:
            return self.drawn.image(vote.scene, vote.left), self.drawn.image(vote.scene, vote.right)
        sides = self.test.controls[vote.scene], self.base.image(vote.scene, 0)
        return sides if vote.left == REAL else sides[::-1]

    def subject(self, vote: BlindVote) -> str:
        """What a pair shows, without trigger words; empty if its images were deleted for good."""
        subjects = (self.base if vote.kind == PairKind.CONTROL else self.drawn).subjects
        return subjects[vote.scene] if vote.scene < len(subjects) else ""


def find_pair(
    session: Session, test_id: int, judge: str, number: int
) -> tuple[BlindVote, str, str]:
    """A pair that a judge was shown, with its two hashes. Raises NotFound and Conflict."""
    vote = service.pair_of(session, test_id, judge, number)
    left, right = TestImages(session, service.get_blind_test(session, test_id)).sides(vote)
    if left is None or right is None:
        raise NotFound(GONE)
    return vote, left, right


def find_reference(session: Session, test_id: int, number: int) -> str:
    """The hash of an image of the dataset that is in view, from 1. Raises NotFound."""
    references = service.get_blind_test(session, test_id).references
    if not 1 <= number <= len(references):
        raise NotFound("This blind test has no such image.")
    return references[number - 1]


def draw_side(store: BlobStore, pair: tuple[BlindVote, str, str], side: Choice) -> bytes:
    """The PNG of one side of a pair. Raises NotFound if one of the two is gone.

    Both sides are as large as the larger one, so that neither size nor format tells them apart. The
    real image of a control is cut to the shape of the drawn one.
    """
    vote, *hashes = pair
    own, other = hashes if side is Choice.LEFT else hashes[::-1]
    with _opened(store, own) as image, _opened(store, other) as beside:
        if vote.kind == PairKind.CONTROL:
            is_real = (vote.left == REAL) == (side is Choice.LEFT)
            image = ImageOps.fit(image, (beside if is_real else image).size)
        elif image.size != beside.size:
            size = max(image.width, beside.width), max(image.height, beside.height)
            image = ImageOps.pad(image, size, color=GRAY)
        return _encoded(image)


def draw_reference(store: BlobStore, sha256: str) -> bytes:
    """The PNG of an image of the dataset. Raises NotFound if it is gone."""
    with _opened(store, sha256) as image:
        return _encoded(image)


def _opened(store: BlobStore, sha256: str) -> Image.Image:
    try:
        with store.open(sha256) as file, Image.open(file) as stored:
            return stored.convert("RGB")
    except (BlobNotFound, BlobDamaged) as error:
        raise NotFound(GONE) from error


def _encoded(image: Image.Image) -> bytes:
    image.info.clear()  # settings, profiles and comments
    target = io.BytesIO()
    image.save(target, "PNG", compress_level=3)
    return target.getvalue()

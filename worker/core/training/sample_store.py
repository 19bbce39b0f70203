"""The samples of a run on disk: a folder for each step, a picture for each prompt."""

import io
import shutil
from pathlib import Path

from PIL import Image

from worker.core.training.atomic_write import write_atomically
from worker.core.training.events import SampleSaved
from worker.core.training.sample import Sample

PREFIX = "step-"


class SampleRows:
    """The rows of samples below a folder, each of `count` prompts."""

    def __init__(self, folder: Path, *, count: int) -> None:
        self._folder = folder
        self._count = count

    def save(self, step: int, sample: Sample) -> SampleSaved:
        """Write one picture; it appears whole or not at all."""
        path = self._path(step, sample.prompt_index)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        sample.picture.save(content, format="PNG")
        write_atomically(path, content.getvalue(), durable=False)
        return SampleSaved(step, sample.prompt_index, sample.prompt, sample.seed, path)

    def is_complete(self, step: int) -> bool:
        """Whether every prompt was drawn at this step."""
        return len(self._row(step)) == self._count

    def are_equal(self, step: int, other: int) -> bool:
        """Whether two complete rows show the very same pictures, all of them."""
        rows = self._row(step), self._row(other)
        if not self._count or any(len(row) != self._count for row in rows):
            return False
        return all(map(_same_picture, *rows))

    def forget_after(self, step: int) -> None:
        """Delete the rows of later steps."""
        for row in self._folder.glob(f"{PREFIX}*"):
            if int(row.name.removeprefix(PREFIX)) > step:
                shutil.rmtree(row)

    def _row(self, step: int) -> list[Path]:
        """The samples of a step that are there, by prompt."""
        paths = [self._path(step, index) for index in range(self._count)]
        return [path for path in paths if path.is_file()]

    def _path(self, step: int, prompt_index: int) -> Path:
        return self._folder / f"{PREFIX}{step:06d}" / f"prompt-{prompt_index}.png"


def _same_picture(one: Path, other: Path) -> bool:
    with Image.open(one) as first, Image.open(other) as second:
        return first.size == second.size and first.tobytes() == second.tobytes()

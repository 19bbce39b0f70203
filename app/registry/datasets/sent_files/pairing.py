"""Which of the uploaded captions belongs to which of the uploaded images, by their names.

All names are known before the first image is decoded, so an image can be stored with its caption as
soon as it is ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from app.registry.datasets import captions
from app.registry.datasets.captions import NO_CAPTION, CaptionFromFile, Refusal
from app.registry.datasets.sent_files.metadata_lines import (
    NOTHING_ELSE,
    FileCaption,
    ImageFacts,
    is_metadata,
)


class Place(NamedTuple):
    """A folder and a name in it without upper case: without suffix, or with it (`is_whole`)."""

    folder: str
    name: str
    is_whole: bool = False


@dataclass(frozen=True)
class PairedCaptions:
    """The content of the files for an image: its caption, its other captions, and facts.

    The text of the caption may be empty. `facts_file`: the file that the facts are from.
    """

    caption: CaptionFromFile = NO_CAPTION
    unused: tuple[CaptionFromFile, ...] = ()
    facts: ImageFacts = NOTHING_ELSE
    facts_file: str | None = None


@dataclass(frozen=True)
class _Found:
    places: tuple[Place, ...]  # the best one first
    source: str  # the file it came from, as shown to users
    stem: str
    text: str
    facts: ImageFacts = NOTHING_ELSE

    @property
    def rank(self) -> int:
        """The precedence where files disagree: a `.txt`, a `.caption`, then `metadata.jsonl`.

        Whoever changes the captions of an export edits the text files beside the images.
        """
        return 2 if is_metadata(self.source) else int(not self.source.lower().endswith(".txt"))


class CaptionPairing:
    """Takes the names of images and captions; after `settle`, gives the captions of each image."""

    def __init__(self) -> None:
        self._images: set[Place] = set()
        self._by_stem: dict[str, set[Place]] = {}
        self._found: list[_Found] = []
        self._paired: dict[Place, list[_Found]] = {}
        self.without_image: dict[str, PairedCaptions] = {}  # of no image that was sent, by stem
        self.refused: list[Refusal] = []

    def add_image(self, folder: str, filename: str) -> None:
        """Announce an image."""
        of_stem, whole = _places(folder, filename)
        self._images |= {of_stem, whole}
        self._by_stem.setdefault(of_stem.name, set()).add(of_stem)

    def add_sidecar(self, folder: str, filename: str, text: str) -> None:
        """Add the caption in a file of its own."""
        stem = captions.pairing_stem(filename)
        place = Place(folder, stem.casefold())
        self._found.append(_Found((place,), filename, stem, text))

    def add_line(self, folder: str, source: str, line: FileCaption) -> None:
        """Add a line of a `metadata.jsonl`, which names its image with the suffix."""
        of_stem, whole = _places(_join(folder, line.folder), line.name)
        stem = captions.stem_of(line.name)
        self._found.append(_Found((whole, of_stem), source, stem, line.text, line.facts))

    def settle(self) -> None:
        """Pair what was added, whatever its order."""
        for found in sorted(self._found, key=lambda found: found.rank):
            place = next((place for place in found.places if place in self._images), None)
            if place is None:
                place = self._place_elsewhere(found)
            if place is not None:
                self._paired.setdefault(place, []).append(found)
        self._found.clear()

    def _place_elsewhere(self, found: _Found) -> Place | None:
        """The only image of this name, in another folder or next to an archive."""
        elsewhere = self._by_stem.get(found.stem.casefold(), set())
        if len(elsewhere) == 1:
            return next(iter(elsewhere))
        if elsewhere and found.text:
            self.refused.append(
                Refusal(
                    found.source,
                    f"More than one image is named “{found.stem}”. Put the caption next to its "
                    "image.",
                )
            )
        elif found.text or found.facts != NOTHING_ELSE:
            self._keep_loose(found)
        return None

    def _keep_loose(self, found: _Found) -> None:
        """The text of the file that counts most, and the first facts."""
        caption = CaptionFromFile(found.text, found.source)
        before = self.without_image.setdefault(found.stem, PairedCaptions(caption))
        if before.facts == NOTHING_ELSE != found.facts:
            told = replace(before, facts=found.facts, facts_file=found.source)
            self.without_image[found.stem] = told

    def take(self, folder: str, filename: str) -> PairedCaptions:
        """The captions of an image that was accepted; of two images of one name, the first's."""
        of_stem, whole = _places(folder, filename)
        found = [*self._paired.pop(whole, ()), *self._paired.pop(of_stem, ())]
        found.sort(key=lambda one: one.rank)
        texts: dict[str, str] = {}
        for one in found:
            if one.text:
                texts.setdefault(one.text, one.source)
        written = [CaptionFromFile(text, source) for text, source in texts.items()]
        used = written[0] if written else NO_CAPTION
        telling = next((one for one in found if one.facts != NOTHING_ELSE), None)
        facts = telling.facts if telling else NOTHING_ELSE
        if used.text and facts.captions:
            first, *others = facts.captions
            facts = replace(facts, captions=(replace(first, caption=used.text), *others))
        source = telling.source if telling else None
        return PairedCaptions(used, tuple(written[1:]), facts, source)

    def left(self) -> Iterator[Refusal]:
        """The captions of images that were not accepted."""
        for found in self._paired.values():
            yield from (
                Refusal(one.source, f"Its image “{one.stem}” was refused.")
                for one in found
                if one.text
            )


def _places(folder: str, filename: str) -> tuple[Place, Place]:
    stem = captions.stem_of(filename).casefold()
    return Place(folder, stem), Place(folder, filename.casefold(), is_whole=True)


def _join(folder: str, inner: str) -> str:
    if not inner:
        return folder
    return folder + inner if folder == "" or folder.endswith(":") else f"{folder}/{inner}"

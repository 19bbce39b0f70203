"""The proofs of an adapter's files as sentences, by file and program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from app.registry.adapters import service
from app.registry.tables.adapters import AdapterFile, AdapterVersion
from app.registry.wording import join_words
from worker.core.words import FileFormat, WeightDtype

FORMATS = tuple(FileFormat)
WORDS = {
    "right": ("good", "Works"),
    "limited": ("good", "Works for supported layers"),
    "foreign": ("good", "All layers recognized"),
    "partly": ("warn", "Partly read"),
    "wrong": ("warn", "Wrong strength"),
    "unread": ("warn", "Not read"),
}
LOADED = ("right", "limited")


@dataclass(frozen=True)
class ProofLine:
    """The result of one program; `look` is the class of its chip, `word` the text.

    `loads`: it reads the file correctly; `knows_names`: it would if it knew the base model.
    """

    title: str
    loads: bool
    knows_names: bool
    look: str
    word: str
    sentence: str
    needed: bool


@dataclass(frozen=True)
class FileProof:
    """The proof of one file: the checks done here, then a line for each program.

    `foreign`: only Brushwork and diffusers can load its base, as with the embedded one.
    """

    title: str
    dtype: str
    with_tags: bool
    checks: list[str]
    lines: list[ProofLine]
    foreign: bool

    @property
    def good(self) -> int:
        """The number of programs that read the file correctly."""
        return sum(line.look == "good" for line in self.lines)


def file_proofs(session: Session, version: AdapterVersion) -> list[FileProof]:
    """The proofs of all files written for a version, the main download first."""
    files = [file for file in service.version_files(session, version.key) if file.proof]
    files.sort(key=_sort_key)
    return [_file_proof(file) for file in files]


def _sort_key(file: AdapterFile) -> tuple[int, bool, str]:
    """The position of a file among those of its version."""
    return FORMATS.index(FileFormat(file.format)), file.dtype != WeightDtype.FP16, file.dtype


def _file_proof(file: AdapterFile) -> FileProof:
    proof = file.proof
    results: list[dict[str, Any]] = proof.get("loaders", [])
    return FileProof(
        title=FileFormat(file.format).label,
        dtype=file.dtype,
        with_tags=file.with_tags,
        checks=checks_of(proof),
        lines=[_proof_line(result) for result in results],
        foreign=any(result["verdict"] == "foreign" for result in results),
    )


def _proof_line(result: Mapping[str, Any]) -> ProofLine:
    look, word = WORDS[result["verdict"]]
    if result["verdict"] == "foreign" and not result["right"]:
        look, word = "", "This base is not supported there"
    return ProofLine(
        title=result["title"],
        loads=result["verdict"] in LOADED,
        knows_names=result["verdict"] == "foreign" and bool(result["right"]),
        look=look,
        word=word,
        sentence=result["sentence"],
        needed=result["needed"],
    )


def proof_sentences(proofs: Sequence[FileProof]) -> list[str]:
    """Where the files of a version work, in one line, and where only with another base model."""
    lines = [line for proof in proofs for line in proof.lines]
    loads = dict.fromkeys(line.title for line in lines if line.loads)
    named = dict.fromkeys(
        line.title for line in lines if line.knows_names and line.title not in loads
    )
    sentences = [f"Loads in {join_words(loads)}."] if loads else []
    if named:
        sentences.append(
            f"{join_words(named)} {'recognizes' if len(named) == 1 else 'recognize'} all layers, "
            "but cannot load this base model."
        )
    return sentences


def checks_of(proof: Mapping[str, Any]) -> list[str]:
    """The checks of a file that were done here, as sentences."""
    checks = []
    if back := proof.get("read_back"):
        checks.append(
            f"Read back: {back['tensors']} tensors of {back['modules']} layers, each within "
            f"{_share_text(back['worst_error'])} of the trained weights."
        )
    if loaded := proof.get("loaded"):
        where = "into the base's own weights" if loaded["weights"] else "into the base's layers"
        checks.append(
            f"Loaded by diffusers {loaded['diffusers']} {where}: {loaded['modules']} layers, each "
            f"within {_share_text(loaded['worst_error'])}."
        )
    if reason := proof.get("not_loaded"):
        checks.append(f"Not loaded by diffusers, only checked by its rule: {reason}")
    if image := proof.get("drawn"):
        checks.append(
            f"diffusers generates the same image for “{image['prompt']}”, seed {image['seed']} "
            f"(largest difference {image['difference']} of 255; the adapter itself changes the "
            f"image by up to {image['effect']})."
        )
    if reason := proof.get("not_drawn"):
        checks.append(f"No images were compared: {reason}")
    return checks


def _share_text(error: float) -> str:
    return "0.001 %" if error < 1e-5 else f"{100 * error:.2g} %"

"""Damaged and missing files in sentences: for errors, pages and commands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from sqlmodel import Session

from app.registry.blobs import findings
from app.registry.blobs.subjects import Reference, Subject, list_references
from app.registry.db import Database
from app.registry.storage.store import BlobDamaged, UnusableBlob
from app.registry.tables.blobs import FileProblem
from app.registry.wording import plural

NOT_USED = "nothing refers to it"
SHORT_HASH = 12

log = structlog.get_logger()


@dataclass(frozen=True)
class BadFile:
    """A damaged or missing file with everything that needs it; the most important comes first."""

    sha256: str
    problem: FileProblem
    references: tuple[Reference, ...]

    @property
    def sentence(self) -> str:
        """The problem and its remedy."""
        if not self.references:
            return f"The stored file {self.sha256[:SHORT_HASH]}… is {self.problem}; {NOT_USED}."
        first = self.references[0]
        return f"The file with {first.what} is {self.problem}. {first.remedy}"

    @property
    def line(self) -> str:
        """A line of a list: the problem, the hash, and what needs the file."""
        needed_for = dict.fromkeys(found.what for found in self.references)
        return f"{self.problem} {self.sha256}: {'; '.join(needed_for) or NOT_USED}"


def describe(session: Session, problems: dict[str, FileProblem]) -> list[BadFile]:
    """These files with what needs them, the most important first."""
    found: dict[str, list[Reference]] = {}
    for reference in list_references(session, problems):
        found.setdefault(reference.sha256, []).append(reference)
    unused = [sha256 for sha256 in problems if sha256 not in found]
    return [
        BadFile(sha256, problems[sha256], tuple(found.get(sha256, ())))
        for sha256 in (*found, *unused)
    ]


def bad_files(session: Session) -> list[BadFile]:
    """All files that were found damaged or missing."""
    return describe(session, findings.problems(session))


def bad_files_of(session: Session, subject: Subject, subject_id: int) -> list[str]:
    """Sentences about the damaged and missing files of one row and of what belongs to it."""
    sentences = []
    for bad in bad_files(session):
        own = [
            found
            for found in bad.references
            if (found.subject, found.subject_id) == (subject, subject_id)
        ]
        if own:
            sentences.append(BadFile(bad.sha256, bad.problem, tuple(own)).sentence)
    return sentences


def report(database: Database, error: UnusableBlob) -> str:
    """Note a file that could not be used, and return a sentence that names what it is.

    A missing file that no row needs is not noted: anybody can ask for any hash.
    """
    problem = FileProblem.DAMAGED if isinstance(error, BlobDamaged) else FileProblem.MISSING
    if not error.sha256:
        return error.detail
    try:
        with database.read() as session:
            known = findings.problems(session, [error.sha256])
            (bad,) = describe(session, {error.sha256: problem})
        if not bad.references and problem is FileProblem.MISSING:
            return error.detail
        if known.get(error.sha256) is not problem:
            with database.write() as session:
                findings.note(session, [error.sha256], problem)
    except sa.exc.SQLAlchemyError as failure:
        log.warning("damage_not_noted", exc_info=failure)
        return error.detail
    return bad.sentence if bad.references else error.detail


def summary(bad: Iterable[BadFile]) -> str:
    """The numbers of damaged and missing files: “1 file is damaged, 2 files are missing”."""
    problems = [one.problem for one in bad]
    parts = []
    for problem in FileProblem:
        if count := problems.count(problem):
            parts.append(f"{plural(count, 'file')} {'is' if count == 1 else 'are'} {problem}")
    return ", ".join(parts)

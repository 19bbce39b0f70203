"""The check of a file: read back by our own reader, and by the rule of every loader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.canonical import Adapter, AdapterError, LoraModule
from worker.core.lora_files.proof.content import ALPHA, FileContent, Patch, Reading
from worker.core.lora_files.proof.diffusers_rule import SETTINGS
from worker.core.lora_files.proof.layout import Layout
from worker.core.lora_files.proof.loaders import DIFFUSERS, LOADERS, Loader
from worker.core.lora_files.proof.result import LoaderResult, Proof, ReadBack, Verdict
from worker.core.lora_files.proof.strength import Likeness, few_threads, likeness
from worker.core.lora_files.reading import read_any

LIMITS = {"fp16": 2e-3, "bf16": 8e-3, "fp32": 1e-5}
"""The largest |dW of the file - dW| / |dW| of a module, for rounding both halves."""

NEEDED = {"peft": frozenset({DIFFUSERS.name})}
"""The loaders a format is made for; all of them where none is named."""

FEW = 1e-3  # strengths closer than this are one and the same


@dataclass(frozen=True, eq=False)
class Subject:
    """A file, what it should mean, and what it is checked against.

    `shapes` are those of the base's layers by canonical key; without them the adapter's own.
    """

    content: FileContent
    adapter: Adapter
    format: str
    dtype: str
    family: BaseFamily
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def wanted(self) -> dict[str, LoraModule]:
        """The modules of the registry's form by key."""
        return {module.key: module for module in self.adapter.modules}

    @cached_property
    def layout(self) -> Layout:
        """The layers of the base."""
        own = {key: module.weight_shape for key, module in self.wanted.items()}
        return Layout(self.family, {**own, **self.shapes})

    @property
    def limit(self) -> float:
        """The error that rounding may make."""
        return LIMITS[self.dtype]

    @cached_property
    def _likenesses(self) -> dict[tuple[str, str, str], Likeness | None]:
        return {}

    def likeness(self, key: str, patch: Patch) -> Likeness | None:
        """The tensors of a patch beside the wanted module; None when their shapes do not fit."""
        known = self._likenesses
        place = (key, patch.down, patch.up)
        if place not in known:
            pair = self.content.tensors[patch.down], self.content.tensors[patch.up]
            known[place] = compare(pair, self.wanted[key])
        return known[place]


def prove_file(
    path: Path,
    adapter: Adapter,
    *,
    format: str,
    dtype: str,
    family: BaseFamily,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Proof:
    """What every loader makes of a written file, beside the adapter that it should hold.

    A damaged file is a failure too; AdapterError is never raised.
    """
    with few_threads(adapter.parameters):
        try:
            content = FileContent.read(path)
            found = {module.key: module for module in read_any(path).modules}
        except AdapterError as error:  # mostly numbers that became infinite
            return _unreadable(adapter, format, dtype, family, error)
        subject = Subject(content, adapter, format, dtype, family, shapes or {})
        read_back, failures = _read_back(subject, found)
        loaders = [judge(loader, subject) for loader in LOADERS]
    failures += [
        f"{result.title}: {result.sentence}"
        for result in loaders
        if result.needed and not result.verdict.is_good
    ]
    return Proof(
        format=format,
        dtype=dtype,
        family=family.value,
        read_back=read_back,
        loaders=loaders,
        failures=failures,
    )


def compare(pair: tuple[Tensor, Tensor], wanted: LoraModule) -> Likeness | None:
    """(down, up) as found beside a wanted module; None when they change another shape."""
    down, up = pair
    if (up.shape[0], *down.shape[1:]) != wanted.weight_shape or up.shape[1] != down.shape[0]:
        return None
    return likeness(pair, (wanted.down, wanted.up), wanted.scale)


def judge(loader: Loader, subject: Subject) -> LoaderResult:
    """What one program makes of the file."""
    reading = loader.read(subject.content, subject.layout)
    needed = loader.name in NEEDED.get(subject.format, {loader.name})
    right, strengths, worst = 0, [], (0.0, "")
    missed, beyond = 0, 0
    for key in subject.wanted:
        if (patch := reading.patches.get(key)) is None:
            able = loader.reaches(key, subject.layout, subject.wanted)
            missed, beyond = missed + able, beyond + (not able)
            continue
        like = subject.likeness(key, patch)
        error = like.error(patch.scale) if like is not None else float("inf")
        worst = max(worst, (error, key))
        if error <= subject.limit:
            right += 1
        else:
            strengths.append(like.strength(patch.scale) if like is not None else 0.0)
    strange = len(reading.patches.keys() - subject.wanted.keys())
    counts = _Counts(right, len(strengths) + strange, missed, beyond, _usual(strengths))
    verdict = _verdict(loader, reading, counts, subject)
    return LoaderResult(
        name=loader.name,
        title=loader.title,
        verdict=verdict,
        sentence=_sentence(verdict, reading, counts, subject),
        needed=needed and (subject.format in NEEDED or not reading.inherent),
        used=len(reading.used),
        tensors=len(subject.content.tensors),
        right=right,
        wrong=counts.wrong,
        missed=missed,
        beyond=beyond,
        modules=len(subject.wanted),
        strength=counts.strength,
        worst_error=_finite(worst[0]),
        worst_module=worst[1],
        seen_as=reading.seen_as,
    )


@dataclass(frozen=True)
class _Counts:
    right: int
    wrong: int
    missed: int
    beyond: int
    strength: float


def _verdict(loader: Loader, reading: Reading, counts: _Counts, subject: Subject) -> Verdict:
    foreign = loader is not DIFFUSERS and not subject.layout.is_common
    if reading.refused:
        return Verdict.FOREIGN if foreign else Verdict.UNREAD
    if counts.wrong or reading.seen_as not in ("", subject.family.label):
        return Verdict.WRONG
    if counts.missed:
        return Verdict.PARTLY if counts.right else Verdict.UNREAD
    if foreign:
        return Verdict.FOREIGN
    return Verdict.LIMITED if counts.beyond else Verdict.RIGHT


def _sentence(verdict: Verdict, reading: Reading, counts: _Counts, subject: Subject) -> str:
    if reading.refused:
        return reading.refused
    used, tensors = len(reading.used), len(subject.content.tensors)
    modules = len(subject.wanted)
    if verdict is Verdict.UNREAD:
        return f"It reads none of the {tensors} tensors."
    words = [f"{used} of {tensors} tensors"]
    if counts.wrong:
        words.append(f"{counts.wrong} of {modules} modules at {counts.strength:.2g}×")
    elif not counts.missed:
        words.append("alpha right" if _tells_alpha(subject.content) else "strength right")
    if counts.missed:
        words.append(f"{counts.missed} of {modules} modules not read")
    if counts.beyond:
        words.append(f"{counts.beyond} modules are of a kind it does not change")
    if reading.seen_as:
        right = reading.seen_as == subject.family.label
        words.append(f"{'seen as' if right else 'mistaken for'} {reading.seen_as}")
    return ", ".join(words)


def _tells_alpha(content: FileContent) -> bool:
    return SETTINGS in content.metadata or any(name.endswith(ALPHA) for name in content.tensors)


def _usual(strengths: list[float]) -> float:
    """The strength that most wrong modules have; 1 when none is wrong."""
    if not strengths:
        return 1.0
    return Counter(round(value / FEW) * FEW for value in strengths).most_common(1)[0][0]


def _read_back(subject: Subject, found: Mapping[str, LoraModule]) -> tuple[ReadBack, list[str]]:
    worst = (0.0, "")
    for key, module in subject.wanted.items():
        if (other := found.get(key)) is None:
            worst = (float("inf"), key)
            break
        like = compare((other.down, other.up), module)
        worst = max(worst, (like.error(other.scale) if like is not None else float("inf"), key))
    failures = []
    if found.keys() != subject.wanted.keys():
        failures.append("The written file does not hold the same modules as the adapter.")
    elif worst[0] > subject.limit:
        failures.append(
            f"{worst[1]} does not survive the way into {subject.dtype}: it comes out "
            f"{worst[0]:.2g} off, {subject.limit:g} is accepted. Choose fp32 for this adapter."
        )
    tensors = len(subject.content.tensors)
    return (
        ReadBack(
            tensors=tensors,
            modules=len(found),
            worst_error=_finite(worst[0]),
            worst_module=worst[1],
            limit=subject.limit,
        ),
        failures,
    )


def _unreadable(
    adapter: Adapter, format: str, dtype: str, family: BaseFamily, error: AdapterError
) -> Proof:
    sentence = f"This adapter does not survive the way into {dtype}; choose fp32. ({error})"
    return Proof(
        format=format,
        dtype=dtype,
        family=family.value,
        read_back=ReadBack(
            tensors=0,
            modules=0,
            worst_error=1.0,
            worst_module=adapter.modules[0].key,
            limit=LIMITS[dtype],
        ),
        loaders=[],
        failures=[sentence],
    )


def _finite(error: float) -> float:
    """An error that JSON can hold: what has no number is off by all of it."""
    return error if error < float("inf") else 1.0

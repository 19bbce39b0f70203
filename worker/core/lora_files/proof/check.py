"""Check of a written file: read back by our own reader, and by the rule of every loader.

Two low-rank changes are compared without computing the full matrices. For W = s U D and V = t P Q
the Frobenius product <W, V> is s t sum((U^T P) * (D Q^T)): matrices of rank × rank, in fp64.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from worker.core.families.family import BaseFamily
from worker.core.lora_files.algebra import one_thread
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.proof.content import ALPHA, FileContent, LayerPatch, LoaderReading
from worker.core.lora_files.proof.diffusers_rule import PEFT_SETTINGS
from worker.core.lora_files.proof.layout import BaseLayout
from worker.core.lora_files.proof.loaders import DIFFUSERS, Loader, loaders_of
from worker.core.lora_files.proof.result import LoaderResult, Proof, ReadBack, Verdict
from worker.core.lora_files.reading import read_adapter

ERROR_LIMITS = {"fp16": 2e-3, "bf16": 8e-3, "fp32": 1e-5}
"""The largest |dW of the file - dW| / |dW| of a module that rounding both factors may cause."""

REQUIRED_LOADERS = {"peft": frozenset({DIFFUSERS.name}), "comfyui": frozenset({"comfyui"})}
"""Loaders that a format must work in; all of them for a format that is not listed."""

ONE_THREAD_PARAMETERS = 200_000_000
"""Adapters up to this size are compared on one thread: others only wait in small products."""

STRENGTH_STEP = 1e-3  # strengths that differ by less are counted as equal


@dataclass(frozen=True)
class ChangeSimilarity:
    """The products <f, f>, <f, e>, <e, e> of a found change f at scale 1 and the expected one e."""

    found: float
    both: float
    expected: float

    def error(self, scale: float) -> float:
        """|scale f - e| / |e|; 0 if both are zero, infinite if only e is."""
        distance = scale * scale * self.found - 2 * scale * self.both + self.expected
        # the products have the rounding error of fp64: a smaller difference counts as none
        floor = 1e-14 * (scale * scale * self.found + self.expected)
        if distance <= floor:
            return 0.0
        return (distance / self.expected) ** 0.5 if self.expected > 0 else float("inf")

    def strength(self, scale: float) -> float:
        """The strength of scale f in the direction of e; 1 is right."""
        return scale * self.both / self.expected if self.expected > 0 else 1.0


def compare_changes(
    found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], scale: float
) -> ChangeSimilarity:
    """Similarity of (down, up) as found and as expected at `scale`, of the same weight shape."""
    f, e = _fp64_matrices(found), _fp64_matrices(expected)
    return ChangeSimilarity(
        _frobenius_product(f, f),
        scale * _frobenius_product(f, e),
        scale * scale * _frobenius_product(e, e),
    )


def _fp64_matrices(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    down, up = pair
    return down.flatten(1).to(torch.float64), up.flatten(1).to(torch.float64)


def _frobenius_product(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    (down, up), (other_down, other_up) = one, other
    return float(((up.T @ other_up) * (down @ other_down.T)).sum())


@dataclass(frozen=True, eq=False)
class ProofInput:
    """A file, the adapter that it should contain, and the base that it is checked against.

    `shapes`: the weight shapes of the base's layers by canonical key. The adapter's own shapes are
    used for layers that are missing there. `foreign`: the file was not written here, so that what
    no file could avoid counts as well.
    """

    content: FileContent
    adapter: LoraAdapter
    format: str
    dtype: str
    family: BaseFamily
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    foreign: bool = False

    @cached_property
    def expected(self) -> dict[str, LoraModule]:
        """The adapter's modules by canonical key."""
        return {module.key: module for module in self.adapter.modules}

    @cached_property
    def layout(self) -> BaseLayout:
        """The layers of the base model."""
        own = {key: module.weight_shape for key, module in self.expected.items()}
        return BaseLayout(self.family, {**own, **self.shapes})

    @property
    def limit(self) -> float:
        """The largest relative error that rounding to this number type may cause."""
        return ERROR_LIMITS[self.dtype]

    @cached_property
    def _similarities(self) -> dict[tuple[str, LayerPatch], ChangeSimilarity | None]:
        return {}

    def compare_patch(self, key: str, patch: LayerPatch) -> ChangeSimilarity | None:
        """Similarity of a patch and the expected module; None if their shapes do not match."""
        known = self._similarities
        place = (key, replace(patch, scale=1.0))
        if place not in known:
            down, up = self.content.tensors[patch.down], self.content.tensors[patch.up]
            up = up if patch.third is None else up.chunk(3)[patch.third]
            known[place] = compare_module((down, up), self.expected[key])
        return known[place]


def prove_file(
    path: Path,
    adapter: LoraAdapter,
    *,
    format: str,
    dtype: str,
    family: BaseFamily,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    foreign: bool = False,
) -> Proof:
    """Proof of a written file: how every loader reads it, compared with `adapter`.

    A damaged file is reported as a failure; AdapterError is never raised.
    """
    with one_thread(when=adapter.parameters <= ONE_THREAD_PARAMETERS):
        try:
            content = FileContent.read(path)
            found = {module.key: module for module in read_adapter(path).modules}
        except AdapterError as error:  # usually because numbers became infinite
            return _unreadable_proof(adapter, format, dtype, family, error)
        subject = ProofInput(content, adapter, format, dtype, family, shapes or {}, foreign)
        read_back, failures = _check_read_back(subject, found)
        loaders = [check_loader(loader, subject) for loader in loaders_of(family)]
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


def compare_module(pair: tuple[Tensor, Tensor], expected: LoraModule) -> ChangeSimilarity | None:
    """Similarity of (down, up), flat or not, and the expected module; None if they do not fit."""
    down, up = pair
    sizes = (int(up.shape[0]), int(down[0].numel()))
    if sizes != (expected.weight_shape[0], prod(expected.weight_shape[1:])) or (
        up.shape[1] != down.shape[0]
    ):
        return None
    return compare_changes(pair, (expected.down, expected.up), expected.scale)


def check_loader(loader: Loader, subject: ProofInput) -> LoaderResult:
    """The result of one program reading the file."""
    reading = loader.read(subject.content, subject.layout)
    if not loader.reshapes and (odd := _first_odd_shape(reading, subject)):
        reading = reading.reject(odd)
    needed = loader.name in REQUIRED_LOADERS.get(subject.format, {loader.name})
    right, strengths, worst = 0, [], (0.0, "")
    missed, beyond = 0, 0
    for key in subject.expected:
        if (patch := reading.patches.get(key)) is None:
            is_supported = loader.can_change(key, subject.layout, subject.expected) or (
                subject.foreign and key in reading.dropped
            )
            missed, beyond = missed + is_supported, beyond + (not is_supported)
            continue
        similarity = subject.compare_patch(key, patch)
        error = similarity.error(patch.scale) if similarity is not None else float("inf")
        worst = max(worst, (error, key))
        if error <= subject.limit:
            right += 1
        else:
            strengths.append(similarity.strength(patch.scale) if similarity is not None else 0.0)
    unexpected = len(reading.patches.keys() - subject.expected.keys())
    result = LoaderResult(
        name=loader.name,
        title=loader.title,
        verdict=Verdict.UNREAD,  # this and the sentence follow from the rest
        sentence="",
        needed=needed
        and (subject.foreign or subject.format in REQUIRED_LOADERS or not reading.inherent),
        used=len(reading.used),
        tensors=len(subject.content.tensors),
        right=right,
        wrong=len(strengths) + unexpected,
        missed=missed,
        beyond=beyond,
        modules=len(subject.expected),
        strength=_most_common_strength(strengths),
        worst_error=_finite_error(worst[0]),
        worst_module=worst[1],
        seen_as=reading.seen_as,
    )
    result = replace(result, verdict=_decide_verdict(loader, reading, result, subject))
    return replace(result, sentence=_result_sentence(reading, result, subject))


def _first_odd_shape(reading: LoaderReading, subject: ProofInput) -> str:
    """Why a program refuses matrices that are not in the shape of their layer; empty if all are."""
    for key, patch in reading.patches.items():
        shape = subject.layout.shapes[key]
        down = tuple(subject.content.tensors[patch.down].shape[1:])
        if down != shape[1:]:
            return f"{patch.down[:80]!r} is rejected: its layer has the shape {shape}, not {down}."
    return ""


def _decide_verdict(
    loader: Loader, reading: LoaderReading, result: LoaderResult, subject: ProofInput
) -> Verdict:
    is_foreign = loader.name != DIFFUSERS.name and not subject.layout.is_standard
    if reading.rejection:
        return Verdict.FOREIGN if is_foreign else Verdict.UNREAD
    if result.wrong or reading.seen_as not in ("", subject.family.label):
        return Verdict.WRONG
    if result.missed:
        return Verdict.PARTLY if result.right else Verdict.UNREAD
    if is_foreign:
        return Verdict.FOREIGN
    return Verdict.LIMITED if result.beyond else Verdict.RIGHT


def _result_sentence(reading: LoaderReading, result: LoaderResult, subject: ProofInput) -> str:
    if reading.rejection:
        return reading.rejection
    modules = result.modules
    if result.verdict is Verdict.UNREAD:
        return f"None of the {result.tensors} tensors is recognized."
    words = [f"{result.used} of {result.tensors} tensors used"]
    if result.wrong:
        words.append(f"{result.wrong} of {modules} modules at {result.strength:.2g}× strength")
    elif not result.missed:
        words.append("alpha correct" if _has_alpha(subject.content) else "strength correct")
    if result.missed:
        words.append(f"{result.missed} of {modules} modules not recognized")
    if reading.remark and result.missed:
        words.append(reading.remark)
    if result.beyond:
        words.append(f"{result.beyond} modules of a layer type that is not supported")
    if reading.seen_as:
        is_right = reading.seen_as == subject.family.label
        words.append(f"{'detected as' if is_right else 'mistaken for'} {reading.seen_as}")
    return ", ".join(words)


def _has_alpha(content: FileContent) -> bool:
    return PEFT_SETTINGS in content.metadata or any(
        name.endswith(ALPHA) for name in content.tensors
    )


def _most_common_strength(strengths: list[float]) -> float:
    """The most common strength among the wrong modules; 1 if no module is wrong."""
    if not strengths:
        return 1.0
    rounded = [round(value / STRENGTH_STEP) * STRENGTH_STEP for value in strengths]
    return Counter(rounded).most_common(1)[0][0]


def _check_read_back(
    subject: ProofInput, found: Mapping[str, LoraModule]
) -> tuple[ReadBack, list[str]]:
    worst = (0.0, "")
    for key, module in subject.expected.items():
        if (other := found.get(key)) is None:
            worst = (float("inf"), key)
            break
        similarity = compare_module((other.down, other.up), module)
        error = similarity.error(other.scale) if similarity is not None else float("inf")
        worst = max(worst, (error, key))
    failures = []
    if found.keys() != subject.expected.keys():
        failures.append("The modules of the written file differ from those of the adapter.")
    elif worst[0] > subject.limit:
        failures.append(
            f"Storing {worst[1]} as {subject.dtype} changes it by {worst[0]:.2g} (relative "
            f"error); at most {subject.limit:g} is accepted. Choose fp32 for this adapter."
        )
    tensors = len(subject.content.tensors)
    return (
        ReadBack(
            tensors=tensors,
            modules=len(found),
            worst_error=_finite_error(worst[0]),
            worst_module=worst[1],
            limit=subject.limit,
        ),
        failures,
    )


def _unreadable_proof(
    adapter: LoraAdapter, format: str, dtype: str, family: BaseFamily, error: AdapterError
) -> Proof:
    sentence = f"This adapter cannot be stored as {dtype}. Choose fp32. ({error})"
    return Proof(
        format=format,
        dtype=dtype,
        family=family.value,
        read_back=ReadBack(
            tensors=0,
            modules=0,
            worst_error=1.0,
            worst_module=adapter.modules[0].key,
            limit=ERROR_LIMITS[dtype],
        ),
        loaders=[],
        failures=[sentence],
    )


def _finite_error(error: float) -> float:
    """The error as a number that JSON can store: 1, a complete loss, in place of infinity."""
    return error if error < float("inf") else 1.0

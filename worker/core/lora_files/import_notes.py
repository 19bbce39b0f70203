"""Sentences on what a file is, where a person should know before they use it elsewhere."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from worker.core.lora_files.canonical import Adapter, Component
from worker.core.lora_files.file_layout import Plan
from worker.core.lora_files.keys import EMBEDDINGS, Leaf
from worker.core.lora_files.parametrizations import Kind

ENCODERS = {
    Component.TEXT_ENCODER: "the text encoder",
    Component.TEXT_ENCODER_2: "the second text encoder",
}
_FUSED = {"q_proj", "k_proj", "v_proj", "out_proj"}  # one layer in open_clip, which A1111 uses


def file_notes(found: Plan, adapter: Adapter, cut: Collection[str] = ()) -> list[str]:
    """What was read in another way than it was written, and what other programs trip over.

    `cut` are the keys of the modules that lost something, of which another note tells.
    """
    return [
        *_kinds(found, adapter, cut),
        *_alphas(found),
        *_ranks(adapter),
        *_encoders(adapter),
        *_embeddings(found),
    ]


def loss_note(modules: int, rank: int, error: float, worst: tuple[float, str]) -> str:
    """How much was lost by cutting modules to a rank; errors are relative Frobenius norms."""
    return (
        f"{counted(modules, 'module')} became LoRAs of rank {rank}, the most that fits: "
        f"{percent(error)} of the file's whole change is lost (relative Frobenius error), in the "
        f"worst module, {worst[1]}, {percent(worst[0])}."
    )


def _kinds(found: Plan, adapter: Adapter, cut: Collection[str]) -> list[str]:
    notes = []
    ranks: dict[str, list[int]] = defaultdict(list)
    for planned, module in zip(found.modules, adapter.modules, strict=True):
        exact = not planned.is_dora and planned.key not in cut
        if exact and planned.form.kind is not Kind.LORA:
            ranks[str(planned.form.kind)].append(module.rank)
    for kind, found_ranks in sorted(ranks.items()):
        notes.append(
            f"{counted(len(found_ranks), f'{kind} module')} became LoRAs of rank "
            f"{_span(found_ranks)} with the same product: exact but for rounding in fp32."
        )
    mids = sum(Leaf.MID in module.names for module in found.modules)
    if mids:
        notes.append(
            f"The kernels that {counted(mids, 'LoCon module')} kept in a third matrix were "
            "multiplied into the first: exact but for rounding in fp32."
        )
    if any(module.is_dora for module in found.modules):
        notes.append(
            "The magnitudes of this DoRA were applied to the weights of its base here; on another "
            "base the result differs."
        )
    return notes


def _alphas(found: Plan) -> list[str]:
    scaled = [module for module in found.modules if module.form.has_scale]
    missing = [m for m in scaled if Leaf.ALPHA not in m.names and m.config_alpha is None]
    if missing and len(missing) < len(scaled):
        return [
            f"Alpha is missing in {len(missing)} of {len(scaled)} modules and was read as their "
            "rank (strength 1), as kohya, ComfyUI and A1111 do."
        ]
    return []


def _ranks(adapter: Adapter) -> list[str]:
    ranks = [module.rank for module in adapter.modules]
    scales = {round(module.scale, 6) for module in adapter.modules}
    if len(set(ranks)) > 1 and len(scales) > 1:
        return [
            f"Ranks ({_span(ranks)}) and strengths differ between modules; downloads have the "
            "strengths multiplied in, so that every program reads them alike."
        ]
    return []


def _encoders(adapter: Adapter) -> list[str]:
    notes = []
    for component, name in ENCODERS.items():
        layers: dict[str, set[str]] = defaultdict(set)
        for module in adapter.modules:
            parts = module.path.split(".")
            if module.component is component and "layers" in parts[:-1]:
                layers[parts[parts.index("layers") + 1]].add(parts[-1])
        partly = [layer for layer, names in layers.items() if 0 < len(names & _FUSED) < 4]
        if partly and component is Component.TEXT_ENCODER_2:
            notes.append(
                f"A1111 ignores the attention of {counted(len(partly), 'layer')} of {name}: it "
                "wants q, k, v and out together, and the file has only a part of them."
            )
        kinds = Counter(frozenset(names) for names in layers.values())
        if len(kinds) > 1:
            usual = kinds.most_common(1)[0][0]
            odd = sorted((n for n, names in layers.items() if names != usual), key=_number)
            notes.append(
                f"{name[0].upper()}{name[1:]} is changed unevenly: layer "
                f"{', '.join(odd[:5])}{' …' if len(odd) > 5 else ''} has other modules than the "
                "rest. A part of the file may be missing."
            )
    return notes


def _embeddings(found: Plan) -> list[str]:
    if not found.embeddings:
        return []
    words = sorted({name.removeprefix(EMBEDDINGS).split(".")[0] for name in found.embeddings})
    listed = ", ".join(f"“{word[:40]}”" for word in words[:5])
    return [
        f"{counted(len(words), 'textual inversion')} in the file ({listed}"
        f"{' …' if len(words) > 5 else ''}) was left out: an adapter here holds weights only."
    ]


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def counted(number: int, thing: str) -> str:
    """`1 module`, `528 modules`, `2 biases`."""
    ending = "es" if thing.endswith("s") else "s"
    return f"{number:,} {thing}{'' if number == 1 else ending}"


def percent(share: float) -> str:
    """A share in per cent, two digits."""
    return f"{100 * share:.2g} %"


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0

"""Notes on a file that users should know before they use it, and on what a conversion loses."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from worker.core.families.adapter_files import closest_family, files_of
from worker.core.families.family import Component
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.errors import AdapterError, LossError
from worker.core.lora_files.file_layout import ExtraKind, FileLayout, ModuleLayout
from worker.core.lora_files.keys import EMBEDDINGS, Leaf, Naming
from worker.core.lora_files.parametrizations import ParametrizationKind
from worker.core.lora_files.parts import layer_order
from worker.core.wording import percent, plural

ENCODERS = {
    Component.TEXT_ENCODER: "the text encoder",
    Component.TEXT_ENCODER_2: "the second text encoder",
}
_FUSED = {"q_proj", "k_proj", "v_proj", "out_proj"}  # one layer in open_clip, used by A1111
MAX_SILENT_LOSS = 0.1  # of the whole change, in Frobenius norm; more needs the user's consent
MAX_NORM = 1e15  # Frobenius, of the change of one layer
OVERFLOW = "The weights of {key} overflow when they are multiplied: the training diverged."


def file_notes(layout: FileLayout, adapter: LoraAdapter, cut: Collection[str] = ()) -> list[str]:
    """Notes on what was converted, and on what causes problems in other programs.

    `cut`: the keys of the modules that were truncated, which have their own note.
    """
    return [
        *_conversion_notes(layout, adapter, cut),
        *_alpha_notes(layout),
        *_settings_notes(layout),
        *_rank_notes(adapter),
        *_layer_notes(adapter),
        *_encoder_notes(adapter),
        *_embedding_notes(layout),
    ]


def _conversion_notes(layout: FileLayout, adapter: LoraAdapter, cut: Collection[str]) -> list[str]:
    notes = []
    ranks: dict[str, list[int]] = defaultdict(list)
    for layout_module, module in zip(layout.modules, adapter.modules, strict=True):
        exact = not layout_module.is_dora and layout_module.key not in cut
        if exact and layout_module.parametrization.kind is not ParametrizationKind.LORA:
            ranks[str(layout_module.parametrization.kind)].append(module.rank)
    for kind, kind_ranks in sorted(ranks.items()):
        notes.append(
            f"{plural(len(kind_ranks), f'{kind} module')} {_was_or_were(len(kind_ranks))} "
            f"converted to LoRA (rank {_range_text(kind_ranks)}), exact up to rounding in fp32."
        )
    mids = sum(Leaf.MID in module.names for module in layout.modules)
    if mids:
        notes.append(
            f"The kernels that {plural(mids, 'LoCon module')} stored in a third tensor were "
            "multiplied into the first, exact up to rounding in fp32."
        )
    if any(module.is_dora for module in layout.modules):
        notes.append(
            "The magnitudes of this DoRA were applied to the weights of this base model; on "
            "another base model the result differs."
        )
    return notes


def _alpha_notes(layout: FileLayout) -> list[str]:
    scaled = [module for module in layout.modules if module.parametrization.has_scale]
    missing = [m for m in scaled if Leaf.ALPHA not in m.names and m.config_alpha is None]
    if not missing:
        return []
    if layout.namings & {Naming.PEFT, Naming.SCRIPT, Naming.OLD} and _is_dotted(missing[0]):
        return [
            f"The file has no alpha for {plural(len(missing), 'module')}, because PEFT stores it "
            "in adapter_config.json, not in the tensors. It was read as the rank (strength 1). If "
            "the training had another alpha, import the file again together with its "
            "adapter_config.json."
        ]
    if len(missing) < len(scaled):
        return [
            f"Alpha is missing in {len(missing)} of {len(scaled)} modules and was read as their "
            "rank (strength 1), as in kohya, ComfyUI and A1111."
        ]
    return []


def _is_dotted(module: ModuleLayout) -> bool:
    """True if the names of the module's tensors are those of PEFT or diffusers."""
    return not next(iter(module.names.values())).startswith(("lora_", "lycoris_"))


def _settings_notes(layout: FileLayout) -> list[str]:
    """Notes on settings of PEFT that contradict the tensors."""
    notes = []
    other = [
        m for m in layout.modules if m.config_rank not in (None, m.parametrization.rank_of_scale)
    ]
    if other:
        notes.append(
            f"The PEFT settings give {plural(len(other), 'module')} another rank than their "
            f"tensors have, such as {other[0].config_rank} for {other[0].key}, which has "
            f"{other[0].parametrization.rank_of_scale}. The tensors' rank was used; PEFT and "
            "diffusers refuse such a file."
        )
    settings = (layout.settings.of(module.component) for module in layout.modules)
    claims = any(own is not None and own.claims_dora for own in settings)
    if claims and not any(module.is_dora for module in layout.modules):
        notes.append(
            "The PEFT settings call this a DoRA, but the file has no magnitudes. It was read as a "
            "LoRA; a part of the file may be missing."
        )
    return notes


def _rank_notes(adapter: LoraAdapter) -> list[str]:
    ranks = [module.rank for module in adapter.modules]
    scales = {round(module.scale, 6) for module in adapter.modules}
    if len(set(ranks)) > 1 and len(scales) > 1:
        return [
            f"Ranks ({_range_text(ranks)}) and strengths differ between modules. Downloads have "
            "the strengths multiplied in, so that every program reads them the same."
        ]
    return []


def _layer_notes(adapter: LoraAdapter) -> list[str]:
    """A note on layers that are missing where blocks are usually changed alike."""
    shapes = {module.key: module.weight_shape for module in adapter.modules}
    family = closest_family(shapes)
    whole = files_of(family).whole(shapes)
    if not (missing := sorted(whole - shapes.keys(), key=layer_order)):
        return []
    return [
        f"The file changes {len(whole) - len(missing)} of {len(whole)} layers of these kinds in "
        f"{family.label}; {missing[0]} is missing, for example. A part of the file may be missing."
    ]


def _encoder_notes(adapter: LoraAdapter) -> list[str]:
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
                f"A1111 ignores the attention of {plural(len(partly), 'layer')} of {name}: it "
                "needs q, k, v and out together, and the file contains only some of them."
            )
        kinds = Counter(frozenset(names) for names in layers.values())
        if len(kinds) > 1:
            usual = kinds.most_common(1)[0][0]
            odd = sorted((n for n, names in layers.items() if names != usual), key=_layer_number)
            notes.append(
                f"The modules of {name} differ between layers: layer "
                f"{', '.join(odd[:5])}{' …' if len(odd) > 5 else ''} has other modules than the "
                "others. A part of the file may be missing."
            )
    return notes


def _embedding_notes(layout: FileLayout) -> list[str]:
    if not layout.embeddings:
        return []
    words = sorted({name.removeprefix(EMBEDDINGS).split(".")[0] for name in layout.embeddings})
    listed = ", ".join(f"“{word[:40]}”" for word in words[:5])
    return [
        f"{plural(len(words), 'textual inversion')} in the file ({listed}"
        f"{' …' if len(words) > 5 else ''}) {_was_or_were(len(words))} left out: adapters "
        "contain weights only."
    ]


def _range_text(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _was_or_were(number: int) -> str:
    return "was" if number == 1 else "were"


def _layer_number(text: str) -> int:
    return int(text) if text.isdigit() else 0


@dataclass
class ConversionLoss:
    """Squared Frobenius norms of the whole change, and of what the conversion omits."""

    total: float = 0.0
    lost: float = 0.0
    cut: set[str] = field(default_factory=set)
    worst: tuple[float, str] = (0.0, "")
    omitted: dict[ExtraKind, float] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The relative norm of all that is lost, 0 to 1."""
        omitted = sum(self.omitted.values())
        return _relative_norm(self.lost + omitted, self.total + omitted)

    def add(self, key: str, total: float, lost: float, *, was_cut: bool) -> None:
        if not total < MAX_NORM**2:
            raise AdapterError(OVERFLOW.format(key=key))
        self.total += total
        self.lost += lost
        if was_cut:
            self.cut.add(key)
            self.worst = max(self.worst, (_relative_norm(lost, total), key))


def require_small_loss(loss: ConversionLoss, notes: list[str]) -> None:
    """Raise LossError, with these notes, if more than a tenth of the change would be lost."""
    if loss.share > MAX_SILENT_LOSS:
        raise LossError(
            f"A LoRA cannot contain all of this file: {percent(loss.share)} of its change would be "
            f"lost (relative Frobenius norm; up to {percent(MAX_SILENT_LOSS)} is lost without "
            f"asking). {' '.join(notes)}",
            loss.share,
        )


def _relative_norm(lost: float, total: float) -> float:
    """The relative Frobenius norm of the error; 0 if the change itself is 0."""
    return math.sqrt(lost / total) if total > 0 else 0.0


def loss_notes(layout: FileLayout, adapter: LoraAdapter, loss: ConversionLoss) -> list[str]:
    notes = []
    if loss.cut:
        rank = max(module.rank for module in adapter.modules if module.key in loss.cut)
        error, (worst, key) = _relative_norm(loss.lost, loss.total), loss.worst
        notes.append(
            f"{plural(len(loss.cut), 'module')} {_was_or_were(len(loss.cut))} truncated to LoRA "
            f"(rank {rank}, the highest that fits): the relative Frobenius error is "
            f"{percent(error)} for the whole file and {percent(worst)} for the worst module, {key}."
        )
    whole = loss.total + sum(loss.omitted.values())
    for extra, squared in loss.omitted.items():
        share, names = _relative_norm(squared, whole), layout.extras.get(extra, layout.left_out)
        notes.append(
            f"Changes of {plural(len(names), extra)} were left out because a LoRA cannot contain "
            f"them: {percent(share)} of the file's whole change (Frobenius norm)."
        )
    return notes

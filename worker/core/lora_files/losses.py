"""The share of a file's change that a conversion loses, and a sentence about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from worker.core.lora_files.canonical import LoraAdapter
from worker.core.lora_files.errors import AdapterError, LossError
from worker.core.lora_files.file_layout import ExtraKind, FileLayout
from worker.core.lora_files.import_notes import loss_note
from worker.core.wording import percent, plural

MAX_SILENT_LOSS = 0.1  # of the whole change, in Frobenius norm; more needs the user's consent
MAX_NORM = 1e15  # Frobenius, of the change of one layer
OVERFLOW = "The weights of {key} overflow when they are multiplied: the training diverged."


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
        error = _relative_norm(loss.lost, loss.total)
        notes.append(loss_note(len(loss.cut), rank, error, loss.worst))
    whole = loss.total + sum(loss.omitted.values())
    for extra, squared in loss.omitted.items():
        share, names = _relative_norm(squared, whole), layout.extras.get(extra, layout.left_out)
        notes.append(
            f"Changes of {plural(len(names), extra)} were left out because a LoRA cannot contain "
            f"them: {percent(share)} of the file's whole change (Frobenius norm)."
        )
    return notes

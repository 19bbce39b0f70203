"""The panel on how the adapters of the stack go together, filled once the page is there."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.adapters.overlap import NOTABLE, LayerCosine, PairOverlap, StackCheck, check_stack
from app.registry.db import Database
from app.registry.renders.plan import usual_of
from app.web.playground.forms import PlayForm
from app.web.playground.stack import find_version, look_up
from worker.core.lora_files.weights import MAX_RENDER_ADAPTERS

MOST_BARS = 48
MOST_LAYERS = 20  # in the list of those with the highest cosines
STRONG = 1.5  # sum of weights
HEIGHT = 40  # of the chart, in its own units


@dataclass(frozen=True)
class TogetherView:
    """The panel of the comparison; `check`: None before anything was asked for.

    `count`: the adapters of the stack. `pair`: the rows of the two that overlap most, such as
    `0-1`; `sum`: that of the weights in use, which is much from `strong` on.
    """

    count: int
    check: StackCheck | None = None
    pair: str = ""
    sum: float = 0.0
    strong: float = STRONG

    @property
    def advice(self) -> str:
        """What to do first with weights that add up to much; else empty."""
        if self.sum < self.strong:
            return ""
        return f"Together they are strong (sum {self.sum:.3g}): see which weights show both."

    @property
    def worst(self) -> PairOverlap | None:
        """The pair whose layers are shown; None while a pair is still to come."""
        return None if self.check is None or self.check.is_computing else self.check.worst

    @property
    def bars(self) -> list[tuple[float, str]]:
        """The chart: layers from the text encoders and the input to the output.

        Each is the layer with the highest cosine of a few neighbors, as a height and a kind.
        """
        layers = self.worst.layers if self.worst else ()
        size = -(-len(layers) // MOST_BARS) or 1
        groups = [layers[start : start + size] for start in range(0, len(layers), size)]
        return [_bar(max(group, key=lambda layer: abs(layer.cosine))) for group in groups]

    @property
    def strongest(self) -> list[LayerCosine]:
        """The layers with the highest cosines, the highest first."""
        layers = self.worst.layers if self.worst else ()
        return sorted(layers, key=lambda layer: -abs(layer.cosine))[:MOST_LAYERS]


def _bar(layer: LayerCosine) -> tuple[float, str]:
    kind = "" if abs(layer.cosine) < NOTABLE else "same" if layer.cosine > 0 else "against"
    return max(1.0, round(HEIGHT * abs(layer.cosine), 1)), kind


def compare_stack(database: Database, form: PlayForm) -> TogetherView:
    """The panel for the adapters of a form; what nobody compared before is queued."""
    with database.read() as session:
        found = [find_version(session, row) for row in form.stack[:MAX_RENDER_ADAPTERS]]
        strong = STRONG * usual_of(look_up(session, form).base).weight
    made = [(place, pair) for place, pair in enumerate(found) if not isinstance(pair, str)]
    check = check_stack(database, [pair for _, pair in made])
    places = {version.key: place for place, (_, version) in reversed(made)}
    worst = check.worst
    rows = sorted(places[side[1].key] for side in (worst.first, worst.second)) if worst else []
    weights = [abs(row.number or 0) for row in form.stack if row.is_on and row.weight]
    return TogetherView(len(form.stack), check, "-".join(map(str, rows)), sum(weights), strong)

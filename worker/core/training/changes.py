"""Settings that may change while a training runs, each from a step on, so that it can be repeated.

A repeat that is given the same changes takes the same steps at the same rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.core.training.config import TrainConfig

CHANGEABLE = ("steps", "checkpoint_every", "sample_every", "patience")


@dataclass(frozen=True, slots=True)
class Change:
    """Values by setting that hold from the step after `step` finished ones, and those before."""

    step: int
    before: dict[str, int]
    after: dict[str, int]


@dataclass(frozen=True, slots=True)
class ChangeOrder:
    """Wanted values by setting; the answer to it has its `number`."""

    number: int
    values: dict[str, int]


class ChangingConfig:
    """A config with its changes, oldest first; the given config is what holds after all of them."""

    def __init__(self, config: TrainConfig, changes: Sequence[Change] = ()) -> None:
        self.config = config
        self.changes = list(changes)

    @property
    def first(self) -> TrainConfig:
        """The config before the first change."""
        return self.at(-1)

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """The changes of the number of steps: from which step on, and how many in all."""
        return [(one.step, one.after["steps"]) for one in self.changes if "steps" in one.after]

    def at(self, step: int) -> TrainConfig:
        """The config of the step after `step` finished ones."""
        values: dict[str, int] = {}
        for change in reversed(self.changes):
            if change.step > step:
                values |= change.before
        return self.config.model_copy(update=values) if values else self.config

    def change(self, step: int, values: Mapping[str, int]) -> Change:
        """Change settings from a step on; one after a later change holds from there.

        A training cannot end before the steps that it has done. What stays the same is in neither
        `before` nor `after`, and a change of nothing is not kept.
        """
        step = max([step, *(one.step for one in self.changes)])
        wanted = {**values, "steps": max(values.get("steps", self.config.steps), step)}
        after = {name: value for name, value in wanted.items() if self._value(name) != value}
        made = Change(step, {name: self._value(name) for name in after}, after)
        if after:
            self.config = self.config.model_copy(update=after)
            self.changes.append(made)
        return made

    def _value(self, name: str) -> int:
        return int(getattr(self.config, name))

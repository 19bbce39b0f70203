"""Every keyboard shortcut, once: the `?` dialog shows this table, scripts listen by `data-`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shortcut:
    """Keys, what they do, and the places of the bar where they work (none: everywhere)."""

    keys: tuple[str, ...]
    does: str
    places: frozenset[str] = frozenset()


SHORTCUTS: tuple[Shortcut, ...] = (
    Shortcut(("?",), "Show these shortcuts"),
    Shortcut(("/",), "Go to the search field"),
    Shortcut(("g", "d"), "Go to datasets"),
    Shortcut(("g", "t"), "Go to training"),
    Shortcut(("g", "a"), "Go to adapters"),
    Shortcut(("g", "p"), "Go to the playground"),
    Shortcut(("Ctrl", "→"), "Next caption, while writing one", frozenset({"datasets"})),
    Shortcut(("Ctrl", "←"), "Previous caption, while writing one", frozenset({"datasets"})),
    Shortcut(("Ctrl", "V"), "Add the pictures you copied", frozenset({"datasets"})),
    Shortcut(("Ctrl", "Enter"), "Draw", frozenset({"playground"})),
)

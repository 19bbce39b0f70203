"""All keyboard shortcuts, as listed in the `?` dialog; scripts bind them by `data-shortcut`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shortcut:
    """Keys, what they do, and the sections of the app where they work (none: everywhere)."""

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
    Shortcut(("←", "→", "↑", "↓"), "Walk the images", frozenset({"datasets"})),
    Shortcut(("Space",), "Select an image; with Shift, all up to it", frozenset({"datasets"})),
    Shortcut(("Ctrl", "A"), "Select all images that match", frozenset({"datasets"})),
    Shortcut(("Enter",), "Write the caption of an image; Esc comes out", frozenset({"datasets"})),
    Shortcut(("←", "→"), "Previous or next image, on its page", frozenset({"datasets"})),
    Shortcut(("←", "→", "↑", "↓"), "Move the focus point of a crop", frozenset({"datasets"})),
    Shortcut(("Ctrl", "V"), "Paste copied images", frozenset({"datasets"})),
    Shortcut(("←", "→"), "Previous or next prompt, in a large sample", frozenset({"training"})),
    Shortcut(("↑", "↓"), "Newer or older step, in a large sample", frozenset({"training"})),
    Shortcut(("c",), "Base model or sample, in a large sample", frozenset({"training"})),
    Shortcut(("+", "-"), "Zoom in or out, in a large sample", frozenset({"training"})),
    Shortcut(("Shift", "←", "→", "↑", "↓"), "Move a zoomed sample", frozenset({"training"})),
    Shortcut(("1",), "The left image, in a blind test", frozenset({"training"})),
    Shortcut(("2",), "The right image, in a blind test", frozenset({"training"})),
    Shortcut(("0",), "No difference, in a blind test", frozenset({"training"})),
    Shortcut(("u",), "Take the last answer back, in a blind test", frozenset({"training"})),
    Shortcut(("z",), "Look closer at both, in a blind test", frozenset({"training"})),
    Shortcut(
        ("f",),
        "The other image, in a comparison by flicker",
        frozenset({"training", "adapters", "playground"}),
    ),
    Shortcut(("↑", "↓"), "Through the adapters to add", frozenset({"playground"})),
    Shortcut(
        ("←", "→", "↑", "↓"), "Another weight, in a strip or a square", frozenset({"playground"})
    ),
    Shortcut(("Ctrl", "A"), "Choose all images of the page", frozenset({"playground"})),
    Shortcut(("←", "→", "↑", "↓"), "Walk the images of a grid", frozenset({"playground"})),
    Shortcut(("c",), "Compare with the neighbor, in a grid", frozenset({"playground"})),
    Shortcut(("Ctrl", "Enter"), "Start the training, in its form", frozenset({"training"})),
    Shortcut(("Ctrl", "Enter"), "Generate", frozenset({"playground"})),
)

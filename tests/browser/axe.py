"""Checks a page with axe-core in several windows and themes, and that nothing is wider than it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

WIDE = (1440, 900)

CHECK = """
async ({ part, rules, colors }) => {
  await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
  const only = rules && { runOnly: { type: "rule", values: rules } };
  const extra = rules ? {} : {
    rules: {
      "target-size": { enabled: true },
      "label-content-name-mismatch": { enabled: true },
      "page-has-heading-one": { enabled: !part },
      "color-contrast": { enabled: colors },
    },
  };
  const options = { resultTypes: ["violations"], preload: false, ...only, ...extra };
  const { violations } = await axe.run(part ?? document, options);
  return violations.flatMap(({ id, nodes }) => nodes.map((node) => ({
    rule: id,
    target: node.target.join(" "),
    html: node.html.slice(0, 160),
    why: [...node.any, ...node.all, ...node.none].map((check) => check.message).join("; "),
  })));
}
"""

TOO_WIDE = """
() => {
  const isClipped = (box) => {
    const above = box.parentElement;
    if (above === document.body) return false;
    return getComputedStyle(above).overflowX !== "visible" || isClipped(above);
  };
  const wide = [...document.querySelectorAll("body *")].filter((box) =>
    (box.getBoundingClientRect().right > innerWidth + 1 || box.getBoundingClientRect().left < -1)
    && box.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && !isClipped(box));
  const outer = wide.filter((box) => !wide.includes(box.parentElement));
  const names = outer.map((box) => box.outerHTML.slice(0, 160));
  const width = document.documentElement.scrollWidth;
  return names.length || width <= innerWidth ? names : [`the document: ${width} px`];
}
"""
"""Elements that stick out of the window: neither hidden, nor scrolled in a box of their own."""


@dataclass(frozen=True)
class Window:
    """The view of a page, and the rules that can have another result than in a wide window.

    No rules: all of them, but color contrast only if `has_new_colors`.
    """

    name: str
    size: tuple[int, int] = WIDE
    colors: Literal["light", "dark"] = "light"
    forced: bool = False
    rules: tuple[str, ...] = ()
    has_new_colors: bool = True


NARROW_RULES = ("target-size", "scrollable-region-focusable")
COLORS = ("color-contrast",)
LIGHT = Window("wide")
DARK = Window("dark", colors="dark", rules=COLORS)
FORCED = Window("forced colors", forced=True, rules=COLORS)
MIDDLE = Window("middle", (768, 1024), rules=NARROW_RULES)
NARROW = Window("narrow", (360, 740), rules=NARROW_RULES)
KNOWN_COLORS = Window("wide", has_new_colors=False)

NARROW_ALONE = replace(NARROW, rules=())
NARROW_ALONE_KNOWN_COLORS = replace(NARROW_ALONE, has_new_colors=False)
MIDDLE_DARK = replace(MIDDLE, name="middle, dark", colors="dark", rules=NARROW_RULES + COLORS)
WIDE_FORCED = replace(FORCED, name="wide, forced colors", rules=())
FEW = (NARROW_ALONE, MIDDLE_DARK, WIDE_FORCED)
"""Every width and theme once, each with more rules: a run of axe costs more than its rules."""

BACKGROUND = """
Object.defineProperty(Document.prototype, "hidden", { get: () => true });
"""
"""Stops polling for half a minute, as in a tab in the background."""

FORCED_COLORS = """
() => {
  const valueOf = CSSStyleDeclaration.prototype.getPropertyValue;
  CSSStyleDeclaration.prototype.getPropertyValue = function (name) {
    return valueOf.call(this, name === "-webkit-text-fill-color" ? "color" : name);
  };
}
"""
"""axe prefers this property, which chromium gives unforced; no style sheet sets it."""


def prepare(page: Page) -> None:
    """Make axe known to every page that is loaded from now on, and keep these from changing."""
    page.add_init_script(f"(() => {{{BACKGROUND}}})();\n{AXE_SCRIPT}")


def show(page: Page, window: Window) -> None:
    """Change window and theme of the loaded page."""
    width, height = window.size
    if page.viewport_size != {"width": width, "height": height}:
        page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(
        color_scheme=window.colors, forced_colors="active" if window.forced else "none"
    )


def violations(page: Page, window: Window, part: str | None = None) -> list[str]:
    """The violations that axe finds on the loaded page, or on a part of it."""
    if window.forced:
        page.evaluate(FORCED_COLORS)
    wanted = {"part": part, "rules": list(window.rules) or None, "colors": window.has_new_colors}
    found: list[dict[str, Any]] = page.evaluate(CHECK, wanted)
    return [
        f"{one['rule']}: {one['target']} {one['html']} ({one['why']})"
        for one in found
        # a bar that sticks covers what is scrolled below it only as long as that stays there
        if not (one["rule"] == "target-size" and "partially obscured" in one["why"])
    ]


def too_wide(page: Page) -> list[str]:
    """The elements that are wider than the window."""
    return [f"too wide: {name}" for name in page.evaluate(TOO_WIDE)]


@dataclass
class Survey:
    """Checks states of pages and remembers what is wrong; `count` is the number of checks."""

    page: Page
    count: int = 0
    findings: list[str] = field(default_factory=list)

    def check(self, name: str, windows: Sequence[Window], part: str | None = None) -> None:
        """Check the loaded page, or a part of it, in these windows."""
        for window in windows:
            show(self.page, window)
            found = violations(self.page, window, part) + too_wide(self.page)
            self.findings += [f"{name} ({window.name}): {one}" for one in found]
            self.count += 1

"""Makes the sheets that show what training on the example styles reaches.

    python -m docs.screenshots.examples                      # every style, Quick and Balanced
    python -m docs.screenshots.examples --style linocut --preset quick --out /tmp/sheets

Runs `brushwork demo` for each style and preset, and puts what it generated into one sheet for each
style: without the adapter, after Quick, after Balanced. The subjects are the first of
`worker.core.starter.examples.SUBJECTS`; none of them is among the images trained on, and no result
is chosen. Two quiet cores need about twenty minutes.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from app.registry.paths import STATIC
from docs.screenshots.camera import save_webp
from worker.core.starter.examples import EXAMPLES, SUBJECTS, Example
from worker.core.starter.sheet import contact_sheet
from worker.core.training.presets import Preset

SHEETS = STATIC / "examples"
PRESETS = (Preset.QUICK, Preset.BALANCED)
COLUMNS = 5


def main(argv: Sequence[str] | None = None) -> None:
    """Make the sheets."""
    parser = argparse.ArgumentParser(prog="python -m docs.screenshots.examples")
    parser.add_argument("--out", type=Path, default=SHEETS, help="folder for the sheets")
    parser.add_argument("--style", action="append", choices=EXAMPLES, help="only this (repeatable)")
    parser.add_argument(
        "--preset", action="append", choices=PRESETS, help="only this (repeatable)", type=Preset
    )
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    for key in options.style or EXAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            rows: dict[str, list[Image.Image]] = {}
            for preset in options.preset or PRESETS:
                results = run_demo(EXAMPLES[key], preset, Path(folder) / preset)
                rows.setdefault("Without", generated(results, weight=0.0))
                rows[preset.capitalize()] = generated(results, weight=1.0)
            sheet = contact_sheet(list(rows), SUBJECTS[:COLUMNS], list(rows.values()))
        png = io.BytesIO()
        sheet.save(png, "PNG")
        save_webp(png.getvalue(), options.out / f"{key}.webp")


def run_demo(example: Example, preset: Preset, out: Path) -> Path:
    """Train and generate on a real stack; the folder of the results.

    A style that was not learned is shown like any other. Raises RuntimeError if a step failed.
    """
    words = ["demo", "--style", example.key, "--preset", preset, "--out", str(out)]
    ended = subprocess.run([sys.executable, "-m", "app", *words], check=False).returncode
    results = out / example.key
    if not (results / "contact-sheet.png").is_file():
        raise RuntimeError(f"brushwork {' '.join(words)} ended with {ended} and without results.")
    return results


def generated(results: Path, *, weight: float) -> list[Image.Image]:
    """The images of the first subjects at this weight of the adapter."""
    names = [f"weight-{weight}-{number}.png" for number in range(1, COLUMNS + 1)]
    return [Image.open(results / name).convert("RGB") for name in names]


if __name__ == "__main__":
    main()

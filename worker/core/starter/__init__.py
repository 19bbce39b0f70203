"""The embedded base model: its path.

Importing this module loads no model. `starter` is a diffusers folder like any other base,
which maintainers build with `tools/starter`. Styles to train it on are in
`worker.core.starter.examples`.
"""

from pathlib import Path

PATH: Path = Path(__file__).parent / "weights"
"""The diffusers folder of the base: v-prediction, fp16."""

REPAIR: str = "Install Brushwork again to repair it; your data is not affected."
"""The advice when files of the base are damaged or missing."""

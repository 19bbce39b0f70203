"""Measures host memory of loading a Z-Image: `python -m bench.transformer_load`.

Writes a folder with random weights of the published widths in bf16 (2.7 GB, removed afterwards):
about 1/8 of the denoiser's and 1/6 of the text encoder's parameters, which are fewer blocks. A
fresh process loads it onto the CPU, and onto torch's meta device, where a tensor leaves host memory
as it does on its way to a GPU. Computed for the whole model: what is over the weights that stay
does not depend on the number of blocks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.training import ROOT, heading

WHOLE = {"unet": 12.31, "text_encoder": 8.04, "vae": 0.34}  # GB as they are loaded
TEXT = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 3,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
}
CHILD = """
import json, sys
from pathlib import Path
from worker.core.lean_imports import lean_imports
with lean_imports("cpu"):
    import torch
    from bench.load_contender import _memory, _reset_peak
    from worker.core.bases.load import load_base
    from worker.core.bases.weights import build_module
build_module("Qwen3Model", {"num_hidden_layers": 1})
path, device, component = sys.argv[1:]
_reset_peak()
before = _memory("VmRSS")
base = load_base(Path(path), dtype=torch.bfloat16, device=device, components=[component])
weights = sum(w.nbytes for module in base.adaptable().values() for w in module.parameters())
print(json.dumps({"over": _memory("VmHWM") - before, "weights": weights}))
"""


def main() -> None:
    """Measure each component on each device and print the results."""
    print(heading("bench.transformer_load"))
    print(f"\n{'GB':34}{'weights':>10}{'peak over start':>18}{'whole model':>14}")
    with tempfile.TemporaryDirectory(prefix="brushwork-bench-") as folder:
        path = _write(Path(folder) / "z-image")
        for device in ("cpu", "meta"):
            for component in ("unet", "text_encoder"):
                found = _measure(path, device, component)
                stays = WHOLE[component] if device == "cpu" else 0
                left = found["weights"] if device == "cpu" else 0
                whole = stays + (found["over"] - left) / 1e9
                name = "CPU" if device == "cpu" else "host, on its way to a GPU"
                sizes = f"{found['weights'] / 1e9:>10.2f}{found['over'] / 1e9:>18.2f}{whole:>14.2f}"
                print(f"{component + ', ' + name:34}{sizes}", flush=True)


def _measure(path: Path, device: str, component: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), device, component],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _write(folder: Path) -> Path:
    import torch
    from diffusers import ZImageTransformer2DModel
    from safetensors.torch import save_file
    from transformers import Qwen3Config, Qwen3Model

    from tests.worker.bases.tiny_zimage import save_zimage

    save_zimage(folder, causal=False)
    torch.set_default_dtype(torch.bfloat16)
    transformer = ZImageTransformer2DModel(n_layers=2, n_refiner_layers=1)
    transformer.save_config(folder / "transformer")
    _save(transformer, folder / "transformer/diffusion_pytorch_model.safetensors", save_file)
    del transformer
    text = Qwen3Model(Qwen3Config(**TEXT))
    text.config.architectures = ["Qwen3Model"]
    text.config.save_pretrained(folder / "text_encoder")
    _save(text, folder / "text_encoder/model.safetensors", save_file)
    torch.set_default_dtype(torch.float32)
    return folder


def _save(module: Any, file: Path, save_file: Any) -> None:
    save_file(dict(module.state_dict()), file, {"format": "pt"})


if __name__ == "__main__":
    main()

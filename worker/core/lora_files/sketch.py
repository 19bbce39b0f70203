"""A short vector of an adapter's weight changes: those of near-identical adapters nearly agree.

Number j is the sum over the modules of uⱼᵀ D vⱼ with random signs u and v of that module (random
projections, as of Achlioptas 2003, doi:10.1016/S0022-0000(03)00025-4). The product of two sketches
is then ⟨D₁, D₂⟩ on average, whatever the ranks and the number types of the files are. Of unrelated
adapters the cosine is 0 up to 1/√NUMBERS; a high one is off by less.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from worker.core.lora_files.canonical import LoraAdapter

NUMBERS = 128


def sketch_weights(adapter: LoraAdapter) -> Tensor:
    """The sketch of an adapter at weight 1, (NUMBERS,), of unit length; zeros for no change."""
    total = torch.zeros(NUMBERS)
    for module in adapter.modules:
        down, up = module.down.flatten(1), module.up.flatten(1)
        outputs = _signs(f"{module.key} up", up.shape[0]).T @ up
        inputs = down @ _signs(f"{module.key} down", down.shape[1])
        total += module.scale * (outputs * inputs.T).sum(dim=1)
    return F.normalize(total, dim=0)


def _signs(name: str, rows: int) -> Tensor:
    """(rows, NUMBERS) of -1 and 1, the same on every machine."""
    words = np.random.PCG64(zlib.crc32(name.encode())).random_raw(rows * NUMBERS // 64)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8))
    return torch.from_numpy(bits.astype(np.float32) * 2 - 1).view(rows, NUMBERS)

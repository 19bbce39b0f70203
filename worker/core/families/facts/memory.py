"""The memory that large base models take, computed from their parameters and not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BF16_BYTES, INT8_BYTES, FP32_BYTES = 2, 1, 4


@dataclass(frozen=True, kw_only=True)
class MemoryFacts:
    """What a family takes on a GPU beside its weights, in bytes.

    `int8_share`: the share of the denoiser's parameters that can be int8 rows. `training`: by side
    in pixels, for batch 1 with gradient checkpointing and a LoRA of rank 8 in attention: the inputs
    of all blocks, one block with its gradients, AdamW, and 2.5 GB for CUDA and its allocator.
    `drawing`: an image of the native size.
    """

    int8_share: float
    training: Mapping[int, int]
    drawing: int

    def training_bytes(
        self, parameters: Mapping[str, int], side: int, *, int8: bool = False, fp32: bool = False
    ) -> int:
        """The peak of a training at the nearest known side; the text encoder has left memory.

        `parameters`: the number of parameters of each component. With `fp32`, frozen weights that
        are no int8 rows take as much as in that precision.
        """
        near = min(self.training, key=lambda known: abs(known - side))
        rows = round(self.int8_share * parameters["unet"]) if int8 else 0
        plain = FP32_BYTES if fp32 else BF16_BYTES
        weights = rows * INT8_BYTES + (parameters["unet"] - rows) * plain
        return weights + self.training[near]

    def drawing_bytes(self, parameters: Mapping[str, int]) -> int:
        """The peak of drawing an image, with the text encoder in memory and the VAE in fp32."""
        return self.drawing + sum(
            count * (FP32_BYTES if name == "vae" else BF16_BYTES)
            for name, count in parameters.items()
        )

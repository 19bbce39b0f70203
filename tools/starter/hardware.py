"""The device of a build, and its arithmetic: bfloat16 where it is faster."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Hardware:
    """Where the stages train, and how."""

    device: str = "cpu"
    half: bool = False
    """bfloat16 in the forward pass; the weights stay in float32."""
    compile: bool = False
    """torch.compile for the UNet's forward pass, which needs a C++ compiler on a CPU."""

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward pass."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.half)


def choose_hardware(*, device: str | None = None, compile: bool = False) -> Hardware:
    """The given device, else a CUDA GPU if there is one; bfloat16 if it is faster there."""
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    half = chosen == "cuda" or _faster_in_half()
    return Hardware(chosen, half=half, compile=compile)


def _faster_in_half() -> bool:
    """True when a convolution and a matrix product are faster in bfloat16: only some processors
    have it in hardware, and on others it makes steps about ten times slower."""
    layer = torch.nn.Conv2d(64, 64, 3, padding=1)
    images, matrix = torch.randn(16, 64, 16, 16), torch.randn(512, 512)

    def work() -> Tensor:
        total: Tensor = layer(images).float().sum() + (matrix @ matrix).float().sum()
        return total

    return _seconds(work, half=True) < _seconds(work, half=False)


def _seconds(work: Callable[[], Tensor], *, half: bool) -> float:
    """The fastest of three runs, forward and backward."""
    runs = []
    for _ in range(3):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            work().backward()  # type: ignore[no-untyped-call]
        runs.append(time.perf_counter() - started)
    return min(runs)

"""The programs that a file is checked for, the most used first."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from worker.core.lora_files.proof import (
    comfy_rule,
    cpp_rule,
    diffusers_rule,
    invoke_rule,
    kohya_rule,
    webui_rule,
)
from worker.core.lora_files.proof.content import FileContent, LoaderReading
from worker.core.lora_files.proof.layout import BaseLayout


@dataclass(frozen=True)
class Loader:
    """A program, its rule, and which layers of a base it can change.

    `reshapes`: it applies matrices of another shape with the same numbers, as a convolution's that
    are flat; any other program refuses the whole file then.
    """

    name: str
    title: str
    read: Callable[[FileContent, BaseLayout], LoaderReading]
    can_change: Callable[[str, BaseLayout, Collection[str]], bool]
    reshapes: bool = True


DIFFUSERS = Loader(
    "diffusers",
    "diffusers",
    diffusers_rule.read_as_diffusers,
    diffusers_rule.can_change,
    reshapes=False,
)
LOADERS = (
    Loader("comfyui", "ComfyUI", comfy_rule.read_as_comfyui, comfy_rule.can_change),
    Loader("a1111", "A1111", webui_rule.read_as_a1111, webui_rule.can_change),
    Loader("forge", "Forge", comfy_rule.read_as_forge, comfy_rule.can_change),
    Loader("invokeai", "InvokeAI", invoke_rule.read_as_invokeai, invoke_rule.can_change),
    Loader(
        "kohya",
        "kohya sd-scripts",
        kohya_rule.read_as_kohya,
        kohya_rule.can_change,
        reshapes=False,
    ),
    Loader(
        "cpp", "stable-diffusion.cpp", cpp_rule.read_as_stable_diffusion_cpp, cpp_rule.can_change
    ),
    DIFFUSERS,
)

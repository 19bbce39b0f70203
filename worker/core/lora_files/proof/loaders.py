"""The programs that a file is checked for, in the order in which people meet them."""

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
from worker.core.lora_files.proof.content import FileContent, Reading
from worker.core.lora_files.proof.layout import Layout


@dataclass(frozen=True)
class Loader:
    """A program, its rule, and which layers of a base it can change at all."""

    name: str
    title: str
    read: Callable[[FileContent, Layout], Reading]
    reaches: Callable[[str, Layout, Collection[str]], bool]


DIFFUSERS = Loader("diffusers", "diffusers", diffusers_rule.diffusers, diffusers_rule.reaches)
LOADERS = (
    Loader("comfyui", "ComfyUI", comfy_rule.comfyui, comfy_rule.reaches),
    Loader("a1111", "A1111", webui_rule.a1111, webui_rule.reaches),
    Loader("forge", "Forge", comfy_rule.forge, comfy_rule.reaches),
    Loader("invokeai", "InvokeAI", invoke_rule.invokeai, invoke_rule.reaches),
    Loader("kohya", "kohya sd-scripts", kohya_rule.kohya, kohya_rule.reaches),
    Loader("cpp", "stable-diffusion.cpp", cpp_rule.stable_diffusion_cpp, cpp_rule.reaches),
    DIFFUSERS,
)

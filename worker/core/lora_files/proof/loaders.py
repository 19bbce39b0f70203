"""The programs that a file is checked for, the most used first, and the rules by which they read.

A rule says under which names a program finds each layer, and what it detects or refuses. They were
read in the source code of the versions that each file of a rule names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from worker.core.families.family import BaseFamily
from worker.core.lora_files.proof import diffusers_rule, klein_rule, zimage_rule
from worker.core.lora_files.proof.comfyui_rule import comfy_can_change, read_as_comfyui
from worker.core.lora_files.proof.content import FileContent, LoaderReading
from worker.core.lora_files.proof.cpp_rule import cpp_can_change, read_as_stable_diffusion_cpp
from worker.core.lora_files.proof.invokeai_rule import read_as_invokeai
from worker.core.lora_files.proof.kohya_rule import kohya_can_change, read_as_kohya
from worker.core.lora_files.proof.layout import BaseLayout
from worker.core.lora_files.proof.webui_rule import read_as_a1111, read_as_forge, webui_can_change


@dataclass(frozen=True)
class Loader:
    """A program, its rule, and which layers of a base it can change, by default all.

    `reshapes`: it applies matrices of another shape with the same numbers, as a convolution's that
    are flat; any other program refuses the whole file then.
    """

    name: str
    title: str
    read: Callable[[FileContent, BaseLayout], LoaderReading]
    can_change: Callable[[str, BaseLayout, Collection[str]], bool] = lambda *_: True
    reshapes: bool = True


DIFFUSERS = Loader("diffusers", "diffusers", diffusers_rule.read_as_diffusers, reshapes=False)
LOADERS = (
    Loader("comfyui", "ComfyUI", read_as_comfyui, comfy_can_change),
    Loader("a1111", "A1111", read_as_a1111, webui_can_change),
    Loader("forge", "Forge", read_as_forge, comfy_can_change),
    Loader("invokeai", "InvokeAI", read_as_invokeai),
    Loader("kohya", "kohya sd-scripts", read_as_kohya, kohya_can_change, reshapes=False),
    Loader("cpp", "stable-diffusion.cpp", read_as_stable_diffusion_cpp, cpp_can_change),
    DIFFUSERS,
)


_OTHERS = {rules.family: rules for rules in (zimage_rule.RULES, klein_rule.RULES)}


def loaders_of(family: BaseFamily) -> Sequence[Loader]:
    """The programs that read adapters for a family, as far as their rules are known."""
    rules = _OTHERS.get(family)
    if rules is None:
        return LOADERS
    return [
        replace(loader, read=rules.read[loader.name], can_change=rules.can_change)
        for loader in LOADERS
        if loader.name in rules.read
    ]

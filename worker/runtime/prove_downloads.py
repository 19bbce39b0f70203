"""The last part of a file's proof: the installed diffusers loads it, and draws with it.

Every file is loaded into the layers of its base, which need no weights for that. A base that fits
a moment's work (the embedded one does) is loaded with its weights: they must move as the adapter
says, and a picture must come out as the registry's own pipeline draws it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from worker.core.bases.family import BaseFamily, BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import COMPONENTS, LoadedBase, load_base, make_source
from worker.core.bases.weights import build_module
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import RenderError, ResidentPipeline
from worker.core.lora_files.canonical import Adapter
from worker.core.lora_files.compatible import layers, misfits
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.proof.loaders import DIFFUSERS
from worker.core.lora_files.proof.loading import (
    DiffusersRefusal,
    hollow,
    loaded_by_diffusers,
    measure,
)
from worker.core.lora_files.proof.result import Drawn, Loaded, Proof
from worker.core.lora_files.proof.strength import few_threads

MOMENT_BYTES = 256 * 1024**2  # of a base's files
MOMENT_PIXELS = 128  # of its native side
STEPS, SEED, SUBJECT = 4, 0, "castle"
DIFFERENCE_LIMITS = {"fp16": 8, "bf16": 32, "fp32": 2}  # of 255 levels

_XL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD2 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20)}
_WIDE = (320, 640, 1280, 1280)


def _clip(width: int, count: int) -> dict[str, int]:
    return {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": count}


NO_LAYERS = (
    "Its base is not at hand, and it does not fit the published layers of its family. Bring the "
    "base back to have the file loaded."
)
NOT_DRAWN = (
    "at full strength the numbers of this adapter run away on its base, with any program. Draw "
    "with a lower weight."
)
RUNS_AWAY = (
    "diffusers' copy of the file draws no picture: its numbers run away, and those of the adapter "
    "itself do not. Choose fp32 for this adapter."
)

# the parts of the families as published, for adapters whose own base is not at hand
_PUBLISHED: dict[BaseFamily, dict[str, tuple[str, dict[str, Any]]]] = {
    BaseFamily.SD1: {
        "unet": (
            "UNet2DConditionModel",
            {"block_out_channels": _WIDE, "cross_attention_dim": 768},
        ),
        "text_encoder": ("CLIPTextModel", _clip(768, 12)),
    },
    BaseFamily.SD2: {
        "unet": (
            "UNet2DConditionModel",
            {"block_out_channels": _WIDE, "use_linear_projection": True, **_SD2},
        ),
        "text_encoder": ("CLIPTextModel", _clip(1024, 23) | {"num_attention_heads": 16}),
    },
    BaseFamily.SDXL: {
        "unet": ("UNet2DConditionModel", _XL),
        "text_encoder": ("CLIPTextModel", _clip(768, 12)),
        "text_encoder_2": (
            "CLIPTextModelWithProjection",
            _clip(1280, 32) | {"num_attention_heads": 20, "projection_dim": 1280},
        ),
    },
}


class Prover:
    """Loads the files of one adapter as diffusers does; the base is made ready once.

    `base` is where the base lies; without it, or when it cannot be read, the family's published
    layers stand in for it.
    """

    def __init__(self, base: Path | None, family: BaseFamily, triggers: tuple[str, ...]) -> None:
        self._path = base
        self._family = family
        self._prompt = ", ".join((SUBJECT, *triggers))
        self._pictures: dict[str, np.ndarray[Any, Any]] = {}

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The weight shapes of the base's layers, by canonical key."""
        return {
            f"{component}.{path}": tuple(layer.weight.shape)  # type: ignore[arg-type]
            for component, part in self._parts.items()
            for path, layer in layers(component, part).items()
        }

    def shapes_for(self, adapter: Adapter) -> Mapping[str, tuple[int, ...]]:
        """The base's shapes; none when they are another base's, whose own is not at hand."""
        return {} if misfits(adapter, self.shapes) else self.shapes

    def prove(self, path: Path, adapter: Adapter, proof: Proof) -> Proof:
        """The proof with what diffusers made of the file, and with what it got wrong."""
        asked = next(result for result in proof.loaders if result.name == DIFFUSERS.name)
        if not asked.needed:
            return proof  # its rule says why
        if misfits(adapter, self.shapes):
            return replace(proof, not_loaded=NO_LAYERS)
        failures = list(proof.failures)
        drawn, not_drawn = None, ""
        try:
            with few_threads(adapter.parameters):
                self._draw_own(adapter)
                with loaded_by_diffusers(path, self._parts, self._family):
                    loaded = measure(adapter, self._parts)
                    if self._small is not None:
                        moved = measure(adapter, self._parts, weights=True)
                        loaded = max(loaded, moved, key=lambda found: found.worst_error)
                        loaded = replace(loaded, weights=True)
                        drawn, not_drawn, fault = self._compare(self._draw(), proof.dtype)
                        failures += fault
        except DiffusersRefusal as error:
            return replace(proof, failures=[*failures, f"diffusers does not load it: {error}"])
        failures += _faults(loaded, drawn, proof.read_back.limit)
        return replace(proof, loaded=loaded, drawn=drawn, not_drawn=not_drawn, failures=failures)

    @cached_property
    def _small(self) -> LoadedBase | None:
        """The base with its weights, when that takes a moment."""
        if self._path is None:
            return None
        try:
            info = inspect_base(self._path)
            if info.size_bytes > MOMENT_BYTES or info.resolution > MOMENT_PIXELS:
                return None
            return load_base(self._path)
        except BaseModelError:
            return None

    @cached_property
    def _parts(self) -> dict[str, nn.Module]:
        if self._small is not None:
            return dict(self._small.adaptable())
        configs = self._configs() or _PUBLISHED[self._family]
        return {name: hollow(build_module(*config)) for name, config in configs.items()}

    def _configs(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """(class, config) of the base's own parts; none when it cannot be read."""
        if self._path is None:
            return {}
        try:
            info = inspect_base(self._path)
            source = make_source(info)
            names = [name for name in COMPONENTS if name != "vae" and name in info.parameters]
            return {name: source.config(name) for name in names}
        except BaseModelError:
            return {}

    def _draw_own(self, adapter: Adapter) -> None:
        """Draw the base and the registry's adapter, once for all files of the adapter."""
        if self._small is None or "own" in self._pictures:
            return
        pipeline = ResidentPipeline(self._small)
        for name, stack in (("own", [LoadedAdapter("proof", adapter)]), ("plain", [])):
            pipeline.set_adapters(stack)
            picture = self._draw(pipeline)
            if picture is not None:
                self._pictures[name] = picture

    def _draw(self, pipeline: ResidentPipeline | None = None) -> np.ndarray[Any, Any] | None:
        """A picture with what is in the base now; None when its numbers run away."""
        assert self._small is not None
        config = RenderConfig(prompt=self._prompt, steps=STEPS, seed=SEED)
        try:
            # a new pipeline knows no prompt yet: the text encoder may have changed
            (drawn,) = (pipeline or ResidentPipeline(self._small)).render(config)
        except RenderError:
            return None
        return np.asarray(drawn.image, dtype=np.int16)

    def _compare(
        self, picture: np.ndarray[Any, Any] | None, dtype: str
    ) -> tuple[Drawn | None, str, list[str]]:
        """(the comparison, why there is none, what is wrong with the file)."""
        if len(self._pictures) < 2:  # the adapter's own numbers run away, whoever loads it
            return None, NOT_DRAWN, []
        if picture is None:
            return None, "", [RUNS_AWAY]
        own, plain = self._pictures["own"], self._pictures["plain"]
        drawn = Drawn(
            prompt=self._prompt,
            seed=SEED,
            difference=int(abs(picture - own).max()),
            effect=int(abs(plain - own).max()),
            limit=DIFFERENCE_LIMITS[dtype],
        )
        return drawn, "", []


def _faults(loaded: Loaded, drawn: Drawn | None, limit: float) -> list[str]:
    faults = []
    if loaded.worst_error > limit:
        faults.append(
            f"diffusers {loaded.diffusers} loads it with {loaded.worst_module} "
            f"{loaded.worst_error:.2g} off; {limit:g} is accepted."
        )
    if drawn is not None and drawn.difference > drawn.limit:
        faults.append(
            f"A picture drawn with the file is up to {drawn.difference} of 255 levels off; "
            f"{drawn.limit} are accepted."
        )
    return faults

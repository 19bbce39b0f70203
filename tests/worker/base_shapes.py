"""What an adapter can change in a loaded base model."""

from __future__ import annotations

from worker.core.bases.load import LoadedBase
from worker.core.lora_files.compatible import adaptable_layers


def base_shapes(base: LoadedBase) -> dict[str, tuple[int, ...]]:
    """The weight shape of every layer that an adapter can change, by `<component>.<path>`."""
    return {
        f"{component}.{path}": tuple(layer.weight.shape)  # type: ignore[arg-type]
        for component, module in base.adaptable().items()
        for path, layer in adaptable_layers(component, module).items()
    }

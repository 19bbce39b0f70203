"""The family of base models that a LoRA file fits, by its shapes and header."""

from __future__ import annotations

from worker.core.families.adapter_files import closest_family, family_of_header, family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files.compatible import AdapterLike, mismatched_modules
from worker.core.lora_files.file_layout import FileLayout
from worker.core.lora_files.reading import matching_families


def family_of(adapter: AdapterLike) -> BaseFamily:
    """The family whose kohya names the modules get, by their shapes."""
    for family in BaseFamily:
        if not mismatched_modules(adapter, family_shapes(family)):
            return family
    return closest_family({module.key: module.weight_shape for module in adapter.modules})


def find_family(found: FileLayout) -> tuple[BaseFamily, list[str]]:
    """(family, notes on doubts); the header decides if the shapes fit several families."""
    families, named = matching_families(found), family_of_header(found.metadata)
    if named in families or (named and not families):
        family = named
    else:
        family = families[0] if families else family_of(found)
    if len(families) > 1 and named not in families:
        fitting = " and ".join(other.label for other in families)
        return family, [f"The file fits {fitting}; it was written for {family.label}."]
    if not families:
        return family, [
            "The file's shapes match no known base model; its modules were named as in "
            f"{family.label}."
        ]
    return family, []

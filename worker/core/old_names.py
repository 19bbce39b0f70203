"""Names of settings and fields before they were spelled in American English.

Requests, configs, files and checkpoints may still use them.
"""

from collections.abc import Mapping
from typing import Any

OLD_NAMES = {
    "licence": "license",
    "regularisation": "regularization",
    "regularisation_dataset_id": "regularization_dataset_id",
    "regularisation_weight": "regularization_weight",
}


def rename_old(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under the names of today; a value under its new name wins."""
    renamed = {OLD_NAMES.get(name, name): value for name, value in values.items()}
    return renamed | {name: values[name] for name in renamed if name in values}


def accept_old_names(values: Any) -> Any:
    """The input of a pydantic model under the names of today, for a validator of mode `before`.

    Raises ValueError for different values under the old and the new name.
    """
    if not isinstance(values, Mapping):
        return values
    for old, new in OLD_NAMES.items():
        if old in values and new in values and values[old] != values[new]:
            raise ValueError(f"“{old}” is the old name of “{new}”. Use only the new name.")
    return rename_old(values)

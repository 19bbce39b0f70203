"""Content of the model card of a published adapter, without the Hub's client."""

from __future__ import annotations

from dataclasses import dataclass, field

from worker.core.lora_files.metadata import AdapterMetadata

PEFT_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Content of a model card; `pictures` are (path in the repository, prompt).

    `base_model` is its name on the Hub, empty when it has none there.
    """

    metadata: AdapterMetadata
    version: int
    kohya_file: str
    base_model: str = ""
    rank: int = 0
    alpha: float = 0.0
    steps: int | None = None
    trained: int | None = None
    pictures: list[tuple[str, str]] = field(default_factory=list)

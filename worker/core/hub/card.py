"""The model card of a published adapter, as text.

The front matter follows https://huggingface.co/docs/hub/model-cards for LoRAs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import ModelCardData

from worker.core.bases.family import find_family

TAGS = ("text-to-image", "lora", "diffusers", "template:diffusion-lora")
# the Hub's identifiers of licenses that people use for adapters; any other becomes `other`
LICENSES = (
    "apache-2.0", "mit", "openrail", "openrail++", "creativeml-openrail-m", "cc0-1.0", "cc-by-4.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0",
    "bsd-3-clause", "gpl-3.0", "agpl-3.0", "unlicense", "wtfpl",
)  # fmt: skip
PEFT_FILE = "pytorch_lora_weights.safetensors"
UNKNOWN_BASE = "path/of/the/base-model"


@dataclass(frozen=True)
class CardFacts:
    """The facts that a model card shows; `pictures` are (path in the repository, prompt).

    `base_model` is its name on the Hub, empty when it is not there; `images` is the number of
    training images.
    """

    name: str
    version: int
    family: str
    kohya_file: str
    base_model: str = ""
    base_name: str = ""
    notes: str = ""
    licence: str = ""
    trigger_words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    rank: int = 0
    alpha: float = 0.0
    resolution: int | None = None
    prediction_type: str | None = None
    steps: int | None = None
    images: int | None = None
    trained: int | None = None
    weight: float = 0.8
    pictures: list[tuple[str, str]] = field(default_factory=list)


def make_card(facts: CardFacts, repo: str) -> str:
    """The README.md of the repository `repo`."""
    parts = [
        f"---\n{_front_matter(facts)}\n---",
        f"# {_one_line(facts.name)}",
        facts.notes.strip(),
        "<Gallery />" if facts.pictures else "",
        _trigger_section(facts),
        f"## Facts\n\n{_facts_table(facts)}",
        _usage_section(facts, repo),
        "Published with Brushwork.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _family_tags(facts: CardFacts) -> list[str]:
    known = find_family(facts.family)
    return [known.facts.hub_tag] if known else []


def _front_matter(facts: CardFacts) -> str:
    licence = facts.licence.strip().lower().replace(" ", "-")
    values: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": list(dict.fromkeys([*TAGS, *_family_tags(facts), *facts.tags])),
    }
    values["tags"] = [tag for tag in values["tags"] if tag]
    if facts.base_model:
        values |= {"base_model": facts.base_model, "base_model_relation": "adapter"}
    if facts.trigger_words:
        values["instance_prompt"] = _one_line(", ".join(facts.trigger_words))
    if licence in LICENSES:
        values["license"] = licence
    elif licence:
        values |= {"license": "other", "license_name": _one_line(facts.licence)}
    if facts.pictures:
        values["widget"] = [
            {"text": _one_line(prompt) or " ", "output": {"url": path}}
            for path, prompt in facts.pictures
        ]
    return str(ModelCardData(**values).to_yaml())


def _trigger_section(facts: CardFacts) -> str:
    if not facts.trigger_words:
        return "## Trigger words\n\nNo trigger word is needed."
    words = ", ".join(f"`{_escape_code(word)}`" for word in facts.trigger_words)
    return f"## Trigger words\n\nWrite {words} in the prompt."


def _facts_table(facts: CardFacts) -> str:
    base = facts.base_model or facts.base_name
    family = known.facts.label if (known := find_family(facts.family)) else facts.family
    rows = [
        ("Base", f"{_one_line(base)} ({family})" if base else family),
        ("Rank, alpha", f"{facts.rank}, {facts.alpha:g}"),
        ("Parameters", f"{facts.trained:,}" if facts.trained else None),
        ("Training steps", f"{facts.steps:,}" if facts.steps else None),
        ("Training images", f"{facts.images:,}" if facts.images else None),
        ("Resolution", f"{facts.resolution} px" if facts.resolution else None),
        ("Prediction", "v" if facts.prediction_type == "v_prediction" else None),
        ("License", _one_line(facts.licence) or None),
        ("Version", str(facts.version)),
    ]
    lines = [f"| {label} | {_escape_cell(value)} |" for label, value in rows if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def _usage_section(facts: CardFacts, repo: str) -> str:
    stem = facts.kohya_file.removesuffix(".safetensors")
    prompt = ", ".join(["a fox", *facts.trigger_words])
    return f"""## Usage

With diffusers:

```python
import torch
from diffusers import AutoPipelineForText2Image

device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = AutoPipelineForText2Image.from_pretrained({facts.base_model or UNKNOWN_BASE!r}).to(device)
pipe.load_lora_weights({repo!r}, weight_name={PEFT_FILE!r}, adapter_name="style")
pipe.set_adapters("style", {facts.weight:g})
pipe({_one_line(prompt)!r}).images[0].save("image.png")
```

With ComfyUI, A1111, Forge, InvokeAI and other programs that read the kohya format: put
[{facts.kohya_file}]({facts.kohya_file}) into the LoRA folder. In A1111 and Forge, write
`<lora:{_escape_code(stem)}:{facts.weight:g}>` in the prompt."""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escape_code(text: str) -> str:
    return _one_line(text).replace("`", "'")


def _escape_cell(text: str) -> str:
    return re.sub(r"([|<>])", r"\\\1", text)

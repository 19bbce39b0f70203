"""The model card of a published adapter, as text.

The front matter follows https://huggingface.co/docs/hub/model-cards for LoRAs.
"""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import ModelCardData

from worker.core.hub.model_card import PEFT_FILE, ModelCard

TAGS = ("text-to-image", "lora", "diffusers", "template:diffusion-lora")
# the Hub's identifiers of licenses that people use for adapters; any other becomes `other`
LICENSES = (
    "apache-2.0", "mit", "openrail", "openrail++", "creativeml-openrail-m", "cc0-1.0", "cc-by-4.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0",
    "bsd-3-clause", "gpl-3.0", "agpl-3.0", "unlicense", "wtfpl",
)  # fmt: skip
UNKNOWN_BASE = "path/of/the/base-model"


def make_card(card: ModelCard, repo: str) -> str:
    """The README.md of the repository `repo`."""
    parts = [
        f"---\n{_front_matter(card)}\n---",
        f"# {_one_line(card.metadata.title)}",
        card.metadata.description.strip(),
        "<Gallery />" if card.pictures else "",
        _trigger_section(card),
        f"## Facts\n\n{_facts_table(card)}",
        _usage_section(card, repo),
        "Published with Brushwork.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(card: ModelCard) -> str:
    metadata = card.metadata
    license = metadata.license.strip().lower().replace(" ", "-")
    values: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": list(dict.fromkeys([*TAGS, metadata.family.facts.hub_tag, *metadata.tags])),
    }
    values["tags"] = [tag for tag in values["tags"] if tag]
    if card.base_model:
        values |= {"base_model": card.base_model, "base_model_relation": "adapter"}
    if card.metadata.trigger_words:
        values["instance_prompt"] = _one_line(", ".join(card.metadata.trigger_words))
    if license in LICENSES:
        values["license"] = license
    elif license:
        values |= {"license": "other", "license_name": _one_line(card.metadata.license)}
    if card.pictures:
        values["widget"] = [
            {"text": _one_line(prompt) or " ", "output": {"url": path}}
            for path, prompt in card.pictures
        ]
    return str(ModelCardData(**values).to_yaml())


def _trigger_section(card: ModelCard) -> str:
    if not card.metadata.trigger_words:
        return "## Trigger words\n\nNo trigger word is needed."
    words = ", ".join(f"`{_escape_code(word)}`" for word in card.metadata.trigger_words)
    return f"## Trigger words\n\nWrite {words} in the prompt."


def _facts_table(card: ModelCard) -> str:
    base = card.base_model or card.metadata.base_name
    family = card.metadata.family.facts.label
    rows = [
        ("Base", f"{_one_line(base)} ({family})" if base else family),
        ("Rank, alpha", f"{card.rank}, {card.alpha:g}"),
        ("Parameters", f"{card.trained:,}" if card.trained else None),
        ("Training steps", f"{card.steps:,}" if card.steps else None),
        ("Training images", f"{card.metadata.images:,}" if card.metadata.images else None),
        ("Resolution", f"{card.metadata.resolution} px" if card.metadata.resolution else None),
        ("Prediction", "v" if card.metadata.predicts_v else None),
        ("Measured weights", _one_line(" ".join(card.metadata.card_words)) or None),
        ("License", _one_line(card.metadata.license) or None),
        ("Version", str(card.version)),
    ]
    lines = [f"| {label} | {_escape_cell(value)} |" for label, value in rows if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def _usage_section(card: ModelCard, repo: str) -> str:
    stem = card.kohya_file.removesuffix(".safetensors")
    prompt = ", ".join(["a fox", *card.metadata.trigger_words])
    return f"""## Usage

With diffusers:

```python
import torch
from diffusers import AutoPipelineForText2Image

device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = AutoPipelineForText2Image.from_pretrained({card.base_model or UNKNOWN_BASE!r}).to(device)
pipe.load_lora_weights({repo!r}, weight_name={PEFT_FILE!r}, adapter_name="style")
pipe.set_adapters("style", {card.metadata.usual_weight:g})
pipe({_one_line(prompt)!r}).images[0].save("image.png")
```

With ComfyUI, A1111, Forge, InvokeAI and other programs that read the kohya format: put
[{card.kohya_file}]({card.kohya_file}) into the LoRA folder. In A1111 and Forge, write
`<lora:{_escape_code(stem)}:{card.metadata.usual_weight:g}>` in the prompt."""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escape_code(text: str) -> str:
    return _one_line(text).replace("`", "'")


def _escape_cell(text: str) -> str:
    return re.sub(r"([|<>])", r"\\\1", text)

"""The metadata of a file, entry by entry: files in the world have these, and programs read them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

from worker.core.families.family import BaseFamily, Component
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.lora_files.read_metadata import Sidecar, read_source_metadata
from worker.core.lora_files.weights import WeightCard
from worker.core.lora_files.write_metadata import kohya_metadata, model_metadata, sidecar

METADATA = AdapterMetadata(
    title="Chalk “board”",
    slug="chalk-v2",
    family=BaseFamily.SD2,
    base_name="acme/tiny-base",
    resolution=64,
    created=datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC),
    training_seconds=90.25,
    trigger_words=("chalk", "board style"),
    description="Of a wedding.",
    author="Ada",
    license="CC-BY-4.0",
    tags=("board", "green"),
    prediction_type="v_prediction",
    images=24,
    train_config={"steps": 250, "lr": 1e-4, "sample_prompts": ["secret"], "rank": 4, "name": "é"},
    tag_counts={"a dog": 2, "chalk": 24},
)
MODELSPEC = {
    "modelspec.sai_model_spec": "1.0.1",
    "modelspec.architecture": "stable-diffusion-v2-768-v/lora",
    "modelspec.implementation": "diffusers",
    "modelspec.title": "Chalk “board”",
    "modelspec.resolution": "64x64",
    "modelspec.date": "2026-03-04T05:06:07+00:00",
    "modelspec.prediction_type": "v",
    "modelspec.description": "Of a wedding.",
    "modelspec.author": "Ada",
    "modelspec.license": "CC-BY-4.0",
    "modelspec.tags": "board, green",
    "modelspec.trigger_phrase": "chalk, board style",
    "brushwork.train_config": '{"lr": 0.0001, "name": "é", "rank": 4, "steps": 250}',
}
KOHYA = MODELSPEC | {
    "ss_base_model_version": "sd_v2",
    "ss_v2": "True",
    "ss_network_module": "networks.lora",
    "ss_network_dim": "4",
    "ss_network_alpha": "2",
    "ss_network_args": '{"conv_alpha": "2", "conv_dim": "4"}',
    "ss_output_name": "chalk-v2",
    "ss_sd_model_name": "tiny-base",
    "ss_resolution": "(64, 64)",
    "ss_training_started_at": "1772600676.8",
    "ss_training_finished_at": "1772600767.0",
    "ss_num_train_images": "24",
    "ss_tag_frequency": '{"chalk-v2": {"a dog": 2, "board style": 24, "chalk": 24}}',
}


def test_a_kohya_file_says_all_that_is_known_in_a_fixed_order() -> None:
    down, up = torch.zeros(4, 320, 3, 3), torch.zeros(320, 4, 1, 1)
    module = LoraModule(Component.DENOISER, "mid_block.attentions.0.proj_in", down, up, 2.0)
    assert [*kohya_metadata(LoraAdapter((module,)), METADATA).items()] == [*KOHYA.items()]


def test_a_diffusers_file_says_it_by_modelspec_alone() -> None:
    assert [*model_metadata(METADATA).items()] == [*MODELSPEC.items()]


def test_a_usual_weight_is_in_the_file_if_it_is_not_one() -> None:
    edited = replace(METADATA, usual_weight=-0.75)
    found = model_metadata(edited)
    added = {"modelspec.usage_hint": "Usual weight: -0.75.", "brushwork.usual_weight": "-0.75"}
    assert found == MODELSPEC | added
    assert b'"preferred weight": -0.75' in sidecar(edited)
    assert read_source_metadata(found, [], "a.safetensors").usual_weight == -0.75


def test_measured_weights_are_in_the_file_and_its_sidecar_for_people_and_programs() -> None:
    cards = (WeightCard(0.45, 0.8, 1.5, "acme/tiny-base"), WeightCard(None, 1.0, None, "other"))
    measured = replace(METADATA, weight_cards=cards)
    words = (
        "With tiny-base the style shows from 0.45, is best at 0.8 and breaks at 1.5. "
        "With other the style is best at 1."
    )
    found = model_metadata(measured)
    assert found["modelspec.usage_hint"] == words
    assert json.loads(found["brushwork.weight_cards"]) == [
        {"base": "tiny-base", "start": 0.45, "best": 0.8, "breaks": 1.5},
        {"base": "other", "start": None, "best": 1.0, "breaks": None},
    ]
    assert model_metadata(replace(measured, usual_weight=0.8))["modelspec.usage_hint"] == (
        f"Usual weight: 0.8. {words}"
    )
    read = json.loads(sidecar(measured))
    assert read["notes"] == f"Made for tiny-base with Brushwork. {words}"
    assert read["preferred weight"] == 1.0  # it is a person's choice
    messages = TypeAdapter(AdapterMetadata)
    assert messages.validate_json(messages.dump_json(measured)) == measured


@pytest.mark.parametrize(
    ("written", "weight"),
    [("0.6", 0.6), ("0", 1.0), ("11", 1.0), ('"nan"', 1.0), ("true", 1.0), ("[]", 1.0)],
)
def test_the_import_takes_the_weight_of_a_sidecar(
    tmp_path: Path, written: str, weight: float
) -> None:
    path = tmp_path / "chalk.json"
    path.write_text(f'{{"sd version": "SD1", "preferred weight": {written}}}')
    found = read_source_metadata({}, [Sidecar(path.name, path)], "chalk.safetensors")
    assert found.usual_weight == weight


def test_a_file_that_knows_little_says_little_but_a_resolution() -> None:
    bare = AdapterMetadata(
        title="Ink", slug="ink", family=BaseFamily.SDXL, created=METADATA.created
    )
    assert model_metadata(bare) == {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "Ink",
        "modelspec.resolution": "512x512",
        "modelspec.date": "2026-03-04T05:06:07+00:00",
        "modelspec.prediction_type": "epsilon",
    }


def test_the_sidecar_is_what_a1111_reads() -> None:
    assert sidecar(replace(METADATA, family=BaseFamily.SDXL)) == (
        b'{\n  "description": "Of a wedding.",\n  "sd version": "SDXL",\n'
        b'  "activation text": "chalk, board style",\n  "preferred weight": 1.0,\n'
        b'  "negative text": "",\n  "notes": "Made for tiny-base with Brushwork."\n}\n'
    )


def test_metadata_comes_out_of_a_message_as_it_went_in() -> None:
    messages = TypeAdapter(AdapterMetadata)
    assert messages.validate_json(messages.dump_json(METADATA)) == METADATA

import json

import pytest
from pydantic import ValidationError

from worker.core.training.config import MAX_SAMPLE_PROMPTS, Group, TrainConfig, TrainJob


def test_every_field_can_be_shown_in_a_form() -> None:
    for name, field in TrainConfig.model_fields.items():
        assert field.title, name
        assert (field.description or "").endswith("."), name
        assert not field.is_required(), name
        assert isinstance(field.json_schema_extra, dict), name
        assert Group(str(field.json_schema_extra["group"])), name


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="learning_rat"):
        TrainConfig.model_validate({"learning_rat": 1e-4})


def test_a_config_survives_json() -> None:
    config = TrainConfig(steps=7, sample_prompts=["castle"], ema_decay=0.9)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resolution", 100),
        ("resolution", 24),
        ("steps", 0),
        ("rank", 0),
        ("alpha", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("ema_decay", 1),
        ("targets", "everything"),
        ("sample_prompts", ["x"] * (MAX_SAMPLE_PROMPTS + 1)),
        ("sample_prompts", ["x" * 1_001]),
        ("sample_prompts", ["  "]),
    ],
)
def test_values_out_of_bounds_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        TrainConfig.model_validate({field: value})


def test_a_job_needs_to_know_where_things_are() -> None:
    with pytest.raises(ValidationError, match="model"):
        TrainJob.model_validate({"data": "pictures", "out": "out"})


def test_the_weight_of_regularization_images_has_an_old_name() -> None:
    config = TrainConfig.model_validate({"regularisation_weight": 0.25})
    assert config == TrainConfig.model_validate({"regularization_weight": 0.25})
    assert config.regularization_weight == 0.25
    assert "regularisation_weight" not in config.model_dump()
    both = {"regularisation_weight": 0.25, "regularization_weight": 0.25}
    assert TrainConfig.model_validate_json(json.dumps(both)) == config
    with pytest.raises(ValidationError, match="“regularisation_weight” is the old name"):
        TrainConfig.model_validate(both | {"regularization_weight": 0.5})
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TrainConfig.model_validate({"regularisation_weight": -1})


def test_another_training_seed_can_hold_the_same_images_out() -> None:
    assert TrainConfig(seed=5).measuring_seed == 5
    assert TrainConfig(seed=5, validation_seed=0).measuring_seed == 0

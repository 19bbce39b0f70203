import pytest
import torch

from tests.worker.training.conftest import MakeBase
from worker.core.training.calibrate import calibrate
from worker.core.training.config import Precision, TrainConfig

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "family", ["smallest_sd15", "smallest_sdxl", "zimage_base", "zimage_of_rows"]
)
def test_a_calibration_leaves_the_base_as_it_was(
    family: str, precision: str, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(family)()
    parts = (base.denoiser, *base.text_encoders)
    before = [{name: value.clone() for name, value in p.state_dict().items()} for p in parts]
    config = TrainConfig.model_validate(
        {
            "precision": precision,
            "train_text_encoder": not family.startswith("zimage"),
            "batch_size": 2,
            "rank": 4,
        }
    )
    found = calibrate(base, config, device="cpu")
    assert found.seconds_per_step > 0
    for part, old in zip(parts, before, strict=True):
        new = part.state_dict()
        assert new.keys() == old.keys()
        assert all(torch.equal(new[name], old[name]) for name in old)
        assert all(new[name].dtype is old[name].dtype for name in old)


def test_a_calibration_counts_what_would_be_trained(starter_base: MakeBase) -> None:
    config = TrainConfig(rank=8, train_text_encoder=True, batch_size=1, precision=Precision.FP32)
    base = starter_base()
    layers = [
        layer
        for part in (base.denoiser, *base.text_encoders)
        for name, layer in part.named_modules()
        if name.endswith(ATTENTION)
    ]
    trained = sum(8 * (layer.in_features + layer.out_features) for layer in layers)
    counts = base.info.parameters
    found = calibrate(base, config, device="cpu")
    assert found.trainable_parameters == trained > 0
    assert found.base_parameters == counts["unet"] + counts["text_encoder"]

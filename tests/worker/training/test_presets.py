import pytest

from worker.core.training.data.epochs import held_out_count
from worker.core.training.presets import (
    Preset,
    for_optimizer,
    form_of,
    hold_out_share,
    preset_config,
    usual_form,
)
from worker.core.training.rate_warnings import rate_warnings


@pytest.mark.parametrize("preset", list(Preset))
@pytest.mark.parametrize("resolution", [64, 128, 512, 768, 1024])
@pytest.mark.parametrize("images", [1, 24, 5_000])
def test_every_preset_is_a_valid_config(preset: Preset, resolution: int, images: int) -> None:
    config = preset_config(preset, resolution=resolution, images=images)
    assert config.warmup_steps < config.steps
    assert config.sample_prompts


def test_a_small_base_gets_a_higher_rate_than_a_large_one() -> None:
    small = preset_config(Preset.QUICK, resolution=128, images=24)
    large = preset_config(Preset.QUICK, resolution=1024, images=24)
    assert small.learning_rate > 5 * large.learning_rate
    assert small.batch_size > large.batch_size


@pytest.mark.parametrize("resolution", [128, 512, 1024])
def test_presets_take_longer_one_after_another(resolution: int) -> None:
    steps = [preset_config(p, resolution=resolution, images=24).steps for p in Preset]
    assert steps == sorted(steps)
    assert len(set(steps)) == len(steps)


def test_a_large_dataset_is_still_seen_a_few_times() -> None:
    config = preset_config(Preset.QUICK, resolution=512, images=2_000)
    assert config.steps * config.batch_size >= 5 * 2_000


@pytest.mark.parametrize("images", [5_000, 40_000, 1_000_000])
def test_checkpoints_and_samples_come_on_the_way_however_large_a_dataset(images: int) -> None:
    for preset in Preset:
        config = preset_config(preset, resolution=1024, images=images)
        assert config.checkpoint_every == config.sample_every < config.steps <= 20_000
        assert config.checkpoint_every % 25 == 0


def test_sample_prompts_use_the_trigger_word() -> None:
    def prompts(trigger_word: str | None) -> list[str]:
        form = usual_form(trigger_word)
        return preset_config(
            Preset.QUICK, resolution=128, images=24, prompt_form=form
        ).sample_prompts

    assert prompts(None)[0] == "castle"
    assert prompts("chalkboard")[0] == "castle, chalkboard style"
    assert prompts("chalk style")[0] == "castle, chalk style"
    assert form_of(prompts("chalk style")) == ("", ", chalk style")
    assert form_of(["castle, chalk style"]) is None


@pytest.mark.parametrize("preset", list(Preset))
@pytest.mark.parametrize("optimizer", ["adamw", "adamw_schedule_free", "prodigy", "adafactor"])
def test_no_preset_warns_of_its_own_rate(preset: Preset, optimizer: str) -> None:
    usual = for_optimizer(preset_config(preset, resolution=128, images=24), optimizer)
    doubled = {"learning_rate": min(1.0, 2 * usual.learning_rate)}
    assert rate_warnings(usual, usual) == []
    assert rate_warnings(usual.model_copy(update=doubled), usual) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"learning_rate": 0.06}, "Learning rate 0.06 is 30 times the preset’s for AdamW (0.002)."),
        ({"learning_rate": 0.016, "optimizer": "adamw_schedule_free"}, ""),
        ({"learning_rate": 1.0, "optimizer": "prodigy"}, ""),
        ({"learning_rate": 1.0, "optimizer": "adafactor"}, "Learning rate 1 is 500 times"),
        ({"alpha": 256.0}, "Alpha 256 at rank 4 scales the adapter by 64: it changes as with 64"),
        ({"alpha": 256.0, "learning_rate": 1e-4}, ""),
        ({"alpha": 8.0, "rank": 4, "rank_stabilized": True}, ""),
        (
            {"train_text_encoder": True, "text_encoder_learning_rate": 0.1},
            "Text encoder learning rate 0.1 is 50 times",
        ),
    ],
)
def test_rates_far_above_the_preset_for_the_optimizer_warn(
    changes: dict[str, object], expected: str
) -> None:
    quick = preset_config(Preset.QUICK, resolution=128, images=24)
    usual = for_optimizer(quick, changes.get("optimizer"))
    config = type(usual).model_validate(usual.model_dump() | changes)
    found = rate_warnings(config, usual)
    assert [text[: len(expected)] for text in found] == ([expected] if expected else [])


def test_an_evaluated_run_holds_out_four_images_or_15_percent() -> None:
    held_out = [held_out_count(hold_out_share(images), images) for images in range(200)]
    assert held_out[:16] == [0] * 16
    assert held_out[16:30] == [4] * 14
    assert held_out[40:200:40] == [6, 12, 18, 24]
    usual = preset_config(Preset.QUICK, resolution=128, images=24)
    assert (usual.evaluate, usual.validation_share) == (False, 0)
    asked = preset_config(Preset.QUICK, resolution=128, images=24, evaluate=True)
    assert asked == usual.model_copy(update={"evaluate": True, "validation_share": 0.167})

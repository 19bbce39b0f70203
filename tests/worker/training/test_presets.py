import pytest

from worker.core.training.presets import Preset, preset_config


@pytest.mark.parametrize("preset", list(Preset))
@pytest.mark.parametrize("resolution", [64, 512, 768, 1024])
@pytest.mark.parametrize("images", [1, 24, 5_000])
def test_every_preset_is_a_valid_config(preset: Preset, resolution: int, images: int) -> None:
    config = preset_config(preset, resolution=resolution, images=images)
    assert config.warmup_steps < config.steps
    assert config.sample_prompts


def test_a_small_base_gets_a_higher_rate_than_a_large_one() -> None:
    small = preset_config(Preset.QUICK, resolution=64, images=24)
    large = preset_config(Preset.QUICK, resolution=1024, images=24)
    assert small.learning_rate > 5 * large.learning_rate
    assert small.batch_size > large.batch_size


@pytest.mark.parametrize("resolution", [64, 512, 1024])
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
        assert max(config.checkpoint_every, config.sample_every) < config.steps <= 20_000


def test_sample_prompts_use_the_trigger_word() -> None:
    def prompts(trigger_word: str | None) -> list[str]:
        config = preset_config(Preset.QUICK, resolution=64, images=24, trigger_word=trigger_word)
        return config.sample_prompts

    assert prompts(None)[0] == "castle"
    assert prompts("chalkboard")[0] == "castle, chalkboard style"
    assert prompts("chalk style")[0] == "castle, chalk style"

"""The flags of `brushwork train`, read in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.core import starter
from worker.core.families.family import BaseFamily
from worker.core.training.command_line.flags import (
    ArgumentsError,
    DataFolder,
    TrainArguments,
    build_parser,
    parse_arguments,
)
from worker.core.training.command_line.settings import ALIASES, Setting, settings
from worker.core.training.config import Group, LrScheduler, TrainConfig
from worker.core.training.presets import Preset, preset_config
from worker.core.words import LossWeighting

PLACES = ["--model", "base", "--data", "pictures", "--out", "results"]


def order(*words: str) -> TrainArguments:
    return parse_arguments([*PLACES, *words])


def config(*words: str) -> TrainConfig:
    return order(*words).config(resolution=512, images=20, family=BaseFamily.SD1)


def as_words(setting: Setting, value: Any) -> list[str]:
    """The flag that gives this value."""
    if isinstance(value, bool):
        return [setting.flag if value else setting.flag.replace("--", "--no-", 1)]
    if isinstance(value, list):
        return [setting.flag, *value]
    return [setting.flag, "none" if value is None else str(value)]


def as_file(folder: Path, content: object) -> str:
    path = folder / "settings.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def help_text(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100000")
    return build_parser().format_help()


def test_every_field_has_a_flag_that_gives_it() -> None:
    assert [setting.name for setting in settings()] == list(TrainConfig.model_fields)
    defaults = TrainConfig().model_dump()
    for setting in settings():
        assert setting.flag == f"--{setting.name.replace('_', '-')}"
        given = order(*as_words(setting, defaults[setting.name])).options
        assert given == {setting.name: defaults[setting.name]}


def test_all_flags_together_give_the_config() -> None:
    wanted = preset_config(Preset.THOROUGH, resolution=64, images=20)
    values = wanted.model_dump()
    words = [word for setting in settings() for word in as_words(setting, values[setting.name])]
    assert config(*words) == wanted


def test_the_help_shows_title_hint_bounds_and_default_of_every_field(help_text: str) -> None:
    for setting in settings():
        field = TrainConfig.model_fields[setting.name]
        line = next(line for line in help_text.splitlines() if f". {setting.hint} (" in line)
        assert f"{field.title}. " in line
        assert "default: " in line
        assert setting.choices or setting.kind == "boolean" or setting.requirement in line
    for words in ("default: 1000)", "a whole number from 1 to 256; default: 8)", "default: off)"):
        assert words in help_text


def test_the_help_is_grouped_as_the_form_is(help_text: str) -> None:
    headings = [line.removesuffix(":") for line in help_text.splitlines() if line.endswith(":")]
    assert headings[-len(Group) :] == [group.value for group in Group]
    adapter = help_text.partition("\nadapter:\n")[2].partition("\nlearning:\n")[0]
    assert "--rank N" in adapter
    assert "--lr" not in adapter


def test_flags_are_read_without_torch() -> None:
    program = (
        "import sys, worker.core.training.__main__\n"
        "from worker.core.training.command_line.flags import build_parser\n"
        "build_parser().format_help(); print({'torch', 'PIL', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_short_names_stand_for_long_ones() -> None:
    given = config("--batch", "4", "--lr", "1e-3", "--no-text-encoder", "--sample-prompt", "fox")
    assert (given.batch_size, given.learning_rate, given.train_text_encoder) == (4, 1e-3, False)
    assert config("--text-encoder").train_text_encoder
    assert ALIASES.keys() <= TrainConfig.model_fields.keys()


@pytest.mark.parametrize("name", ["regularization", "regularisation"])
def test_old_flags_are_read_and_not_shown(name: str, help_text: str, tmp_path: Path) -> None:
    given = order(f"--{name}", "others", f"--{name}-weight", "0.5")
    assert given.regularization == Path("others")
    assert given.options == {"regularization_weight": 0.5}
    assert order().regularization is None
    file = as_file(tmp_path, {f"{name}_weight": 0.25})
    assert config("--config", file).regularization_weight == 0.25
    assert config("--config", file, f"--{name}-weight", "0.75").regularization_weight == 0.75
    assert (f"--{name} " in help_text, f"--{name}-weight " in help_text) == ("z" in name,) * 2


def test_none_clears_an_optional_field() -> None:
    assert config("--resolution", "none").resolution is None
    assert config("--prediction-type", "None").prediction_type is None
    assert config("--loss-weighting", "none").loss_weighting is LossWeighting.NONE


def test_prompts_are_given_at_once_or_one_by_one() -> None:
    once = config("--sample-prompts", "a fox", "a house --d 7")
    assert once.sample_prompts == ["a fox", "a house --d 7"]
    assert config("--sample-prompt", "a fox", "--sample-prompt", "a house --d 7") == once


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = as_file(tmp_path, {"steps": 7, "rank": 3, "sample_prompts": ["fox"]})
    words = ("--preset", "quick", "--config", file, "--rank", "2", "--trigger-word", "ink")
    given = order(*words).config(resolution=64, images=20, family=BaseFamily.SD1)
    assert (given.steps, given.rank, given.sample_prompts) == (7, 2, ["fox"])
    preset = preset_config(Preset.QUICK, resolution=64, images=20)
    assert (given.batch_size, given.learning_rate) == (preset.batch_size, preset.learning_rate)
    prompts = order("--preset", "quick", "--trigger-word", "ink").config(
        resolution=64, images=20, family=BaseFamily.SD1
    )
    assert prompts.sample_prompts[0] == "castle, ink style"


@pytest.mark.parametrize("preset", [[], ["--preset", "balanced"]])
def test_an_evaluation_holds_images_out_unless_a_share_is_set(preset: list[str]) -> None:
    assert config(*preset).validation_share == 0
    assert config(*preset, "--evaluate").validation_share == 0.2  # 4 of 20
    assert config(*preset, "--evaluate", "--validation-share", "0").validation_share == 0


@pytest.mark.parametrize("preset", [[], ["--preset", "balanced"]])
def test_unset_values_follow_the_optimizer(preset: list[str], tmp_path: Path) -> None:
    assert config(*preset, "--optimizer", "prodigy").learning_rate == 1.0
    assert config(*preset, "--optimizer", "prodigy", "--lr", "0.5").learning_rate == 0.5
    file = as_file(tmp_path, {"optimizer": "adamw_schedule_free"})
    assert config(*preset, "--config", file).lr_scheduler is LrScheduler.CONSTANT


def test_no_flags_give_the_defaults() -> None:
    given = order()
    assert given.config(resolution=64, images=20, family=BaseFamily.SD1) == TrainConfig()
    assert (given.name, given.device, given.dtype, given.cache) == (
        "pictures",
        "auto",
        "fp16",
        None,
    )


def test_the_embedded_base_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert order("--model", "starter").model == starter.PATH
    (tmp_path / "starter").mkdir()
    assert order("--model", "starter").model == Path("starter")


def test_a_job_stands_for_flags_and_flags_win(tmp_path: Path) -> None:
    job = {"model": "a", "data": "b", "out": "c", "cache": "d", "config": {"steps": 9, "rank": 2}}
    given = parse_arguments([as_file(tmp_path, job), "--out", "e", "--steps", "3"])
    places = (given.model, given.data, given.out, given.cache)
    assert places == (Path("a"), (DataFolder(Path("b")),), Path("e"), Path("d"))
    assert given.config(resolution=64, images=20, family=BaseFamily.SD1) == TrainConfig(
        steps=3, rank=2
    )


def test_several_folders_are_trained_each_with_its_repeats(tmp_path: Path) -> None:
    colon = tmp_path / "ink:2"
    colon.mkdir()
    given = order("--data", "wash:3", "--data", str(colon))
    assert given.data == (
        DataFolder(Path("pictures")),
        DataFolder(Path("wash"), 3),
        DataFolder(colon),
    )
    long = "a" * 5_000
    assert order("--data", f"{long}:2").data[1] == DataFolder(Path(long), 2)
    assert given.name == "pictures"
    job = as_file(tmp_path, {"model": "a", "data": ["b", "c:4"], "out": "d"})
    assert parse_arguments([job]).data == (DataFolder(Path("b")), DataFolder(Path("c"), 4))
    assert parse_arguments([job, "--data", "e"]).data == (DataFolder(Path("e")),)


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (["wash:0"], "--data wash:0: the repeats must be from 1 to 1,000."),
        (["wash:10000"], "the repeats must be from 1 to 1,000."),
        (["wash:" + "9" * 5_000], "the repeats must be from 1 to 1,000."),
        (["pictures:2"], "pictures is named twice. Name it once, with a number of repeats"),
        ([str(number) for number in range(50)], "At most 20 folders can be trained on together."),
    ],
)
def test_wrong_folders_are_refused(folders: list[str], sentence: str) -> None:
    with pytest.raises(ArgumentsError) as refused:
        order(*(word for folder in folders for word in ("--data", folder)))
    assert sentence in str(refused.value)


def test_a_job_without_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentsError, match="data is an empty list"):
        parse_arguments([as_file(tmp_path, {"model": "a", "data": [], "out": "d"})])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rank", "0"], "--rank: must be a whole number from 1 to 256, not '0'"),
        (["--steps", "ten"], "--steps: must be a whole number from 1 to 100,000, not 'ten'"),
        (["--lr", "0"], "--learning-rate/--lr: must be a number above 0, at most 1, not '0'"),
        (["--ema-decay", "1"], "--ema-decay: must be a number from 0, below 1, or none"),
        (["--resolution", "65"], "2,048, a multiple of 8, or none, not '65'"),
        (["--targets", "x"], "--targets: must be one of attention, linear, all, not 'x'"),
        (["--blocks", "left"], "not 'left'. UNet blocks to train: all, or names"),
        (["--sample-prompts", *"123456789"], "(--sample-prompts) must be texts, at most 8"),
        (
            ["--sample-prompt", "fox --q 3"],
            "(--sample-prompts): Unknown option --q in a sample prompt",
        ),
        (
            ["--optimizer", "prodigy", "--lora-plus-ratio", "4"],
            "(--lora-plus-ratio): Prodigy finds one learning rate for everything: leave this "
            "empty.",
        ),
        (
            ["--optimizer", "adamw_schedule_free", "--lr-scheduler", "linear"],
            "lr_scheduler (--lr-scheduler): Schedule-free AdamW needs no LR scheduler: choose "
            "constant.",
        ),
        (["--rang", "3"], "unrecognized arguments: --rang"),
        (["--preset", "best"], "invalid choice: 'best'"),
        (["--device", "gpu"], "--device: must be auto, cpu, cuda, cuda:1 or mps"),
        (["--threads", "-1"], "--threads"),
    ],
)
def test_a_wrong_flag_is_named_with_its_bounds(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        order(*words)
    assert left.value.code == 2
    shown = capsys.readouterr().err
    assert sentence in shown
    assert shown.startswith("usage: brushwork train --base-model")


def test_places_that_are_missing_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse_arguments(["--data", "pictures"])
    assert left.value.code == 2
    assert "required: --model, --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"stepz": 3}, "settings.json: Unknown setting 'stepz'. Did you mean 'steps'?"),
        ({"rank": 0}, "rank (--rank) must be a whole number from 1 to 256, not 0."),
        ({"loss": "l1"}, "loss (--loss) must be one of mse, huber, not 'l1'."),
        ({"flip": "perhaps"}, "flip (--flip) must be true or false, not 'perhaps'."),
        ([1], "must contain a JSON object"),
    ],
)
def test_a_wrong_setting_in_a_file_is_named_with_its_flag_and_bounds(
    content: object, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentsError) as refused:
        order("--config", as_file(tmp_path, content), "--rank", "4")
    assert sentence in str(refused.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentsError, match=r"nothing\.json cannot be read: No such file"):
        order("--config", str(tmp_path / "nothing.json"))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ArgumentsError, match=r"broken\.json is not JSON"):
        parse_arguments([str(tmp_path / "broken.json")])
    with pytest.raises(ArgumentsError, match=r"Unknown setting 'modle'\. Did you mean 'model'"):
        parse_arguments([as_file(tmp_path, {"modle": "x"}), *PLACES])

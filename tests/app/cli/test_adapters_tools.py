"""`brushwork adapters merge | resize | scale | fuse | extract`: the whole way through files.

The cores are imported where they are used: collecting this file loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import worker.core.starter
from app.cli.adapter_files.arguments import WeightedFile, weighted_file
from app.cli.main import main
from worker.core.bases.inspect import inspect_base
from worker.core.families.family import BaseFamily
from worker.core.safetensors_header import read_header

if TYPE_CHECKING:
    import torch


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two kohya files for `starter`, with a trigger word each."""
    from tests.worker.lora_files.random_adapters import metadata, random_adapter
    from worker.core.lora_files.export import export
    from worker.core.lora_files.tools.checkpoint import BaseCheckpoint
    from worker.core.words import FileFormat, WeightDtype

    folder = tmp_path_factory.mktemp("files")
    with BaseCheckpoint(worker.core.starter.PATH) as base:
        shapes = dict(sorted(base.target_shapes.items())[::6])
    for number, name in enumerate(("ink", "chalk")):
        export(
            random_adapter(shapes, seed=number, rank=2 + number),
            folder / f"{name}.safetensors",
            format=FileFormat.KOHYA,
            dtype=WeightDtype.FP32,
            metadata=metadata(family=BaseFamily.SD1, title=name, slug=name, trigger_words=(name,)),
        )
    return folder / "ink.safetensors", folder / "chalk.safetensors"


def deltas(path: Path) -> dict[str, torch.Tensor]:
    from worker.core.lora_files.reading import read_adapter

    return {module.key: module.delta() for module in read_adapter(path).modules}


def assert_sum(found: Path, parts: list[tuple[Path, float]], *, atol: float) -> None:
    import torch

    expected: dict[str, torch.Tensor] = {}
    for path, weight in parts:
        for key, delta in deltas(path).items():
            expected[key] = expected.get(key, torch.zeros_like(delta)) + weight * delta
    changes = deltas(found)
    assert changes.keys() == expected.keys()
    for key, change in changes.items():
        assert torch.allclose(change, expected[key], atol=atol)


def test_merge_writes_the_sum_with_the_words_of_both(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ink, chalk = files
    out = tmp_path / "both.safetensors"
    words = ["adapters", "merge", f"{ink}:0.8", f"{chalk}:-0.5", "--out", str(out)]
    assert main([*words, "--dtype", "fp32"]) == 0
    assert "ink × 0.8, chalk × -0.5" in (said := capsys.readouterr().out)
    assert "rank 5, exact" in said
    assert_sum(out, [(ink, 0.8), (chalk, -0.5)], atol=1e-6)
    told = read_header(out).metadata
    assert told["modelspec.trigger_phrase"] == "ink, chalk"
    assert told["modelspec.description"] == "Merged (linear) from ink × 0.8, chalk × -0.5."


def test_resize_says_what_it_kept(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from worker.core.lora_files.reading import read_adapter

    out = tmp_path / "small.safetensors"
    assert main(["adapters", "resize", str(files[1]), str(out), "--rank", "1"]) == 0
    assert "rank 1, keeps at least" in capsys.readouterr().out
    assert {module.rank for module in read_adapter(out).modules} == {1}
    assert main(["adapters", "resize", str(files[1]), str(out), "--energy", "1.0"]) == 0
    assert_sum(out, [(files[1], 1.0)], atol=1e-3)


def test_scale_multiplies_the_changes_of_a_block(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from worker.core.lora_files.reading import read_adapter

    out = tmp_path / "scaled.safetensors"
    words = ["adapters", "scale", str(files[0]), str(out), "--dtype", "fp32"]
    assert main([*words, "--input", "0.5", "--middle", "0"]) == 0
    assert "input × 0.5, middle × 0, output × 1, rank " in capsys.readouterr().out
    before, after = ({m.key: m for m in read_adapter(path).modules} for path in (files[0], out))
    for key, module in after.items():
        factor = 0.5 if key.startswith("unet.down_blocks") else 1.0
        assert torch.allclose(module.delta(), factor * before[key].delta(), atol=1e-6)
    assert not any(key.startswith("unet.mid_block") for key in after)
    assert main(words) == 1
    assert "All factors are 1" in capsys.readouterr().err


def test_fuse_and_extract_give_the_adapter_back(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fused, out = tmp_path / "fused", tmp_path / "back.safetensors"
    words = ["adapters", "fuse", "--base", "starter", "--adapter", f"{files[0]}:0.5", str(fused)]
    assert main([*words, "--dtype", "fp32"]) == 0
    assert inspect_base(fused).family == "sd1"
    words = ["adapters", "extract", "--base", "starter", "--tuned", str(fused), "--rank", "2"]
    assert main([*words, str(out), "--dtype", "fp32"]) == 0
    assert "relative error 0.0" in capsys.readouterr().out
    assert_sum(out, [(files[0], 0.5)], atol=1e-5)


def test_a_fusion_is_in_the_number_type_that_its_base_model_needs(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    from tests.worker.bases.tiny_zimage import save_zimage
    from tests.worker.lora_files.random_adapters import metadata, random_adapter
    from worker.core.lora_files.export import export
    from worker.core.lora_files.tools.checkpoint import BaseCheckpoint
    from worker.core.words import FileFormat, WeightDtype

    base, file = save_zimage(tmp_path / "base"), tmp_path / "z.safetensors"
    with BaseCheckpoint(base) as found:
        adapter = random_adapter(found.target_shapes, seed=1, rank=2)
    facts = metadata(family=BaseFamily.ZIMAGE, title="z", slug="z")
    export(adapter, file, format=FileFormat.KOHYA, dtype=WeightDtype.FP32, metadata=facts)
    cases = ((base, file, "transformer", "BF16"), ("starter", files[0], "unet", "F16"))
    for base_model, lora, part, dtype in cases:
        out = tmp_path / part
        words = ["adapters", "fuse", "--base", str(base_model), "--adapter", str(lora), str(out)]
        assert main(words) == 0
        header = read_header(next((out / part).glob("*.safetensors")))
        assert {one.dtype for one in header.tensors.values()} == {dtype}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{ink}", "{ink}:0.5"], "ink.safetensors is given twice"),
        (["{ink}:nan", "{chalk}"], "The weight of “ink.safetensors” is not a number."),
        (["{ink}:1e9", "{chalk}"], "weights from -10 to 10 are accepted"),
        (["{ink}", "{chalk}", "--method", "svd"], "Choose the rank of the result."),
        (["{ink}", "{chalk}", "--method", "ties", "--rank", "0"], "rank must be from 1 to 1,024"),
        (["{ink}"], "Choose 2 to 16 adapters"),
        (["{ink}", "missing.safetensors"], "No such file"),
    ],
)
def test_what_cannot_be_merged_is_a_sentence(
    words: list[str],
    sentence: str,
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = [word.format(ink=files[0], chalk=files[1]) for word in words]
    assert main(["adapters", "merge", *named, "--out", str(tmp_path / "out.safetensors")]) == 1
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_weights_are_read_from_the_end_of_a_word() -> None:
    assert weighted_file("a.safetensors") == WeightedFile(Path("a.safetensors"))
    assert weighted_file("a.safetensors:0.5") == WeightedFile(Path("a.safetensors"), 0.5)
    assert weighted_file("C:/a.safetensors:-1:0") == WeightedFile(
        Path("C:/a.safetensors"), -1.0, 0.0
    )


def test_diffusers_reads_a_merged_file_as_the_sum(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Loaded by its own `load_lora_weights`, the merged file changes the UNet by the same sum."""
    import torch
    from diffusers import StableDiffusionPipeline

    from worker.core.lora_files.canonical import LoraAdapter
    from worker.core.lora_files.reading import read_adapter

    ink, chalk = files
    out = tmp_path / "both.safetensors"
    words = ["adapters", "merge", f"{ink}:0.8", f"{chalk}:-0.5", "--out", str(out)]
    assert main([*words, "--dtype", "fp32"]) == 0
    pipe = StableDiffusionPipeline.from_pretrained(
        worker.core.starter.PATH, torch_dtype=torch.float32
    )
    before = {name: t.clone() for name, t in pipe.unet.state_dict().items()}
    pipe.load_lora_weights(tmp_path, weight_name=out.name)
    pipe.fuse_lora()
    after = {name.replace(".base_layer", ""): t for name, t in pipe.unet.state_dict().items()}
    expected = deltas(out)
    unet = {k.removeprefix("unet."): d for k, d in expected.items() if k.startswith("unet.")}
    assert len(unet) > 10
    for path, change in unet.items():
        found = after[f"{path}.weight"] - before[f"{path}.weight"]
        assert torch.allclose(found, change, atol=1e-5), path
    assert isinstance(read_adapter(out), LoraAdapter)

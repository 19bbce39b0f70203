"""LoHa and LoKr are kept and given away as the LoRA that does exactly the same."""

from pathlib import Path

import pytest
import torch

from tests.worker.lora_files.random_adapters import metadata
from tests.worker.training.adapters import fresh_adapter, scramble
from tests.worker.training.conftest import MakeBase
from worker.core.lora_files.algebra import balance_pair, lora_pair
from worker.core.lora_files.canonical import LoraAdapter, LoraModule, load_adapter, save_adapter
from worker.core.lora_files.export import export
from worker.core.lora_files.reading import read_adapter
from worker.core.training.adapter import lora as lora_module
from worker.core.training.adapter.lora import Lora
from worker.core.training.config import AdapterKind
from worker.core.training.errors import UnsupportedError
from worker.core.words import FileFormat, WeightDtype

KINDS = list(AdapterKind)


def _live(lora: Lora) -> dict[str, torch.Tensor]:
    """The weight change of every peft layer, by the key of its module."""
    with torch.no_grad():
        return {site.key: site.layer.get_delta_weight("default") for site in lora.sites}


def _by_key(adapter: LoraAdapter) -> dict[str, LoraModule]:
    return {module.key: module for module in adapter.modules}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["shallow_sd15", "shallow_sdxl"])
def test_the_lora_does_what_the_layer_does(
    family: str, kind: AdapterKind, request: pytest.FixtureRequest
) -> None:
    lora = fresh_adapter(request.getfixturevalue(family)(), kind=kind, targets="all")
    scramble(lora)
    modules, live = _by_key(lora.extract()), _live(lora)
    assert modules.keys() == live.keys()
    for key, change in live.items():
        assert change.abs().max() > 1e-4
        torch.testing.assert_close(modules[key].delta(), change, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rank", [3, 7, 20])
@pytest.mark.parametrize("kind", [AdapterKind.LOHA, AdapterKind.LOKR])
def test_the_rank_is_the_least_that_is_exact(
    kind: AdapterKind, rank: int, shallow_sd15: MakeBase
) -> None:
    """Also where the plain form would have a higher rank than the weight itself."""
    lora = fresh_adapter(shallow_sd15(), kind=kind, rank=rank, targets="all")
    scramble(lora)
    live, ranks = _live(lora), set()
    for site, module in zip(lora.sites, lora.extract().modules, strict=True):
        assert module.rank <= min(live[site.key].flatten(1).shape)
        assert module.scale == pytest.approx(4 / rank)
        torch.testing.assert_close(module.delta(), live[site.key], rtol=1e-5, atol=1e-6)
        ranks.add(module.rank)
    assert (
        ranks
        == {
            (AdapterKind.LOHA, 3): {9},
            (AdapterKind.LOHA, 7): {32, 49},  # 32 and 64 are the widths of the blocks
            (AdapterKind.LOHA, 20): {32, 64},
            (AdapterKind.LOKR, 3): {24, 32},
            (AdapterKind.LOKR, 7): {32, 56, 64},
            (AdapterKind.LOKR, 20): {32, 64},
        }[kind, rank]
    )


def test_the_rank_of_a_lokr_is_that_of_its_factors() -> None:
    w1, w2_a, w2_b = torch.randn(3, 2), torch.randn(10, 4), torch.randn(4, 18)
    down, up = lora_pair({"w1": w1, "w2_a": w2_a, "w2_b": w2_b})
    assert (up.shape, down.shape) == ((30, 8), (8, 36))
    torch.testing.assert_close(up @ down, torch.kron(w1, w2_a @ w2_b))


def test_another_set_of_weights_can_be_extracted(shallow_sd15: MakeBase) -> None:
    lora = fresh_adapter(shallow_sd15(), kind=AdapterKind.LOHA)
    scramble(lora)
    halved = {name: value / 2 for name, value in lora.named_parameters().items()}
    live = _live(lora)
    for key, module in _by_key(lora.extract(halved)).items():
        torch.testing.assert_close(module.delta(), live[key] / 16, rtol=1e-5, atol=1e-7)


def test_balancing_moves_powers_of_two_alone() -> None:
    down, up = torch.randn(4, 6) * 1e-6, torch.randn(5, 4)
    down[3] = 0
    new_down, new_up = balance_pair(down, up)
    assert torch.equal(new_up @ new_down, up @ down)
    assert new_down[:3].abs().max() > 1e-4
    assert torch.equal(new_up[:, 3], up[:, 3])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("family", "format", "dtype"),
    [
        ("shallow_sd15", FileFormat.KOHYA, WeightDtype.FP16),
        pytest.param("shallow_sd15", FileFormat.KOHYA, WeightDtype.BF16, marks=pytest.mark.wide),
        pytest.param("shallow_sd15", FileFormat.KOHYA, WeightDtype.FP32, marks=pytest.mark.wide),
        ("shallow_sd15", FileFormat.PEFT, WeightDtype.FP32),
        ("shallow_sdxl", FileFormat.KOHYA, WeightDtype.FP16),
    ],
)
def test_a_download_reads_back_as_the_trained_change(
    family: str,
    kind: AdapterKind,
    format: FileFormat,
    dtype: WeightDtype,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    base = request.getfixturevalue(family)()
    lora = fresh_adapter(base, kind=kind, targets="all", text_encoder_rank=3)
    scramble(lora)
    save_adapter(lora.extract(), tmp_path / "kept.safetensors")
    export(
        load_adapter(tmp_path / "kept.safetensors"),
        tmp_path / "given.safetensors",
        format=format,
        dtype=dtype,
        metadata=metadata(family=base.info.family),
    )
    given, live = _by_key(read_adapter(tmp_path / "given.safetensors")), _live(lora)
    assert given.keys() == live.keys()
    allowed = {WeightDtype.FP32: 1e-6, WeightDtype.FP16: 2e-3, WeightDtype.BF16: 2e-2}[dtype]
    for key, change in live.items():
        error = (given[key].delta() - change).norm() / change.norm()
        assert error < allowed, key


def test_small_numbers_survive_fp16(shallow_sd15: MakeBase, tmp_path: Path) -> None:
    """Unless balanced, a half of every product here is about 1e-6: 17 of fp16's least steps."""
    base = shallow_sd15()
    lora = fresh_adapter(base, kind=AdapterKind.LOHA)
    scramble(lora)
    for name, parameter in lora.named_parameters().items():
        if name.endswith(("w1_b", "w2_b")):
            parameter.data *= 1e-2
    export(
        lora.extract(),
        tmp_path / "given.safetensors",
        format=FileFormat.KOHYA,
        dtype=WeightDtype.FP16,
        metadata=metadata(family=base.info.family),
    )
    live = _live(lora)
    for key, module in _by_key(read_adapter(tmp_path / "given.safetensors")).items():
        assert (module.delta() - live[key]).norm() < 2e-3 * live[key].norm()


def test_an_adapter_that_could_not_be_saved_is_refused_before_training(
    shallow_sd15: MakeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_module, "MAX_RANK", 30)
    assert fresh_adapter(shallow_sd15(), kind="loha", rank=5).size > 0
    with pytest.raises(UnsupportedError, match="LoHa of rank 6 is saved as a LoRA"):
        fresh_adapter(shallow_sd15(), kind="loha", rank=6)
    with pytest.raises(UnsupportedError, match="A LoKr of rank 4"):
        fresh_adapter(shallow_sd15(), kind="lokr", rank=4)
    assert fresh_adapter(shallow_sd15(), rank=30).size > 0
    monkeypatch.undo()
    monkeypatch.setattr(lora_module, "MAX_ADAPTER_BYTES", 100_000)
    with pytest.raises(UnsupportedError, match="The file of this LoRA would have"):
        fresh_adapter(shallow_sd15(), rank=30)

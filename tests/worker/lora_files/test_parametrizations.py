"""Adapters of other types are converted to an equal LoRA, or to the best one with its error.

The expected weight changes are computed here by the definitions of LyCORIS and PEFT, in full and in
double precision; our reader never computes most of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.core.lora_files.algebra import truncate_to_rank
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.reading import AdapterReading, read_with_notes

LINEAR = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
KEY = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
CONV_KEY = "unet.down_blocks.0.resnets.0.conv1"
NORM = "lora_unet_down_blocks_0_resnets_0_norm1"
EXACT = 2e-6


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


def reading(path: Path, tensors: dict[str, Tensor], **options: object) -> AdapterReading:
    save_file({name: t.contiguous() for name, t in tensors.items()}, path / "a.safetensors")
    return read_with_notes(path / "a.safetensors", **options)  # type: ignore[arg-type]


def change(found: AdapterReading, key: str = KEY) -> Tensor:
    return next(m for m in found.adapter.modules if m.key == key).delta().double()


def error(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).norm() / expected.norm())


def loha(stem: str, out: int, given: int, rank: int, alpha: float) -> dict[str, Tensor]:
    return {
        f"{stem}.hada_w1_a": torch.randn(out, rank),
        f"{stem}.hada_w1_b": torch.randn(rank, given),
        f"{stem}.hada_w2_a": torch.randn(out, rank),
        f"{stem}.hada_w2_b": torch.randn(rank, given),
        f"{stem}.alpha": torch.tensor(alpha),
    }


def whole_loha(tensors: dict[str, Tensor], stem: str = LINEAR) -> Tensor:
    w = {name.removeprefix(f"{stem}."): t.double() for name, t in tensors.items()}
    scale = w["alpha"] / w["hada_w1_b"].shape[0]
    return (w["hada_w1_a"] @ w["hada_w1_b"]) * (w["hada_w2_a"] @ w["hada_w2_b"]) * scale


def test_loha_is_a_lora_of_the_squared_rank(tmp_path: Path) -> None:
    tensors = loha(LINEAR, 96, 64, 4, alpha=2.0)
    found = reading(tmp_path, tensors)
    assert found.adapter.modules[0].rank == 16
    assert error(change(found), whole_loha(tensors)) < EXACT
    assert any("1 LoHa module was converted to LoRA (rank 16)" in note for note in found.notes)


def test_loha_of_a_convolution_gets_its_kernel_back(tmp_path: Path) -> None:
    tensors = loha(CONV, 32, 16 * 9, 3, alpha=3.0)
    found = reading(tmp_path, tensors)
    assert error(change(found, CONV_KEY), whole_loha(tensors, CONV).reshape(32, 16, 3, 3)) < EXACT


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """LyCORIS' rebuild_tucker."""
    return torch.einsum("ijkl,jr,ip->prkl", core.double(), b.double(), a.double()).contiguous()


def test_loha_with_tucker_cores_keeps_its_rank(tmp_path: Path) -> None:
    t = {
        f"{CONV}.hada_t1": torch.randn(3, 3, 3, 3),
        f"{CONV}.hada_w1_a": torch.randn(3, 32),
        f"{CONV}.hada_w1_b": torch.randn(3, 16),
        f"{CONV}.hada_t2": torch.randn(3, 3, 3, 3),
        f"{CONV}.hada_w2_a": torch.randn(3, 32),
        f"{CONV}.hada_w2_b": torch.randn(3, 16),
        f"{CONV}.alpha": torch.tensor(1.5),
    }
    one, two = (
        tucker(t[f"{CONV}.hada_t{n}"], t[f"{CONV}.hada_w{n}_a"], t[f"{CONV}.hada_w{n}_b"])
        for n in (1, 2)
    )
    found = reading(tmp_path, t)
    assert found.adapter.modules[0].rank == 9
    assert error(change(found, CONV_KEY), one * two * 0.5) < EXACT


@pytest.mark.parametrize("first", ["whole", "factored"])
@pytest.mark.parametrize("second", ["whole", "factored"])
def test_lokr_is_the_kronecker_product(first: str, second: str, tmp_path: Path) -> None:
    w1, w1_a, w1_b = torch.randn(8, 4), torch.randn(8, 2), torch.randn(2, 4)
    w2, w2_a, w2_b = torch.randn(12, 16), torch.randn(12, 2), torch.randn(2, 16)
    parts = {"w1": w1} if first == "whole" else {"w1_a": w1_a, "w1_b": w1_b}
    parts |= {"w2": w2} if second == "whole" else {"w2_a": w2_a, "w2_b": w2_b}
    tensors = {f"{LINEAR}.lokr_{name}": tensor for name, tensor in parts.items()}
    tensors[f"{LINEAR}.alpha"] = torch.tensor(4.0)
    scale = 1.0 if first == second == "whole" else 2.0  # LyCORIS: no factors, no scale
    expected = torch.kron(
        (w1 if first == "whole" else w1_a @ w1_b).double(),
        (w2 if second == "whole" else w2_a @ w2_b).double(),
    )
    found = reading(tmp_path, tensors)
    assert error(change(found), expected * scale) < EXACT
    assert found.adapter.modules[0].rank <= 48


def test_lokr_of_a_convolution_is_read_in_all_three_ways(tmp_path: Path) -> None:
    w1 = torch.randn(4, 2)
    w2_a, w2_b, core = torch.randn(3, 8), torch.randn(3, 8), torch.randn(3, 3, 3, 3)
    kernel = tucker(core, w2_a, w2_b)
    expected = torch.kron(w1.double()[:, :, None, None].contiguous(), kernel)
    in_parts = {"lokr_w2_a": w2_a, "lokr_w2_b": w2_b, "lokr_t2": core}
    u, s, v = torch.linalg.svd(kernel.flatten(1).float(), full_matrices=False)
    flat = {"lokr_w2_a": u[:, :3] * s[:3], "lokr_w2_b": v[:3]}
    for parts in (in_parts, flat, {"lokr_w2": kernel.float()}):
        tensors = {f"{CONV}.{name}": tensor for name, tensor in parts.items()}
        found = reading(tmp_path, {f"{CONV}.lokr_w1": w1, **tensors})
        assert error(change(found, CONV_KEY), expected) < 1e-5


def test_a_kernel_in_a_third_tensor_is_folded_without_a_higher_rank(tmp_path: Path) -> None:
    down, up, mid = torch.randn(5, 16, 1, 1), torch.randn(32, 5, 1, 1), torch.randn(5, 5, 3, 3)
    tensors = {
        f"{CONV}.lora_down.weight": down,
        f"{CONV}.lora_up.weight": up,
        f"{CONV}.lora_mid.weight": mid,
        f"{CONV}.alpha": torch.tensor(2.5),
    }
    expected = tucker(mid, up.flatten(1).T, down.flatten(1)) * 0.5
    found = reading(tmp_path, tensors)
    assert found.adapter.modules[0].rank == 5
    assert found.is_converted
    assert error(change(found, CONV_KEY), expected) < EXACT


def noted_error(found: AdapterReading) -> float:
    """The relative error in the notes."""
    (match,) = [
        m for n in found.notes if (m := re.search(r"\(rank 256.*?([\d.e-]+) % for the whole", n))
    ]
    return float(match[1]) / 100


@pytest.mark.parametrize("kind", ["diff", "loha", "lokr"])
def test_a_rank_that_is_too_high_is_truncated_and_the_error_is_noted(
    kind: str, tmp_path: Path
) -> None:
    size = 400
    if kind == "diff":
        tensors = {f"{LINEAR}.diff": torch.randn(size, size)}
        expected = tensors[f"{LINEAR}.diff"].double()
    elif kind == "loha":
        tensors = loha(LINEAR, size, size, 20, alpha=20.0)
        expected = whole_loha(tensors)
    else:
        w1, w2 = torch.randn(20, 20), torch.randn(20, 20)
        tensors = {f"{LINEAR}.lokr_w1": w1, f"{LINEAR}.lokr_w2": w2}
        expected = torch.kron(w1.double(), w2.double())
    found = reading(tmp_path, tensors, allow_loss=True)
    got = error(change(found), expected)
    values = torch.linalg.svdvals(expected)
    least = float((values[256:].square().sum() / values.square().sum()).sqrt())
    assert found.adapter.modules[0].rank == 256
    assert noted_error(found) == pytest.approx(got, rel=0.06)  # the note has two digits
    assert least - 1e-5 < got < least * 1.02  # close to the optimum


def test_a_large_change_is_truncated_close_to_the_optimum(tmp_path: Path) -> None:
    matrix = torch.randn(300, 200) * torch.logspace(
        0, -2, 200
    )  # singular values that decrease slowly
    down, up, lost = truncate_to_rank(matrix, 24)
    values = torch.linalg.svdvals(matrix)
    assert (down.shape, up.shape) == ((24, 200), (300, 24))
    assert lost == pytest.approx(float((matrix - up @ down).square().sum()), rel=1e-5)
    assert lost < float(values[24:].square().sum()) * 1.01
    assert torch.equal(truncate_to_rank(matrix, 24)[0], down)


def test_a_full_difference_of_low_rank_loses_nothing(tmp_path: Path) -> None:
    tensors = {f"{LINEAR}.diff": torch.randn(320, 20) @ torch.randn(20, 320)}
    found = reading(tmp_path, tensors)
    assert error(change(found), tensors[f"{LINEAR}.diff"].double()) < 1e-5
    assert found.adapter.modules[0].rank == 20
    assert any(
        "1 full difference module was converted to LoRA (rank 20)" in note for note in found.notes
    )


def test_a_file_that_changes_nothing_says_so(tmp_path: Path) -> None:
    found = reading(tmp_path, {f"{LINEAR}.diff": torch.zeros(320, 320)})
    assert found.adapter.modules[0].rank == 1
    assert "All changes in the file are 0: it has no effect at any weight." in found.notes


def dora(tensors: dict[str, Tensor], base: Tensor, path: Path, key: str = KEY) -> Tensor:
    found = reading(path, tensors, weights=lambda name: base if name == key else None)
    assert any("DoRA" in note for note in found.notes)
    return change(found, key)


@pytest.mark.parametrize("axis", ["output", "input", "peft"])
@pytest.mark.parametrize("conv", [False, True])
def test_dora_is_the_difference_to_its_base(axis: str, conv: bool, tmp_path: Path) -> None:
    kernel = (3, 3) if conv else ()
    stem, key = (CONV, CONV_KEY) if conv else (LINEAR, KEY)
    base, down = torch.randn(24, 32, *kernel), torch.randn(2, 32, *kernel)
    up = torch.randn(24, 2, *([1] * len(kernel)))
    plain = (up.flatten(1) @ down.flatten(1)).reshape(base.shape) * 2
    moved = (base + plain).double()
    dims = [d for d in range(base.dim()) if d != (1 if axis == "input" else 0)]
    norms = torch.linalg.vector_norm(moved, dim=dims, keepdim=True)
    magnitude = norms * torch.linspace(
        0.5, 1.5, 32 if axis == "input" else 24, dtype=torch.float64
    ).reshape([-1 if d not in dims else 1 for d in range(base.dim())])
    expected = magnitude * moved / norms - base
    scale = magnitude.float()
    if axis == "peft":
        name = f"{key}.lora_magnitude_vector"
        tensors = {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up * 2}
        scale = scale if conv else scale.flatten()
    else:
        name = f"{stem}.dora_scale"
        tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        tensors[f"{stem}.alpha"] = torch.tensor(4.0)
    assert error(dora({**tensors, name: scale}, base, tmp_path, key), expected) < 1e-5


def test_dora_without_its_base_is_refused_with_what_would_help(tmp_path: Path) -> None:
    tensors = loha(LINEAR, 24, 32, 2, alpha=2.0) | {f"{LINEAR}.dora_scale": torch.ones(24, 1)}
    with pytest.raises(AdapterError, match=r"DoRA.*Add that base model"):
        reading(tmp_path, tensors)


def plain(stem: str = LINEAR, rank: int = 4) -> dict[str, Tensor]:
    return {
        f"{stem}.lora_down.weight": torch.randn(rank, 64),
        f"{stem}.lora_up.weight": torch.randn(64, rank),
    }


def test_small_changes_of_biases_and_norms_are_left_out_with_a_note(tmp_path: Path) -> None:
    tensors = plain() | {
        f"{LINEAR}.diff_b": torch.full((64,), 0.01),
        f"{NORM}.w_norm": torch.full((320,), 0.02),
        f"{NORM}.b_norm": torch.full((320,), 0.02),
        f"{NORM}.alpha": torch.tensor(1.0),
    }
    found = reading(tmp_path, tensors)
    whole = sum(float(t.double().square().sum()) for n, t in tensors.items() if n[-5:] == "_norm")
    share = 100 * (whole / (float(change(found).square().sum()) + whole + 64e-4)) ** 0.5
    (biases,) = [note for note in found.notes if note.startswith("Changes of 1 bias ")]
    (norms,) = [note for note in found.notes if note.startswith("Changes of 2 norms ")]
    assert f"{share:.2g} %" in norms
    assert "left out" in biases


def test_a_file_that_is_mostly_norms_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="because a LoRA cannot contain them: 99 %"):
        reading(tmp_path, plain() | {f"{NORM}.w_norm": torch.full((320,), 50.0)})


def test_embeddings_in_a_file_are_named_and_left_out(tmp_path: Path) -> None:
    bundled = {"bundle_emb.my-word.string_to_param.*": torch.randn(2, 768)}
    found = reading(tmp_path, plain() | bundled)
    assert len(found.adapter.modules) == 1
    assert any("“my-word”" in note for note in found.notes)


def test_an_alpha_of_zero_and_a_missing_one_mean_the_rank(tmp_path: Path) -> None:
    other = LINEAR.replace("to_q", "to_k")
    tensors = plain() | plain(other) | {f"{other}.alpha": torch.tensor(0.0)}
    found = reading(tmp_path, tensors)
    assert {module.scale for module in found.adapter.modules} == {1.0}
    assert any("Alpha is missing in 1 of 2 modules" in note for note in found.notes)


def test_a_partly_changed_second_encoder_is_noted(tmp_path: Path) -> None:
    stem = "lora_te2_text_model_encoder_layers_{}_self_attn_{}_proj"
    tensors: dict[str, Tensor] = {}
    for layer in range(3):
        for projection in ("q", "k", "v", "out") if layer else ("q", "k", "v"):
            tensors |= plain(stem.format(layer, projection))
    notes = reading(tmp_path, tensors).notes
    assert any("A1111 ignores the attention of 1 layer" in note for note in notes)
    assert any("differ between layers: layer 0 " in note for note in notes)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (plain() | {f"{LINEAR}.hada_w1_a": torch.ones(2, 2)}, "mixes two adapter types"),
        ({f"{LINEAR}.oft_blocks": torch.ones(2, 2)}, "of the type OFT.*Supported are LoRA"),
        ({f"{NORM}.w_norm": torch.ones(3)}, "no LoRA modules"),
        (plain("lora_unet_strange_block_9_to_q"), "unknown name: 'lora_unet_strange"),
        (plain("../../etc/x"), "unknown name: '../../etc/x"),
        (
            plain() | {"lora_te3_x.lora_up.weight": torch.ones(2, 2)},
            "1 tensor with an unknown name",
        ),
        (loha(LINEAR, 8, 8, 2, 1.0) | {f"{LINEAR}.hada_w1_b": torch.ones(3, 8)}, "do not match"),
        (
            {
                f"{LINEAR}.lokr_w1": torch.ones(256, 256),
                f"{LINEAR}.lokr_w2": torch.ones(256, 256),
            },
            "more than any layer",
        ),
        (plain() | {f"{LINEAR}.alpha": torch.tensor(float("nan"))}, "contain NaN or infinity"),
        (plain() | {f"{LINEAR}.alpha": torch.ones(2)}, "not a single number"),
        ({f"{LINEAR}.diff": torch.full((8, 8), float("inf"))}, "contain NaN or infinity"),
    ],
)
def test_invalid_files_are_refused(
    tensors: dict[str, Tensor], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=sentence):
        reading(tmp_path, tensors)

"""The bench of two checkouts: it notices any difference, and runs a checkout in its own process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from bench.bit_equal import BASES, Child, hash_tensors, main, print_rows, run_in
from bench.trainings import ROOT


def test_one_other_bit_or_a_failure_is_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    case = {"adapter": "a", "losses": "b"}
    assert print_rows({"one": case}, {"one": dict(case)})
    assert not print_rows({"one": case}, {"one": case | {"losses": "c"}})
    assert not print_rows({"one": {"failed": "same"}}, {"one": {"failed": "same"}})
    assert not print_rows({"one": case, "two": case}, {"one": case})
    assert not print_rows({}, {})
    printed = capsys.readouterr().out
    assert "different: losses\n" in printed
    assert "different: failed\n" in printed
    assert "1 of 2 cases are equal\n" in printed


def test_tensors_are_compared_without_metadata() -> None:
    tensors = {"a": torch.arange(4.0)}
    found = hash_tensors(save(tensors, {"one": "1"}))
    assert hash_tensors(save(tensors, {"two": "2"})) == found
    assert hash_tensors(save({"b": tensors["a"]})) != found
    assert hash_tensors(save({"a": tensors["a"] + 1e-7})) != found


def test_the_cases_of_a_base_have_names_of_their_own(tmp_path: Path) -> None:
    for base in BASES:
        names = [name for name, _ in Child(base, tmp_path, tmp_path, tmp_path).cases()]
        assert len(names) == len(set(names)) > 40
        assert ("training, zero terminal SNR" in names) == (base in ("sd2", "starter"))


def test_a_checkout_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = run_in(ROOT, tmp_path, "^starter, inspection$")
    assert found.keys() == {"starter, inspection"}
    assert found["starter, inspection"]["facts"].startswith("sd1 v_prediction 128 ")


def test_another_checkout_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "--against is missing" in capsys.readouterr().err

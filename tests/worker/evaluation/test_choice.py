from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.core.evaluation.choice import Candidate, choose
from worker.core.evaluation.errors import EvaluationError
from worker.core.evaluation.intervals import is_above
from worker.core.evaluation.measures import Memory
from worker.core.evaluation.style import StyleScore

WOBBLE = np.array([0.02, -0.02, 0.01, -0.01, 0.03, -0.03, 0.0, 0.0])


def candidate(
    name: str,
    style: float,
    *,
    adherence: float = 0.8,
    ratio: float | None = None,
    wobble: NDArray[np.floating] = WOBBLE,
) -> Candidate:
    memory = Memory((0.4, 0.2), ratio)
    parts = style + wobble
    return Candidate(name, StyleScore(style, parts), adherence + wobble[::-1], memory)


def test_a_candidate_that_is_closer_beyond_chance_is_chosen() -> None:
    early, late = candidate("step 50", 0.4), candidate("step 100", 0.7, wobble=WOBBLE[::-1])
    found = choose([early, late])
    assert found.name == "step 100"
    assert found.reason == (
        "Step 100 is closest to the style; the others are farther by more than chance explains."
    )
    assert found.equal == ()
    assert is_above(late.style.parts, early.style.parts)


def test_of_equals_the_one_that_follows_prompts_is_kept_then_the_most_trained() -> None:
    early = candidate("step 100", 0.69, ratio=0.9, wobble=WOBBLE[::-1])
    late = candidate("step 200", 0.70, ratio=0.75)
    found = choose([early, late])
    assert (found.name, found.equal) == ("step 200", ("step 100",))
    assert found.reason == (
        "Step 100 and step 200 look equally close; kept: step 200, the most trained one."
    )
    found = choose([early, candidate("step 200", 0.70, ratio=0.65)])
    assert found.name == "step 100"
    assert found.reason.endswith(
        "kept: step 100, the most trained one that does not begin to remember your images."
    )
    obedient = candidate("step 200", 0.70, ratio=0.7, adherence=0.95)
    found = choose([early, obedient])
    assert found.name == "step 200"
    assert found.reason == (
        "Step 200 and step 100 look equally close; step 200 follows the prompts best."
    )


def test_without_held_out_images_the_most_trained_of_equals_is_kept() -> None:
    found = choose([candidate("step 100", 0.69, wobble=WOBBLE[::-1]), candidate("step 200", 0.70)])
    assert found.reason.endswith("kept: step 200, the most trained one.")


def test_ruined_and_copying_candidates_are_left_out_with_the_reason() -> None:
    good = candidate("step 50", 0.5, ratio=0.9)
    copy = candidate("step 200", 0.9, ratio=0.38)
    broken = candidate("step 300", -0.4)
    deaf = candidate("step 400", 0.8, adherence=0.01)
    found = choose([good, copy, broken, deaf])
    assert found.name == "step 50"
    assert found.left_out == {
        "step 200": "draws its training images again when asked with their captions",
        "step 300": "ruined: farther from the style than the base model",
        "step 400": "ruined: it draws the same whatever the prompt says",
    }
    assert choose([copy, broken]).name is None


def test_low_adherence_counts_as_none_only_where_its_interval_reaches_zero() -> None:
    sure, unsure = 0.08 + WOBBLE, 0.08 + 20 * WOBBLE
    candidates = [
        Candidate(name, StyleScore(0.5, 0.5 + WOBBLE), values)
        for name, values in (("step 100", sure), ("step 200", unsure))
    ]
    assert list(choose(candidates).left_out) == ["step 200"]
    assert list(choose(candidates[1:]).left_out) == ["step 200"]


def test_a_candidate_that_is_no_closer_to_the_style_than_the_base_is_left_out() -> None:
    plain, early = candidate("step 50", 0.005), candidate("step 100", 0.1)
    found = choose([plain, early])
    assert found.name == "step 100"
    assert found.left_out == {"step 50": "without the style: no closer to it than the base model"}


def test_one_candidate_is_kept_and_none_or_few_prompts_are_an_error() -> None:
    assert choose([candidate("step 50", 0.5)]).reason == "Step 50 is the only one to choose."
    with pytest.raises(EvaluationError, match="at least one candidate"):
        choose([])
    with pytest.raises(EvaluationError, match="At least 6 prompts"):
        choose([Candidate("a", StyleScore(0.5, WOBBLE[:5]))])

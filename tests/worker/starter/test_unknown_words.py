"""An unknown word beside a subject leaves the drawing as it is: every trigger word is one.

Latents after two steps of sampling are compared, in units of the median difference between two
subjects from the same noise. Measured: with a made-up word 0.02 in the median and 0.17 at most,
with another seed 0.16 in the median, and with another subject 0.67 at least. An earlier base, of
64 px, moved: by more than 0.5 in 39 of the 100 prompts, after two steps as after four.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.costs import wide_but
from worker.core.bases.load import LoadedBase, encode_prompts, load_base
from worker.core.families.networks import network_of
from worker.core.families.stable_diffusion.samplers import make_scheduler
from worker.core.families.text_states import TextStates
from worker.core.inference.sampling import Conditioning, generate_latents
from worker.core.starter import PATH
from worker.core.starter.prompt_words import read_prompt

SUBJECTS = (
    *("castle", "rocket", "red apple", "house", "frog", "bicycle", "owl", "automobile", "penguin"),
    *("sunflower", "pizza", "guitar", "elephant", "sailboat", "cactus", "hamburger", "train"),
    *("butterfly", "umbrella", "key"),
)
BESIDE = (
    "{subject}, zorblax style",
    "quivell {subject}",
    "{subject} brindow",
    "{subject}, mofteria",
    "{subject} in plaskit style",
)
"""Five made-up words, as people put trigger words."""

STEPS, GUIDANCE, BATCH = 2, 3.0, 10
LIMIT = 0.5  # half way to another subject
MOST = 0.95  # of the prompts, which must differ less than another seed does


@pytest.fixture(scope="module")
def base() -> LoadedBase:
    return load_base(PATH)


def sample(base: LoadedBase, prompts: list[str], *, seed: int = 0) -> Tensor:
    """Latents (prompts, channels, height, width), all from the noise of one seed."""
    scheduler = make_scheduler(base.scheduler_config, prediction_type=base.info.prediction_type)
    found = []
    with torch.inference_mode():
        empty = encode_prompts(base, [""], device="cpu").hidden
        for start in range(0, len(prompts), BATCH):
            some = prompts[start : start + BATCH]
            negative = TextStates(empty.expand(len(some), -1, -1), None)
            text = encode_prompts(base, some, device="cpu")
            latents = generate_latents(
                network_of(base.info.family),
                base.denoiser,
                base.vae,
                scheduler,
                Conditioning(text, negative, GUIDANCE),
                seeds=[seed] * len(some),
                width=base.info.resolution,
                height=base.info.resolution,
                steps=STEPS,
                device="cpu",
                on_step=lambda _: None,
            )
            found.append(latents)
    return torch.cat(found)


@pytest.fixture(scope="module")
def plain(base: LoadedBase) -> Tensor:
    """The subjects alone."""
    return sample(base, list(SUBJECTS))


def difference(first: Tensor, second: Tensor) -> Tensor:
    """Root mean square over a latent."""
    return (first - second).flatten(-3).square().mean(-1).sqrt()


def between_subjects(plain: Tensor) -> Tensor:
    """The differences of every pair of subjects."""
    count = len(plain)
    return torch.cat(
        [difference(plain, plain.roll(shift, 0)) for shift in range(1, count // 2 + 1)]
    )


def test_the_words_are_unknown_and_the_subjects_are_not() -> None:
    for subject in SUBJECTS:
        for beside in BESIDE:
            reading = read_prompt(beside.format(subject=subject))
            assert (len(reading.unknown), reading.has_subject) == (1, True)


@pytest.mark.parametrize("words", wide_but([1, len(BESIDE)], 1))
def test_an_unknown_word_beside_a_subject_leaves_the_drawing(
    words: int, base: LoadedBase, plain: Tensor
) -> None:
    """Each subject with one of the words in turn; all of them are `wide`."""
    prompts = [
        BESIDE[(place + word) % len(BESIDE)].format(subject=subject)
        for place, subject in enumerate(SUBJECTS)
        for word in range(words)
    ]
    moved = difference(sample(base, prompts), plain.repeat_interleave(words, 0))
    share = moved / between_subjects(plain).median()
    too_far = {
        prompt: f"{far:.2f}" for prompt, far in zip(prompts, share, strict=True) if far > LIMIT
    }
    assert too_far == {}
    another_seed = difference(sample(base, list(SUBJECTS), seed=1), plain).median()
    assert moved.quantile(MOST) < another_seed


def test_another_subject_is_over_the_limit(plain: Tensor) -> None:
    """The control: the limit is not so wide that anything passes."""
    pairs = between_subjects(plain)
    assert ((pairs / pairs.median()) > LIMIT).float().mean() > 0.95

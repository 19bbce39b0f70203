"""Z-Image: what is predicted and read is what ZImagePipeline of diffusers predicts and reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline
from torch import Tensor
from transformers import Qwen3Model

from tests.worker.bases.tiny_zimage import (
    qwen3_config,
    qwen_tokenizer,
    zimage_autoencoder,
    zimage_transformer,
)
from worker.core.families.facts.family_facts import MAX_TEXT_TOKENS
from worker.core.families.family import BaseFamily
from worker.core.families.network import FamilyError
from worker.core.families.networks import network_of
from worker.core.families.text_states import TextStates
from worker.core.families.zimage.network import ZImageNetwork
from worker.core.inference.sampling import Conditioning, generate_latents

PROMPTS = ["a red fox", "the moon over an old harbor, " * 3]
SIDES = {"height": 64, "width": 96}
Step = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def pipeline() -> ZImagePipeline:
    torch.manual_seed(0)
    made = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=zimage_autoencoder().eval(),
        text_encoder=Qwen3Model(qwen3_config()).eval(),
        tokenizer=qwen_tokenizer(),
        transformer=zimage_transformer().eval(),
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def text(pipeline: ZImagePipeline) -> TextStates:
    return _encode(pipeline, PROMPTS)


@pytest.fixture(scope="module")
def steps(pipeline: ZImagePipeline, text: TextStates) -> list[Step]:
    """What the pipeline hands its scheduler: the prediction, the level and the latents."""
    seen: list[Step] = []
    step = pipeline.scheduler.step

    def note(predicted: Tensor, timestep: Tensor, latents: Tensor, **options: Any) -> Any:
        level = pipeline.scheduler.sigmas[len(seen)]
        seen.append((predicted.clone(), level, latents.clone()))
        return step(predicted, timestep, latents, **options)

    pipeline.scheduler.step = note
    pipeline(
        prompt_embeds=_rows(text),
        num_inference_steps=4,
        guidance_scale=0.0,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
        **SIDES,
    )
    pipeline.scheduler.step = step
    return seen


def _encode(pipeline: ZImagePipeline, prompts: list[str]) -> TextStates:
    network = network_of(BaseFamily.ZIMAGE)
    with torch.no_grad():
        return network.encode([pipeline.text_encoder], [pipeline.tokenizer], prompts, device="cpu")


def _rows(text: TextStates) -> list[Tensor]:
    assert text.lengths is not None
    return [row[:length] for row, length in zip(text.hidden, text.lengths, strict=True)]


def _largest_errors(network: ZImageNetwork, pipeline: Any, steps: list[Step], text: Any) -> float:
    with torch.no_grad():
        return max(
            float((network.predict(pipeline.transformer, x, level, text, x) - out).abs().max())
            for out, level, x in steps
        )


class WrongSign(ZImageNetwork):
    def predict(self, *inputs: Any) -> Tensor:
        return -super().predict(*inputs)


class WrongDirection(ZImageNetwork):
    def predict(self, denoiser: Any, latents: Tensor, levels: Tensor, *others: Any) -> Tensor:
        return super().predict(denoiser, latents, 1 - levels, *others)


class WrongPacking(ZImageNetwork):
    def predict(self, denoiser: Any, latents: Tensor, *others: Any) -> Tensor:
        turned = super().predict(denoiser, latents.transpose(2, 3), *others)
        return turned.transpose(2, 3)


class PaddedCaptions(ZImageNetwork):
    def predict(self, denoiser: Any, latents: Tensor, levels: Tensor, text: Any, *_: Any) -> Tensor:
        whole = TextStates(text.hidden, lengths=(text.hidden.shape[1],) * len(text.hidden))
        return super().predict(denoiser, latents, levels, whole, latents)


def test_a_prediction_is_the_pipelines_to_the_bit(
    pipeline: ZImagePipeline, steps: list[Step], text: TextStates
) -> None:
    assert [round(float(level), 3) for _, level, _ in steps] == [1.0, 0.947, 0.857, 0.667]
    assert _largest_errors(ZImageNetwork(), pipeline, steps, text) == 0


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(WrongSign, 1.0), (WrongDirection, 0.1), (WrongPacking, 0.1), (PaddedCaptions, 1e-3)],
)
def test_each_mistake_is_seen_there(
    pipeline: ZImagePipeline,
    steps: list[Step],
    text: TextStates,
    wrong: Callable[[], ZImageNetwork],
    error: float,
) -> None:
    assert _largest_errors(wrong(), pipeline, steps, text) > error


@pytest.mark.parametrize(("count", "guidance"), [(4, 1.0), (7, 5.0)])
def test_images_are_the_pipelines(pipeline: ZImagePipeline, count: int, guidance: float) -> None:
    """Diffusers adds its guidance to 1."""
    positive, negative = (_encode(pipeline, [prompt]) for prompt in ("a red fox", ""))
    expected = pipeline(
        "a red fox",
        negative_prompt="",
        num_inference_steps=count,
        guidance_scale=guidance - 1,
        output_type="latent",
        generator=torch.Generator().manual_seed(3),
        **SIDES,
    ).images
    network = network_of(BaseFamily.ZIMAGE)
    with torch.no_grad():
        found = generate_latents(
            network,
            pipeline.transformer,
            pipeline.vae,
            network.sampler(None, pipeline.scheduler.config, prediction=""),
            Conditioning(positive, negative if guidance > 1 else None, guidance),
            seeds=[3],
            steps=count,
            device="cpu",
            on_step=lambda _: None,
            **SIDES,
        )
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_states_are_the_pipelines_and_the_prompts_stay(pipeline: ZImagePipeline) -> None:
    prompts = [*PROMPTS, ""]
    expected, _ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
    given = list(prompts)
    found = _encode(pipeline, given)
    assert given == prompts
    assert found.lengths == tuple(len(states) for states in expected)
    for mine, theirs in zip(_rows(found), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)
    (alone,) = _rows(_encode(pipeline, ["a red fox"]))
    torch.testing.assert_close(alone, expected[0], atol=1e-6, rtol=1e-6)


def test_the_last_layer_of_the_text_encoder_is_not_needed(pipeline: ZImagePipeline) -> None:
    encoder = Qwen3Model(qwen3_config()).eval()
    encoder.load_state_dict(pipeline.text_encoder.state_dict())
    encoder.layers = encoder.layers[:-1]
    with torch.no_grad():
        found = network_of(BaseFamily.ZIMAGE).encode(
            [encoder], [pipeline.tokenizer], ["a red fox"], device="cpu"
        )
    assert torch.equal(found.hidden, _encode(pipeline, ["a red fox"]).hidden)


@pytest.mark.parametrize("prompt", ["word " * 5_000, "狐" * 700])
def test_a_long_prompt_is_cut_and_the_template_stays_whole(
    pipeline: ZImagePipeline, prompt: str
) -> None:
    network = ZImageNetwork()
    unread = network.unread([pipeline.tokenizer], prompt)
    kept = prompt[: prompt.rindex(unread)]
    found = _encode(pipeline, [prompt])
    assert MAX_TEXT_TOKENS - 5 <= found.hidden.shape[1] <= MAX_TEXT_TOKENS
    assert torch.equal(found.hidden, _encode(pipeline, [kept]).hidden)
    text = pipeline.tokenizer.apply_chat_template(
        [{"role": "user", "content": kept}], tokenize=False, add_generation_prompt=True
    )
    assert len(pipeline.tokenizer(text).input_ids) == found.hidden.shape[1]
    assert network.unread([pipeline.tokenizer], "a red fox") == ""


def test_a_tokenizer_without_a_template_is_an_error(pipeline: ZImagePipeline) -> None:
    with pytest.raises(FamilyError, match="has no chat template"):
        network_of(BaseFamily.ZIMAGE).encode(
            [pipeline.text_encoder], [qwen_tokenizer(None)], ["a red fox"], device="cpu"
        )

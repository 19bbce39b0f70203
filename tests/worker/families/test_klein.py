"""FLUX.2 klein: what is predicted and read is what Flux2KleinPipeline of diffusers does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline
from torch import Tensor

from tests.worker.bases.tiny_klein import LAYERS, klein_pipeline
from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import encode_prompts, load_base
from worker.core.families.family import BaseFamily
from worker.core.families.folder import BaseModelError, vae_factor
from worker.core.families.klein.autoencoder import PackedAutoencoder, pack, unpack
from worker.core.families.klein.network import KleinNetwork
from worker.core.families.text_states import TextStates
from worker.core.families.variants import Variant
from worker.core.inference.sampling import Conditioning, decode_latent, generate_latents
from worker.core.latents import encode

PROMPTS = ["a red fox", "the moon over an old harbor"]
Step = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def pipeline() -> Flux2KleinPipeline:
    return klein_pipeline()


@pytest.fixture(scope="module")
def packed(pipeline: Flux2KleinPipeline) -> PackedAutoencoder:
    made = PackedAutoencoder.from_config(pipeline.vae.config).eval()
    made.load_state_dict(pipeline.vae.state_dict())
    return made


@pytest.fixture(scope="module")
def text(pipeline: Flux2KleinPipeline) -> TextStates:
    return _encode(pipeline, PROMPTS)


@pytest.fixture(scope="module")
def steps(pipeline: Flux2KleinPipeline, text: TextStates) -> list[Step]:
    """What the pipeline hands its scheduler: the prediction, the level and the latents."""
    seen: list[Step] = []
    step = pipeline.scheduler.step

    def note(predicted: Tensor, timestep: Tensor, latents: Tensor, **options: Any) -> Any:
        level = pipeline.scheduler.sigmas[len(seen)]
        seen.append((_unrolled(predicted), level, _unrolled(latents)))
        return step(predicted, timestep, latents, **options)

    pipeline.scheduler.step = note
    _latents(pipeline, text, steps=4, guidance=1.0)
    pipeline.scheduler.step = step
    return seen


def _unrolled(tokens: Tensor) -> Tensor:
    """Tokens (b, 24, c) of an image as (b, c, 4, 6)."""
    return tokens.permute(0, 2, 1).reshape(len(tokens), -1, 4, 6)


def _encode(pipeline: Flux2KleinPipeline, prompts: list[str]) -> TextStates:
    encoders, tokenizers = [pipeline.text_encoder.model], [pipeline.tokenizer]
    with torch.no_grad():
        return KleinNetwork().encode(encoders, tokenizers, prompts, device="cpu")


def _latents(
    pipeline: Flux2KleinPipeline, text: TextStates, *, steps: int, guidance: float
) -> Tensor:
    """The pipeline's own latents of an image of 16 × 24 pixels, in which 4 are a latent."""
    empty = _encode(pipeline, [""] * len(text.hidden))
    found: Tensor = pipeline(
        prompt_embeds=text.hidden,
        negative_prompt_embeds=empty.hidden,
        height=16,
        width=24,
        num_inference_steps=steps,
        guidance_scale=guidance,
        text_encoder_out_layers=LAYERS,
        output_type="latent",
        generator=[torch.Generator().manual_seed(seed) for seed in range(len(text.hidden))],
    ).images
    return found


def _largest_error(network: KleinNetwork, pipeline: Any, steps: list[Step], text: Any) -> float:
    with torch.no_grad():
        return max(
            float((network.predict(pipeline.transformer, x, level, text, x) - out).abs().max())
            for out, level, x in steps
        )


class WrongSign(KleinNetwork):
    def predict(self, *inputs: Any) -> Tensor:
        return -super().predict(*inputs)


class WrongDirection(KleinNetwork):
    def predict(self, denoiser: Any, latents: Tensor, levels: Tensor, *others: Any) -> Tensor:
        return super().predict(denoiser, latents, 1 - levels, *others)


class WrongPacking(KleinNetwork):
    def predict(self, denoiser: Any, latents: Tensor, *others: Any) -> Tensor:
        return super().predict(denoiser, latents.transpose(2, 3), *others).transpose(2, 3)


def test_a_prediction_is_the_pipelines_to_the_bit(
    pipeline: Flux2KleinPipeline, steps: list[Step], text: TextStates
) -> None:
    assert len(steps) == 4
    assert _largest_error(KleinNetwork(), pipeline, steps, text) == 0


@pytest.mark.parametrize("wrong", [WrongSign, WrongDirection, WrongPacking])
def test_a_wrong_prediction_is_found(
    wrong: type[KleinNetwork], pipeline: Flux2KleinPipeline, steps: list[Step], text: TextStates
) -> None:
    assert _largest_error(wrong(), pipeline, steps, text) > 1e-3


def test_prompts_are_read_as_the_pipeline_reads_them(
    pipeline: Flux2KleinPipeline, text: TextStates
) -> None:
    prompts = list(PROMPTS)
    with torch.no_grad():
        theirs, _ = pipeline.encode_prompt(prompts, text_encoder_out_layers=LAYERS)
    assert prompts == PROMPTS
    assert torch.equal(text.hidden, theirs)


@pytest.mark.parametrize(("steps", "guidance"), [(1, 1.0), (4, 4.0), (7, 1.0)])
def test_images_are_drawn_as_the_pipeline_draws_them(
    pipeline: Flux2KleinPipeline,
    packed: PackedAutoencoder,
    text: TextStates,
    steps: int,
    guidance: float,
) -> None:
    network = KleinNetwork()
    negative = _encode(pipeline, [""] * len(PROMPTS)) if guidance > 1 else None
    with torch.no_grad():
        ours = generate_latents(
            network,
            pipeline.transformer,
            packed,
            network.sampler(None, pipeline.scheduler.config, prediction="velocity"),
            Conditioning(text, negative, guidance),
            seeds=[0, 1],
            width=24,
            height=16,
            steps=steps,
            device="cpu",
            on_step=lambda _: None,
        )
    theirs = _latents(pipeline, text, steps=steps, guidance=guidance)
    denormalized = ours * packed._statistics()[1] + packed._statistics()[0]
    assert (unpack(denormalized) - theirs).abs().max() < 1e-4


def test_the_autoencoder_packs_and_normalizes_latents(
    pipeline: Flux2KleinPipeline, packed: PackedAutoencoder
) -> None:
    assert vae_factor(packed.config) == 2 * vae_factor(pipeline.vae.config | {"patch_size": None})
    pixels = torch.rand(2, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        plain = pipeline._patchify_latents(pipeline.vae.encode(pixels).latent_dist.mode())
        bn = pipeline.vae.bn
        scale = torch.sqrt(bn.running_var + pipeline.vae.config.batch_norm_eps)
        expected = (plain - bn.running_mean.view(1, -1, 1, 1)) / scale.view(1, -1, 1, 1)
        decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mode()).sample
        ours = torch.stack([latent.mean for latent in encode(packed, pixels)])
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(decode_latent(packed, ours[0]), decoded[0])
    assert torch.equal(unpack(pack(pixels)), pixels)


def test_a_folder_loads_as_its_own_libraries_load_it(klein_folder: Path) -> None:
    folder = klein_folder
    base = load_base(folder)
    assert (base.info.family, base.info.variant) == (BaseFamily.KLEIN, Variant.BASE)
    assert base.info.resolution == 32
    theirs = Flux2KleinPipeline.from_pretrained(folder)
    for ours, whole in ((base.denoiser, theirs.transformer), (base.vae, theirs.vae)):
        found = ours.state_dict()
        assert found.keys() == whole.state_dict().keys()
        assert all(torch.equal(found[name], t) for name, t in whole.state_dict().items())
    prompts = encode_prompts(base, PROMPTS, device="cpu")
    assert torch.equal(prompts.hidden, _encode(theirs, PROMPTS).hidden)


@pytest.mark.parametrize(
    ("name", "is_distilled", "variant"),
    [
        ("klein", True, Variant.TURBO),
        ("klein", None, Variant.BASE),  # as diffusers reads an index that does not say
        ("klein", False, Variant.BASE),
        ("klein-dedistilled", True, Variant.DEDISTILLED),
    ],
)
def test_a_distilled_base_is_told_by_its_index_or_name(
    name: str, is_distilled: bool | None, variant: Variant, klein_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(klein_folder, tmp_path / name)
    index = json.loads((folder / "model_index.json").read_text())
    del index["is_distilled"]
    said = {} if is_distilled is None else {"is_distilled": is_distilled}
    (folder / "model_index.json").write_text(json.dumps(index | said))
    assert inspect_base(folder).variant is variant


@pytest.mark.parametrize(
    ("part", "changes", "reason"),
    [
        ("transformer", {"guidance_embeds": True}, "This is FLUX.2 dev"),
        ("transformer", {"num_single_layers": 24}, "This is a larger FLUX.2 than klein 4B"),
        ("text_encoder", {"hidden_size": 24}, "reads text states 48 wide"),
        ("vae", {"latent_channels": 8}, "reads 16 channels"),
        ("scheduler", {"use_dynamic_shifting": False}, "with a dynamic shift"),
    ],
)
def test_a_folder_whose_parts_do_not_fit_is_refused(
    part: str,
    changes: dict[str, object],
    reason: str,
    klein_folder: Path,
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(klein_folder, tmp_path / "klein")
    file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(BaseModelError, match=reason):
        inspect_base(folder)

"""Compares two checkouts bit for bit: `python -m bench.bit_equal --against FOLDER`.

Both train and draw the same on this machine, each in a process of its own on one thread, with this
interpreter: four small bases (SD 1.x, SD 2.x with v-prediction, SDXL, `starter`) with every option
that changes numbers, every sampler, and every format of a download. A row for each case says
whether adapters, samples, losses, images, files of the cache or downloads differ. A case that fails
counts as different. The exit status is 1 if any case differs.

The other checkout only needs what is used here of `worker.core`; its dependencies are those of this
interpreter. `--only` takes a regular expression that is searched in the names of the cases.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

BASES = ("sd1", "sd2", "sdxl", "starter")
PREDICT_V = ("sd2", "starter")
SINGLE_FILES = ("sd1", "sd2", "sdxl")
SIDE = 64  # pixels of a training image
FAILED = "failed"

TRAININGS: dict[str, dict[str, Any]] = {
    "defaults": {
        "sample_every": 2,
        "sample_prompts": [
            "a red circle",
            "a wide line --d 3 --w 96 --h 64 --l 1 --s 2 --n blur --a 0.5",
        ],
        "sample_steps": 3,
    },
    "noise offset": {"noise_offset": 0.1},
    "multi-resolution noise": {"multires_noise_discount": 0.3},
    "more at high noise": {"noise_focus": 0.5},
    "more at low noise": {"noise_focus": -0.5},
    "zero terminal SNR": {"zero_terminal_snr": True},
    "no weighting": {"loss_weighting": "none"},
    "debiased": {"loss_weighting": "debiased"},
    "min-SNR of 1": {"snr_gamma": 1.0},
    "the other prediction": {},
    "pseudo-Huber": {"loss": "huber"},
    "shuffled tags": {"shuffle_tags": True, "caption_dropout": 0.0},
    "dropped captions": {"caption_dropout": 0.5},
    "masked, mirrored squares": {
        "masked_loss": True,
        "unmasked_weight": 0.1,
        "flip": True,
        "aspect_buckets": False,
    },
    "text encoder": {"train_text_encoder": True, "text_encoder_steps": 2, "caption_dropout": 0.3},
    "CLIP skip": {"clip_skip": 2},
    "LoHa": {"kind": "loha", "targets": "linear"},
    "LoKr": {"kind": "lokr", "targets": "all"},
    "rank-stabilized": {"rank_stabilized": True, "targets": "linear", "lora_plus_ratio": 4},
    "blocks": {"blocks": "mid"},
    "moving average": {"ema_decay": 0.9, "optimizer": "adafactor", "max_grad_norm": 0},
    "validation": {"validation_share": 0.4},
    "gradient checkpointing": {"gradient_checkpointing": True, "gradient_accumulation": 2},
    "bf16": {"precision": "bf16"},
}
"""What a training differs in from the usual one."""

SHAPES = ("LoHa", "LoKr", "rank-stabilized", "blocks", "moving average", "gradient checkpointing")
"""Trainings that depend on the layers of a base alone; those of `starter` are like SD 1.x's."""

RENDERS: dict[str, dict[str, Any]] = {
    "unguided": {"guidance": 1.0},
    "negative prompt": {"negative_prompt": "blurry, a photo"},
    "weighted prompt": {"prompt": "a (red:1.4) circle, [dark] (chalk:0.3) BREAK on ((black))"},
    "long prompt": {"prompt": "a red circle and a blue square, " * 14, "negative_prompt": "blur"},
    "three images": {"count": 3},
    "another size": {"width": 96, "height": 64},
    "image to image": {"strength": 0.6},
    "image to image by Euler a": {"strength": 0.6, "sampler": "euler_a"},
    "CLIP skip": {"clip_skip": 2},
}
"""What an image differs in from the usual one; each sampler has one more."""


# --- the child: it imports from the checkout it runs in what both checkouts have


@dataclass
class Recorder:
    """Callbacks of a training that keep hashes of what it makes."""

    found: dict[str, str] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)

    def on_event(self, event: Any) -> None:
        """Keep numbers, and hashes of files before the training deletes any."""
        kind = type(event).__name__
        if kind == "SampleSaved":
            self.found[f"sample {event.step}-{event.prompt_index}"] = hash_image_file(event.path)
        elif kind == "CheckpointSaved":
            content = (event.path / "adapter.safetensors").read_bytes()
            self.found[f"checkpoint {event.step}"] = hash_tensors(content)
        for name in ("loss", "low", "high", "base", "rise"):
            if isinstance(number := getattr(event, name, None), float):
                self.losses.append(f"{kind}.{name} {number!r}")

    def poll(self) -> Any:
        """Go on."""
        from worker.core.training.events import Commands

        return Commands()


@dataclass(frozen=True)
class Child:
    """The cases of one base; `work` is an empty folder."""

    name: str
    path: Path
    images: Path
    work: Path

    def cases(self) -> Iterator[tuple[str, Callable[[], dict[str, str]]]]:
        """The name of each case, and what runs it."""
        yield "inspection", self._inspect
        for name, changes in TRAININGS.items():
            if self._has(name):
                yield f"training, {name}", partial(self._train, name, changes)
        yield "training by the command line", self._train_by_command
        yield "cache", self._look_at_cache
        for name, settings in self._renders():
            yield f"image, {name}", partial(self._render, settings)
        yield "image, strip of weights", self._render_strip
        yield "image, block weights", self._render_blocks
        yield "image, previews", self._preview
        yield "image, bf16", self._render_bf16
        if self.name in SINGLE_FILES:
            yield "image, single file", self._render_single
        yield "downloads", self._export

    def _has(self, training: str) -> bool:
        if training == "zero terminal SNR":
            return self.name in PREDICT_V
        if training in SHAPES:
            return self.name != "starter"
        if training == "the other prediction":
            return self.name != "starter"  # it ends without a signal, so it cannot predict noise
        return training != "CLIP skip" or self.name != "sdxl"

    def _renders(self) -> Iterator[tuple[str, dict[str, Any]]]:
        from worker.core.words import SamplerName

        for sampler in SamplerName:
            yield sampler.label, {"sampler": sampler}
        yield from RENDERS.items()

    def _inspect(self) -> dict[str, str]:
        info = self._pipeline.base.info
        told = [info.family.value, str(info.prediction_type), str(info.resolution)]
        return {
            "facts": " ".join([*told, str(sum(info.parameters.values()))]),
            "fingerprint": info.fingerprint,
        }

    def _config(self, **changes: Any) -> Any:
        from worker.core.training.config import TrainConfig

        usual = {
            "steps": 3,
            "batch_size": 2,
            "resolution": SIDE,
            "rank": 2,
            "alpha": 2,
            "learning_rate": 1e-2,
            "precision": "fp32",
            "checkpoint_every": 2,
        }
        return TrainConfig.model_validate(usual | changes)

    @cached_property
    def _images(self) -> list[Any]:
        from worker.core.training.data.images import read_folder

        return read_folder(self.images)

    @cached_property
    def _loaded(self) -> Any:
        from worker.core.bases.load import load_base

        return load_base(self.path)

    def _train(self, name: str, changes: Mapping[str, Any]) -> dict[str, str]:
        from worker.core.training.train import train

        if name == "the other prediction":
            other = "epsilon" if self.name in PREDICT_V else "v_prediction"
            changes = {"prediction_type": other}
        recorder = Recorder()
        out = self.work / "trainings" / re.sub(r"\W+", "-", name)
        shared = {id(one): one for one in self._loaded.tokenizers}
        base = copy.deepcopy(self._loaded, shared)  # a training uses its base up
        cache = self.work / "cache"
        trained = train(
            self._config(**changes), self._images, recorder, base=base, out=out, cache=cache
        )
        assert trained.path is not None
        recorder.found["adapter"] = hash_tensors(trained.path.read_bytes())
        recorder.found["losses"] = hash_text("\n".join(recorder.losses))
        return recorder.found

    def _train_by_command(self) -> dict[str, str]:
        from worker.core.training.__main__ import main

        out = self.work / "command"
        words = ["--base-model", str(self.path), "--data", str(self.images), "--out", str(out)]
        words += ["--steps", "3", "--resolution", str(SIDE), "--threads", "1"]
        words += ["--precision", "fp32", "--device", "cpu"]
        with contextlib.redirect_stdout(io.StringIO()):
            status = main(words)
        if status:
            raise RuntimeError(f"the command ended with {status}")
        return {"adapter": hash_tensors((out / "adapter.safetensors").read_bytes())}

    def _look_at_cache(self) -> dict[str, str]:
        root = self.work / "cache"
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {
            "names": hash_text("\n".join(str(path.relative_to(root)) for path in files)),
            "contents": hash_bytes(*(path.read_bytes() for path in files)),
        }

    @cached_property
    def _pipeline(self) -> Any:
        from worker.core.inference.pipeline import ResidentPipeline

        return ResidentPipeline.load(self.path)

    @cached_property
    def _adapter(self) -> Any:
        """An adapter of all layers, with numbers that do not depend on a training."""
        import torch

        from worker.core.lora_files.canonical import load_adapter
        from worker.core.training.train import train

        out, generator = self.work / "layers", torch.Generator().manual_seed(4)
        config = self._config(steps=1, targets="all", train_text_encoder=True)
        base = copy.deepcopy(self._loaded, {id(one): one for one in self._loaded.tokenizers})
        trained = train(config, self._images, Recorder(), base=base, out=out, cache=None)
        assert trained.path is not None
        adapter = load_adapter(trained.path)
        modules = []
        for module in sorted(adapter.modules, key=lambda one: one.key):
            down = torch.randn(module.down.shape, generator=generator) / 8
            up = torch.randn(module.up.shape, generator=generator) / 20
            modules.append(replace(module, down=down, up=up))
        return replace(adapter, modules=tuple(modules))

    def _stack(self, *weights: float) -> list[Any]:
        from worker.core.lora_files.loaded import LoadedAdapter

        return [LoadedAdapter("made", self._adapter, *weights)]

    def _request(self, settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """A config, and the image to start from if it has a strength."""
        from PIL import Image

        from worker.core.inference.config import RenderConfig

        usual = {"prompt": "a red circle, chalk", "steps": 4, "seed": 5}
        config = RenderConfig.model_validate(usual | settings)
        source = Image.open(self.images / "0.png") if config.strength is not None else None
        return config, source

    def _render(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """The images with an adapter and without."""
        config, source = self._request(settings)
        found = {}
        for name, stack in (("plain", []), ("adapter", self._stack(0.8, 0.5))):
            self._pipeline.set_adapters(stack)
            found[name] = hash_rendered(self._pipeline.render(config, source=source))
        return found

    def _render_strip(self) -> dict[str, str]:
        config, _ = self._request({})
        stacks = [self._stack(weight) for weight in (-0.5, 0.0, 0.5, 1.0)]
        return {"images": hash_rendered(self._pipeline.render_weights(config, stacks))}

    def _render_blocks(self) -> dict[str, str]:
        from worker.core.lora_files.parts import Part

        config, _ = self._request({})
        factors = {Part.INPUT: 0.5, Part.MIDDLE: 2.0, Part.OUTPUT: 0.0}
        self._pipeline.set_adapters(
            [replace(one, block_weights=factors) for one in self._stack(1.0)]
        )
        return {"image": hash_rendered(self._pipeline.render(config))}

    def _preview(self) -> dict[str, str]:
        config, _ = self._request({"count": 2})
        shown: list[Any] = []
        self._pipeline.set_adapters([])
        self._pipeline.render(config, on_preview=lambda _, latents: shown.extend(latents))
        images = [self._pipeline.preview_image(latent) for latent in shown]
        return {
            "latents": hash_bytes(*(latent.numpy().tobytes() for latent in shown)),
            "images": hash_bytes(*(image.tobytes() for image in images)),
        }

    def _render_bf16(self) -> dict[str, str]:
        from worker.core.inference.pipeline import ResidentPipeline
        from worker.core.words import RenderPrecision

        config, _ = self._request({})
        pipeline = ResidentPipeline.load(self.path, precision=RenderPrecision.BF16)
        pipeline.set_adapters(self._stack(0.8))
        return {"image": hash_rendered(pipeline.render(config))}

    def _render_single(self) -> dict[str, str]:
        from worker.core.inference.pipeline import ResidentPipeline

        config, _ = self._request({"width": SIDE, "height": SIDE})
        pipeline = ResidentPipeline.load(self.path.with_suffix(".safetensors"))
        return {"image": hash_rendered(pipeline.render(config))}

    def _export(self) -> dict[str, str]:
        from datetime import UTC, datetime

        from worker.core.lora_files.export import export
        from worker.core.lora_files.metadata import AdapterMetadata
        from worker.core.words import FileFormat, WeightDtype

        info, found = self._pipeline.base.info, {}
        metadata = AdapterMetadata(
            title="Chalk",
            slug="chalk",
            family=info.family,
            created=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
            base_name=self.name,
            resolution=info.resolution,
            prediction_type=info.prediction_type,
            trigger_words=("chalk",),
            training_seconds=12.0,
            train_config={"rank": 2},
        )
        for format in FileFormat:
            for dtype in WeightDtype:
                path = self.work / f"{format}-{dtype}{format.suffix}"
                export(self._adapter, path, format=format, dtype=dtype, metadata=metadata)
                found[f"{format} {dtype}"] = hash_bytes(path.read_bytes())
        return found


def run_cases(shared: Path, work: Path, only: str) -> dict[str, dict[str, str]]:
    """Run the cases of this checkout; hashes by case and by what was made."""
    import torch

    import worker

    found = Path(worker.__file__ or "").parents[1]
    if found != Path.cwd():
        raise RuntimeError(f"{found} was imported instead of {Path.cwd()}")
    from worker.core.training.data import validation

    torch.set_num_threads(1)
    validation.FIXED_PREDICTIONS = 4  # of each measurement of the fixed images, to be quick
    results: dict[str, dict[str, str]] = {}
    for base in BASES:
        path = found / "worker/core/starter/weights" if base == "starter" else shared / base
        child = Child(base, path, shared / "images", work / base)
        for name, run in child.cases():
            case = f"{base}, {name}"
            if not re.search(only, case):
                continue
            try:
                results[case] = run()
            except Exception as error:
                traceback.print_exc()
                results[case] = {FAILED: repr(error)}
    return results


def hash_bytes(*contents: bytes) -> str:
    """A short hash of all of them."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:12]


def hash_text(text: str) -> str:
    """A short hash of a text."""
    return hash_bytes(text.encode())


def hash_tensors(content: bytes) -> str:
    """A short hash of the tensors of a file with their names, without the metadata."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)
    return hash_bytes(json.dumps(header, sort_keys=True).encode(), content[start:])


def hash_image_file(path: Path) -> str:
    """A short hash of the pixels of an image."""
    from PIL import Image

    with Image.open(path) as image:
        return hash_bytes(repr((image.size, image.mode)).encode(), image.tobytes())


def hash_rendered(images: Sequence[Any]) -> str:
    """A short hash of the pixels of images, their seeds and what was not read of their prompts."""
    told = [repr((one.image.size, one.seed, one.truncated)).encode() for one in images]
    return hash_bytes(*told, *(one.image.tobytes() for one in images))


# --- the parent


def write_bases(folder: Path) -> None:
    """Write the small bases that both checkouts read, as folders and single files."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from tests.worker.bases import tiny_models as tiny

    tiny.save_sd15(folder / "sd1", **tiny.SHALLOW_SD15)
    tiny.save_sd2(folder / "sd2", **tiny.SHALLOW_SD15)
    tiny.save_sdxl(folder / "sdxl", **tiny.SHALLOW_SDXL)
    clip, vae = CLIPTextModel(tiny.text_config()), tiny.autoencoder()
    big = CLIPTextModelWithProjection(tiny.text_config(hidden_act="gelu"))
    sd2_clip = CLIPTextModel(tiny.text_config(**tiny.SD2_TEXT))
    tiny.save_single(
        folder / "sd1.safetensors",
        unet=tiny.sd15_unet(),
        vae=vae,
        encoders={"cond_stage_model.transformer.": tiny.clip_to_ldm(clip)},
    )
    tiny.save_single(
        folder / "sd2.safetensors",
        unet=tiny.sd2_unet(),
        vae=vae,
        encoders={"cond_stage_model.model.": tiny.clip_to_open_clip(sd2_clip, extra_layer=True)},
    )
    tiny.save_single(
        folder / "sdxl.safetensors",
        unet=tiny.sdxl_unet(),
        vae=tiny.autoencoder(0.13025),
        encoders={
            "conditioner.embedders.0.transformer.": tiny.clip_to_ldm(clip),
            "conditioner.embedders.1.model.": tiny.clip_to_open_clip(big),
        },
    )


def write_images(folder: Path) -> None:
    """Write pictures of several shapes, one see-through and one for regularization."""
    from PIL import Image, ImageDraw

    folder.mkdir()
    lines = []
    for number, (caption, size) in enumerate(
        {
            "chalk, red circle, dark": (64, 64),
            "chalk, blue square, bright, small": (64, 64),
            "chalk, wide line, two colors": (96, 56),
            "chalk, half, a window, clear": (64, 64),
            "a photo, nothing": (64, 64),
        }.items()
    ):
        picture = Image.new("RGBA", size, (20 + 50 * number, 90, 60, 255))
        ImageDraw.Draw(picture).ellipse((10, 10, 40 + 5 * number, 44), fill=(250, 240, 200, 255))
        if number == 3:
            picture.paste((0, 0, 0, 0), (0, 0, 32, 64))
        picture.save(folder / f"{number}.png")
        line: dict[str, Any] = {"file_name": f"{number}.png", "text": caption}
        line |= {"never_flip": number == 1, "regularization": number == 4}
        lines.append(json.dumps(line | {"repeats": 1 + number % 2}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def run_in(checkout: Path, shared: Path, only: str) -> dict[str, dict[str, str]]:
    """The results of a checkout, from a process of its own."""
    variables = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as work:
        words = ["--child", str(shared), work, "--only", only]
        command = [sys.executable, "-P", str(Path(__file__).resolve()), *words]
        done = subprocess.run(
            command, cwd=checkout, env=variables, stdout=subprocess.PIPE, check=True
        )
    results: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    return results


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """What differs between the results of a case."""
    names = {FAILED} & (ours.keys() | theirs.keys()) or sorted(ours.keys() | theirs.keys())
    return [name for name in names if name == FAILED or ours.get(name) != theirs.get(name)]


def print_rows(theirs: Mapping[str, dict[str, str]], ours: Mapping[str, dict[str, str]]) -> bool:
    """Print a row for each case; true if all are equal."""
    cases = list(dict.fromkeys([*ours, *theirs]))
    equal = 0
    for case in cases:
        pair = theirs.get(case, {}), ours.get(case, {})
        names = differing(*reversed(pair))
        hashes = "  ".join(hash_text(json.dumps(one, sort_keys=True)) for one in pair)
        print(f"{case:<52}{hashes}  {'different: ' + ', '.join(names) if names else 'equal'}")
        equal += not names
    print(f"{equal} of {len(cases)} cases are equal")
    return equal == len(cases) > 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; 1 if a case differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="the other checkout")
    parser.add_argument("--only", default="", metavar="PATTERN", help="cases with this in the name")
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.child:
        with contextlib.redirect_stdout(sys.stderr):
            results = run_cases(*given.child, given.only)
        print(json.dumps(results))
        return 0
    if given.against is None:
        parser.error("--against is missing")
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder)
        write_bases(shared)
        write_images(shared / "images")
        here = Path(__file__).resolve().parents[1]
        theirs, ours = (
            run_in(checkout, shared, given.only) for checkout in (given.against.resolve(), here)
        )
    return int(not print_rows(theirs, ours))


if __name__ == "__main__":
    sys.exit(main())

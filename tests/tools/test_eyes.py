"""The build at a tiny size: a dozen subjects, a few steps."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tools.eyes import __main__ as build
from tools.eyes.dense import DenseLate
from tools.eyes.drawings import (
    Artwork,
    Drawing,
    Hand,
    UnseenHand,
    load_eyes_artwork,
    render_all,
)
from tools.eyes.evaluation import fit_scale, honesty
from tools.eyes.imagenet import folded, load_imagenet
from tools.eyes.looks import HELD_OUT, LOOKS, TRAINED, draw_looks, transform
from tools.eyes.training import (
    EyesRecipe,
    Trainer,
    early_features,
    fit_closed_form,
    late_features,
    split_drawings,
)
from tools.starter.artwork import ArtworkSet, ArtworkSubject
from worker.core.eyes.efficientnet import EyesHead
from worker.core.eyes.embedded import network_input
from worker.core.starter.examples import CHALKBOARD

TINY = EyesRecipe(
    minutes=0.0,
    first_images=32,
    kept_images=32,
    new_images=32,
    batch=8,
    held_out_drawings=2,
    dtype=torch.float32,
)
HANDS = {
    ArtworkSet.NOTO: Hand.NOTO,
    ArtworkSet.TWEMOJI: Hand.TWEMOJI,
    ArtworkSet.FLUENT: Hand.FLUENT,
}


@pytest.fixture(scope="module")
def artwork(subjects: list[ArtworkSubject]) -> Artwork:
    """Twelve subjects by three hands; a fourth hand's drawings stand for a style never seen."""
    drawings = [
        Drawing(index, HANDS[hand].value, svg)
        for index, subject in enumerate(subjects)
        for hand, svg in subject.drawings.items()
    ]
    unseen = [replace(each, hand=UnseenHand.OPENMOJI.value) for each in drawings[::3]]
    names = tuple(subject.name for subject in subjects)
    keywords = tuple(subject.keywords for subject in subjects)
    return Artwork(names, ((),) * len(names), keywords, tuple(drawings), tuple(unseen))


@pytest.fixture(scope="module")
def pixels(artwork: Artwork) -> torch.Tensor:
    return render_all(artwork.drawings)


def test_folding_and_dense_products_change_nothing() -> None:
    torch.manual_seed(0)
    network = load_imagenet().eval()
    plain = folded(network)
    images = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        expected = network(network_input(images))
        assert torch.allclose(plain(network_input(images)), expected, atol=1e-4)
        early = early_features(plain, images, torch.float32)
        late = late_features(DenseLate(plain, torch.float32), early)
    assert torch.allclose(late, expected, atol=1e-4)


def test_imagenet_weights_know_photos_of_nothing_but_are_not_random() -> None:
    """Their features of different images differ, and most are silent."""
    with torch.no_grad():
        features = load_imagenet().eval()(network_input(torch.rand(3, 3, 128, 128)))
    assert 0.2 < (features < 0.05).float().mean() < 0.98
    assert features.std() > 0.02


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_gives_images_that_differ_from_drawing_to_drawing(
    look: str, pixels: torch.Tensor
) -> None:
    torch.manual_seed(1)
    drawings = transform(pixels[:6].float() / 255, 64)
    images = draw_looks(drawings, [look])
    assert images.shape == (6, 3, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images.flatten(1).std(dim=1) > 0.01).all()
    assert len({image.numpy().tobytes() for image in images}) == 6


def test_the_looks_of_the_calibration_train_nothing() -> None:
    assert not set(HELD_OUT) & set(TRAINED)
    assert set(HELD_OUT) | set(TRAINED) == set(LOOKS)


def test_held_out_drawings_do_not_train_but_their_names_do(artwork: Artwork) -> None:
    more = replace(
        artwork,
        drawings=(*artwork.drawings, *(replace(d, hand="emojione") for d in artwork.drawings[:9])),
    )
    split = split_drawings(more, TINY)
    assert len(split.held_out) == 2
    assert not set(split.held_out.tolist()) & set(split.train.tolist())
    names = [more.drawings[index].name for index in split.held_out.tolist()]
    assert len(set(names)) == 2
    assert set(names) <= {more.drawings[index].name for index in split.train.tolist()}


def test_training_learns_and_resumes(
    artwork: Artwork, pixels: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "training.pt"
    trainer = Trainer(artwork, pixels, TINY)
    trainer._draw_new(TINY.first_images)  # no closed form, which knows these few by heart
    for _ in range(20):  # after ten, what is learned depends on the processor's rounding
        trainer._step(0.1)
    assert np.mean(trainer.losses[-3:]) < 0.8 * np.mean(trainer.losses[:3])
    trainer.seconds = 50.0
    trainer.save(checkpoint)

    resumed = Trainer(artwork, pixels, replace(TINY, late_rate=1e-5))
    resumed.run(checkpoint)
    assert "resumed after 0.8 minutes, step 20" in capsys.readouterr().out
    assert resumed.steps == 20
    assert resumed.optimizer.param_groups[0]["initial_lr"] == 1e-5
    for mine, other in zip(resumed.trained, trainer.trained, strict=True):
        assert torch.equal(mine, other)


def test_the_closed_form_names_what_it_was_fitted_to() -> None:
    torch.manual_seed(0)
    labels = torch.arange(5).repeat(30)
    features = torch.randn(5, 1280)[labels] + 0.5 * torch.randn(150, 1280)
    head = EyesHead(7)
    fit_closed_form(head, features, labels)
    assert (head(features).argmax(dim=1) == labels).float().mean() > 0.95


def test_the_build_writes_eyes_and_measures_them(
    artwork: Artwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = tmp_path / "examples"
    keep_example(examples, images=2)
    monkeypatch.setattr(build.starter, "__file__", str(examples / "__init__.py"))
    monkeypatch.setattr(build, "MEASURED", 6)
    monkeypatch.setattr(build, "VIEWS", 1)
    out = tmp_path / "weights" / "eyes.safetensors"
    eyes = build.build_eyes(artwork, replace(TINY, held_out_drawings=0), out, None)
    assert out.stat().st_size < 12_000_000
    assert eyes.names == artwork.names
    assert eyes.knows([artwork.names[0]]) == [True]
    report = build.evaluate(artwork, eyes, TINY, None)
    assert "| openmoji, a style never seen | 12 |" in report
    assert "| the example style in `chalkboard/` | 2 |" in report


def keep_example(folder: Path, *, images: int) -> None:
    """Copy an example style with its first images alone."""
    copy = folder / CHALKBOARD.key
    copy.mkdir(parents=True)
    lines = (CHALKBOARD.folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:images]
    for name in (json.loads(line)["file_name"] for line in lines):
        shutil.copy(CHALKBOARD.folder / name, copy)
    (copy / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")


def pack(folder: Path, package: str, members: dict[str, Any]) -> None:
    stem = package.removeprefix("@").replace("/", "-")
    with tarfile.open(folder / f"{stem}-1.0.0.tgz", "w:gz") as tarball:
        for member, content in members.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{member}")
            info.size = len(data)
            tarball.addfile(info, io.BytesIO(data))


def icons(slugs: Sequence[str]) -> dict[str, Any]:
    square = '<rect width="16" height="16" fill="#f00"/>'
    return {"icons": {slug: {"body": square} for slug in slugs}, "width": 16, "height": 16}


def test_names_need_two_hands_and_unseen_sets_are_found_by_other_names(tmp_path: Path) -> None:
    entries = [
        {
            "label": "red apple",
            "group": 4,
            "order": 2,
            "hexcode": "1F34E",
            "tags": ["fruit", "person"],
        },
        {"label": "dog", "group": 3, "order": 1, "hexcode": "1F415"},
        {"label": "only noto has it", "group": 3, "order": 3, "hexcode": "1"},
        {"label": "flag: France", "group": 9, "order": 4, "hexcode": "2"},
        {"label": "woman", "group": 1, "order": 5, "hexcode": "3"},
    ]
    codes = {"1F34E": "apple", "1F415": ["dog2", "hound"]}
    pack(tmp_path, "emojibase-data", {"en/data.json": entries, "en/shortcodes/github.json": codes})
    for hand in Hand:
        slugs = ["dog", "red-apple", "flag-france", "woman"] if "noto" in hand else ["dog"]
        slugs += ["only-noto-has-it"] if hand is Hand.NOTO else []
        pack(tmp_path, f"@iconify-json/{hand.value}", {"icons.json": icons(slugs)})
    for unseen in UnseenHand:
        pack(tmp_path, f"@iconify-json/{unseen.value}", {"icons.json": icons(["apple-1", "dog"])})
    artwork = load_eyes_artwork(tmp_path)
    assert artwork.names == ("dog", "red apple")
    assert artwork.aliases == (("dog2", "hound"), ("apple",))
    assert artwork.keywords == ((), ("fruit",))
    assert len(artwork.drawings) == 6 + 2
    assert len(artwork.unseen) == 2 * len(UnseenHand)


def test_drawings_are_rendered_once(artwork: Artwork, tmp_path: Path) -> None:
    cache = tmp_path / "drawings.npy"
    first = render_all(artwork.drawings[:2], cache)
    written = cache.stat().st_mtime_ns
    assert torch.equal(render_all(artwork.drawings[:2], cache), first)
    assert cache.stat().st_mtime_ns == written
    assert len(render_all(artwork.drawings[:3], cache)) == 3  # other artwork: rendered again


def test_the_scale_makes_confidence_honest() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, (4000, 6)).astype(np.float32)
    powers = np.exp(12 * cosines)
    labels = np.array([rng.choice(6, p=row / row.sum()) for row in powers])
    scale = fit_scale(cosines, labels)
    assert scale == pytest.approx(12, rel=0.1)
    shares = np.exp(scale * cosines) / np.exp(scale * cosines).sum(axis=1, keepdims=True)
    found = honesty(shares.max(axis=1), shares.argmax(axis=1) == labels)
    assert found.error < 0.03
    assert sum(count for _, _, count in found.bins) == 4000


def test_overconfident_eyes_are_found_out() -> None:
    found = honesty(np.full(100, 0.95), np.arange(100) < 50)
    assert found.error == pytest.approx(0.45)
    assert found.sure_from is None

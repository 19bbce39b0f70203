"""Local models of the real architectures caption images; what cannot is refused with the reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.worker.captioning.tiny_models import save_blip, save_florence2, save_wd_tagger
from worker.core.captioning.local import inspect
from worker.core.captioning.local.__main__ import open_local
from worker.core.captioning.local.inspect import UnusableModel, inspect_caption_model
from worker.core.captioning.local.wd_tagger import load_wd_tagger
from worker.core.captioning.words import CaptionFamily

RED = Image.new("RGBA", (60, 20), (255, 0, 0, 255))


@pytest.mark.parametrize(
    ("save", "family"),
    [(save_blip, CaptionFamily.BLIP), (save_florence2, CaptionFamily.FLORENCE2)],
)
def test_vision_language_models_write_a_sentence(
    save: object, family: CaptionFamily, tmp_path: Path
) -> None:
    folder = save(tmp_path)  # type: ignore[operator]
    assert inspect_caption_model(folder).family is family
    model = open_local(folder, title="Tiny", device="cpu")
    text = model.caption(RED, "ignored").text
    assert text
    assert model.caption(RED, "ignored").text == text
    assert model.title == "Tiny"


def test_a_tagger_writes_likely_tags_and_no_ratings(tmp_path: Path) -> None:
    tagger = open_local(save_wd_tagger(tmp_path), title="Tiny", device="cpu")
    assert tagger.caption(Image.new("RGB", (9, 9), (255, 0, 0)), "").text == "red theme, ^_^"
    assert tagger.caption(Image.new("L", (9, 9)), "").text == "^_^"


def test_an_image_is_seen_on_a_white_square(tmp_path: Path) -> None:
    tagger = open_local(save_wd_tagger(tmp_path), title="Tiny", device="cpu")
    narrow = Image.new("RGB", (30, 10))  # two thirds of its square are white
    assert tagger.caption(narrow, "").text == "red theme, blue theme, ^_^"


def test_a_folder_without_a_model_says_which_have_one(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match="Choose the folder of a BLIP"):
        inspect_caption_model(tmp_path)
    config = tmp_path / "config.json"
    for content, sentence in (
        ("{", "cannot be read"),
        ("[]", "type “None”"),
        (json.dumps({"model_type": "clip"}), "type “clip”"),
        (json.dumps({"model_type": "florence2", "auto_map": {"x": "y"}}), "florence-community"),
        (json.dumps({"model_type": "blip"}), "no model.safetensors"),
    ):
        config.write_text(content)
        with pytest.raises(UnusableModel, match=sentence):
            inspect_caption_model(tmp_path)


def test_damaged_models_say_so(tmp_path: Path) -> None:
    folder = save_wd_tagger(tmp_path / "tagger")
    (folder / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(UnusableModel, match="“Tiny” cannot be opened"):
        open_local(folder, title="Tiny", device="cpu")
    blip = save_blip(tmp_path / "blip")
    (blip / "tokenizer.json").write_bytes(b"nothing")
    with pytest.raises(UnusableModel, match="“Tiny” cannot be opened"):
        open_local(blip, title="Tiny", device="cpu")


def test_weights_that_are_pickles_or_cut_off_are_refused(tmp_path: Path) -> None:
    folder = save_blip(tmp_path)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(UnusableModel, match=r"model\.safetensors: .*Get the model again"):
        inspect_caption_model(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UnusableModel, match="only PyTorch pickles, which can run code"):
        inspect_caption_model(folder)


def test_weights_in_several_files_are_all_looked_at(tmp_path: Path) -> None:
    folder = save_blip(tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = folder / "model.safetensors.index.json"
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index.write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(UnusableModel, match=r"model-00002-of-00002\.safetensors: The file"):
        inspect_caption_model(folder)
    index.write_text("{}")
    with pytest.raises(UnusableModel, match="names no files"):
        inspect_caption_model(folder)
    for strange in (["x"], {}, 1):
        index.write_text(json.dumps({"weight_map": shards | {"c": strange}}))
        with pytest.raises(UnusableModel, match="Get the model again"):
            inspect_caption_model(folder)
    index.write_text("[" * 100_000)
    with pytest.raises(UnusableModel, match=r"index\.json of .* cannot be read"):
        inspect_caption_model(folder)
    index.write_text(json.dumps({"weight_map": {"a": shards["a"]}}))
    assert inspect_caption_model(folder).family is CaptionFamily.BLIP


def test_without_onnxruntime_a_tagger_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_wd_tagger(tmp_path)
    monkeypatch.setattr(inspect, "find_spec", lambda name: None)
    with pytest.raises(UnusableModel, match=r"pip install 'brushwork\[tagger\]'.*check the model"):
        inspect_caption_model(folder)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnusableModel, match="need onnxruntime"):
        load_wd_tagger(folder, title="Tiny", device="cpu")

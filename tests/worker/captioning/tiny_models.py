"""Captioning models of the real architectures with random weights, in the files of the Hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BartConfig,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig

SIDE = 32
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "<image>", *"abcdefghijklmnopqrst"]
SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16}


def save_blip(folder: Path) -> Path:
    """A BLIP of one layer."""
    torch.manual_seed(0)
    text = SMALL | {
        "vocab_size": len(WORDS),
        "intermediate_size": 32,
        "encoder_hidden_size": 16,
        "max_position_embeddings": 200,
        "pad_token_id": 0,
        "bos_token_id": 5,
        "eos_token_id": 2,
        "sep_token_id": 3,
    }
    vision = SMALL | {"intermediate_size": 32, "image_size": SIDE, "patch_size": 16}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    BlipProcessor(images, _tokenizer()).save_pretrained(folder)
    return folder


def save_florence2(folder: Path) -> Path:
    """A Florence-2 whose vision tower has one block a stage."""
    torch.manual_seed(0)
    vision = Florence2VisionConfig(
        depths=(1, 1),
        patch_size=(7, 3),
        patch_stride=(4, 2),
        patch_padding=(3, 1),
        patch_prenorm=(False, True),
        embed_dim=(8, 16),
        num_heads=(2, 2),
        num_groups=(2, 2),
        window_size=4,
        projection_dim=16,
        max_temporal_embeddings=4,
        max_position_embeddings=8,
    )
    text = BartConfig(
        vocab_size=len(WORDS),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
        forced_eos_token_id=3,
    )
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=6)
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    side = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size=side, crop_size=side, do_center_crop=False)
    images.image_seq_length = (SIDE // 8) ** 2 + 1
    tokenizer = _tokenizer(image_token="<image>", extra_special_tokens={"image_token": "<image>"})
    Florence2Processor(images, tokenizer).save_pretrained(folder)
    return folder


def _tokenizer(**options: object) -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        **options,
    )


TAGS = """tag_id,name,category,count
1,general,9,9
2,red_theme,0,5
3,^_^,0,4
4,fox_spirit,4,3
5,blue_theme,0,2
"""


def save_wd_tagger(folder: Path) -> Path:
    """A tagger whose tags are the mean of the red and blue channels: red is likely in red images.

    Probabilities: general 0.5, red_theme R, ^_^ 0.5, fox_spirit 0.5, blue_theme B.
    """
    scale = 8 / 255
    weight = np.zeros((3, 5), dtype=np.float32)
    weight[2, 1] = weight[0, 4] = scale  # the input is BGR
    bias = np.array([0, -4, 0, 0, -4], dtype=np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["shares"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    (folder / "selected_tags.csv").write_text(TAGS, encoding="utf-8")
    return folder

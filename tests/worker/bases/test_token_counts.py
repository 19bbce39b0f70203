import pytest

from worker.core import starter
from worker.core.bases.token_counts import CLIP_LIMIT, clip_counter, starter_counter
from worker.core.bases.tokenizer import clip_tokenizer, read_tokenizer

TEXTS = [
    "",
    "a house by the sea, ink",
    "It's 1,234 «Zürcher»  café — 東京 🎨🎨!!",
    "don't\tstop… won't; O'Neill's",
    "antidisestablishmentarianism " * 40,
    "<|endoftext|> a",
]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_counted_as_the_tokenizers_of_base_models_do(text: str) -> None:
    clip = clip_tokenizer(length=77, pad="<|endoftext|>")
    assert clip_counter().count(text) == len(clip(text, add_special_tokens=False).input_ids)
    own = read_tokenizer(starter.PATH / "tokenizer")
    assert starter_counter().count(text) == len(own(text, add_special_tokens=False).input_ids)


def test_the_limit_is_what_the_encoder_reads() -> None:
    assert CLIP_LIMIT == 75
    own = read_tokenizer(starter.PATH / "tokenizer")
    longest = own("boat " * 60, truncation=True).input_ids
    assert len(set(longest)) == 3  # start, boat, end
    assert longest.count(longest[1]) == starter_counter().limit

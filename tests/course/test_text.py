"""The tokenizer: words, the vocabulary, and padded batches."""

import pytest
import torch

from helpers.text import PADDING, UNKNOWN, WordTokenizer, split_words

CAPTIONS = ["A red circle.", "a red square", "a Blue circle, left of a red square!"]


def test_english_words_and_chinese_characters_are_split() -> None:
    assert split_words("A dog's ball, 2 cats!") == ["a", "dog's", "ball", "2", "cats"]
    assert split_words("红色 circle 圆") == ["红", "色", "circle", "圆"]


def test_vocabulary_is_sorted_by_count_and_does_not_depend_on_order() -> None:
    tokenizer = WordTokenizer.build(CAPTIONS)
    assert tokenizer.vocabulary == ["<padding>", "<unknown>", "a", "red", "circle", "square", "blue", "left", "of"]
    assert WordTokenizer.build(reversed(CAPTIONS)).vocabulary == tokenizer.vocabulary
    assert tokenizer.max_length == 8
    assert WordTokenizer.build(CAPTIONS, min_count=2).vocabulary[2:] == ["a", "red", "circle", "square"]


def test_batch_is_padded_and_unknown_words_share_one_id() -> None:
    tokenizer = WordTokenizer.build(CAPTIONS)
    token_ids, padding = tokenizer(["a red circle", "a purple zebra in a square"])
    assert token_ids.tolist() == [[2, 3, 4, 0, 0, 0], [2, UNKNOWN, UNKNOWN, UNKNOWN, 2, 5]]
    assert torch.equal(padding, token_ids == PADDING)
    assert tokenizer.decode(token_ids[0].tolist()) == "a red circle"


def test_long_texts_are_cut_and_texts_without_words_are_unknown() -> None:
    tokenizer = WordTokenizer.build(CAPTIONS, max_length=2)
    assert tokenizer(["a red circle", "!!!"])[0].tolist() == [[2, 3], [UNKNOWN, PADDING]]


def test_vocabulary_needs_words() -> None:
    with pytest.raises(ValueError, match="not contain a single word"):
        WordTokenizer.build(["...", "!"])
    with pytest.raises(ValueError, match="begins with"):
        WordTokenizer(["a", "b"], 3)

"""Words to token ids: a tokenizer small enough to read in a minute."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from helpers.files import InputError

PADDING, UNKNOWN = 0, 1
# A word is a run of letters and digits. Chinese is written without spaces, so each Chinese character is one word.
WORD = re.compile(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+(?:'[^\W_\u4e00-\u9fff]+)*")


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words, without punctuation.

    >>> split_words("A small, red circle!")
    ['a', 'small', 'red', 'circle']
    """
    return WORD.findall(text.lower())


class WordTokenizer:
    """Convert texts to rows of token ids and back, with a fixed vocabulary.

    Id 0 is padding and id 1 is every word outside the vocabulary. Texts longer than ``max_length`` words are cut.
    """

    def __init__(self, vocabulary: Sequence[str], max_length: int) -> None:
        if list(vocabulary[:2]) != ["<padding>", "<unknown>"]:
            raise InputError("a vocabulary begins with '<padding>' and '<unknown>'; make one with WordTokenizer.build")
        self.vocabulary = list(vocabulary)
        self.max_length = max_length
        self.id_of = {word: index for index, word in enumerate(self.vocabulary)}

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1, max_length: int = 32) -> "WordTokenizer":
        """Build a tokenizer from training captions only: a word that first occurs in the test set must be unknown.

        Words that occur fewer than ``min_count`` times are left out, so that training meets unknown words too. The
        maximum length is the number of words of the longest caption, at most ``max_length``.
        """
        captions_in_words = [split_words(caption) for caption in captions]
        counts = Counter(word for words in captions_in_words for word in words)
        if not counts:
            raise InputError("these captions do not contain a single word; a vocabulary needs at least one")
        # Most frequent first, ties in alphabetical order, so that the ids do not depend on the order of the captions.
        words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        longest = max(map(len, captions_in_words))
        return cls(["<padding>", "<unknown>", *words], min(longest, max_length))

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Convert one text to token ids. A text without words becomes one unknown word, never only padding."""
        ids = [self.id_of.get(word, UNKNOWN) for word in split_words(text)]
        return ids[: self.max_length] or [UNKNOWN]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Convert token ids back to words, without the padding."""
        return " ".join(self.vocabulary[index] for index in token_ids if index != PADDING)

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Convert texts to ``token_ids`` and ``padding``, True where there is no word: ``[batch, longest]`` each."""
        rows = [self.encode(text) for text in texts]
        length = max((len(row) for row in rows), default=0)
        token_ids = torch.tensor([row + [PADDING] * (length - len(row)) for row in rows], dtype=torch.long)
        return token_ids, token_ids == PADDING

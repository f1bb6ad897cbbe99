"""Words to token ids: a tokenizer small enough to read in a minute."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

PADDING, UNKNOWN = 0, 1
# A word is a run of letters and digits. Chinese is written without spaces, so there each character counts as a word.
WORD = re.compile(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+(?:'[^\W_\u4e00-\u9fff]+)*")


def split_words(text: str) -> list[str]:
    """Lower-case words of a text, punctuation left out.

    >>> split_words("A small, red circle!")
    ['a', 'small', 'red', 'circle']
    """
    return WORD.findall(text.lower())


class WordTokenizer:
    """Texts to rows of token ids and back, over a fixed vocabulary.

    Id 0 is padding and id 1 stands for every word that is not in the vocabulary. Texts longer than ``max_length`` words
    are cut there.
    """

    def __init__(self, vocabulary: Sequence[str], max_length: int) -> None:
        if list(vocabulary[:2]) != ["<padding>", "<unknown>"]:
            raise ValueError("a vocabulary begins with '<padding>' and '<unknown>'; make one with WordTokenizer.build")
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1 word, not {max_length}")
        self.vocabulary = list(vocabulary)
        self.max_length = max_length
        self.id_of = {word: index for index, word in enumerate(self.vocabulary)}

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1, max_length: int = 32) -> "WordTokenizer":
        """A tokenizer for these captions. Pass training captions only: a word seen first at test must be unknown.

        Args:
            captions: the training captions.
            min_count: rarer words are left out, so that the unknown word is met in training too.
            max_length: in words; if the longest caption is shorter, its length is taken instead.

        Raises:
            ValueError: if no caption has a word in it.
        """
        split = [split_words(caption) for caption in captions]
        counts = Counter(word for words in split for word in words)
        if not counts:
            raise ValueError("there is no word in these captions; a vocabulary needs at least one")
        # Most frequent first, ties in alphabetical order, so that the ids do not depend on the order of the captions.
        words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        longest = max(len(words_of_caption) for words_of_caption in split)
        return cls(["<padding>", "<unknown>", *words], min(longest, max_length))

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, at least one, so that no text is only padding."""
        ids = [self.id_of.get(word, UNKNOWN) for word in split_words(text)]
        return ids[: self.max_length] or [UNKNOWN]

    def decode(self, token_ids: Iterable[int]) -> str:
        """The words of token ids, padding left out."""
        return " ".join(self.vocabulary[index] for index in token_ids if index != PADDING)

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts to ``token_ids`` int64 ``[batch, length]`` and ``padding`` bool, same shape, True without a word.

        ``length`` is that of the longest text of the batch, ``max_length`` at most.
        """
        rows = [self.encode(text) for text in texts]
        length = max((len(row) for row in rows), default=0)
        token_ids = torch.tensor([row + [PADDING] * (length - len(row)) for row in rows], dtype=torch.long)
        return token_ids, token_ids == PADDING

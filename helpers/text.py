"""Words to token ids: a tokenizer small enough to read in a minute."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import regex
import torch
from torch import Tensor

from helpers.files import InputError

PADDING, UNKNOWN = 0, 1
# A word is a run of letters, their marks and digits. Chinese is written without spaces, so each character is one word.
LETTERS = r"[\p{L}\p{N}--\p{Han}][\p{L}\p{M}\p{N}--\p{Han}]*"
WORD = regex.compile(rf"\p{{Han}}|{LETTERS}(?:'{LETTERS})*", regex.V1)
INVISIBLE = regex.compile("[\u00ad\u200c\u200d\u2060\ufe0e\ufe0f]")  # soft hyphens, joiners, variants of emoji
RARE = SHARED = 0.1  # shares of words that occur once, and of images without a caption of their own


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words, without punctuation; different spellings in Unicode become one."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", INVISIBLE.sub("", text.replace("\u2019", "'")).casefold())
    return WORD.findall(text.casefold())


class WordTokenizer:
    """Convert texts to token ids: 0 is padding, 1 an unknown word. Texts of more than ``max_length`` words are cut."""

    def __init__(self, vocabulary: Sequence[str], max_length: int) -> None:
        if list(vocabulary[:2]) != ["<padding>", "<unknown>"]:
            raise InputError("a vocabulary begins with '<padding>' and '<unknown>'; make one with WordTokenizer.build")
        self.vocabulary = list(vocabulary)
        self.max_length = max_length
        self.id_of = {word: index for index, word in enumerate(self.vocabulary)}

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1, max_length: int = 32) -> "WordTokenizer":
        """Build a tokenizer from training captions only: a word that first occurs in the test set must be unknown."""
        captions_in_words = [split_words(caption) for caption in captions]
        counts = Counter(word for words in captions_in_words for word in words)
        if not counts:
            raise InputError("these captions do not contain a single word; a vocabulary needs at least one")
        # Most frequent first, ties in alphabetical order, so that the ids do not depend on the order of the captions.
        # Rare words can be left out, so that training meets unknown words too.
        words = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        longest = max(map(len, captions_in_words))
        return cls(["<padding>", "<unknown>", *words], min(longest, max_length))

    @classmethod
    def fit(cls, captions: Sequence[Sequence[str]]) -> tuple["WordTokenizer", list[str]]:
        """Build a run's tokenizer from the captions of each image; also return :func:`caption_problems`.

        With over 1,000 captions, words that occur once are left out, unless they are a tenth of the text.
        """
        texts = list(chain.from_iterable(captions))
        counts = Counter(chain.from_iterable(map(split_words, texts)))
        rare = sum(count == 1 for count in counts.values()) / max(1, counts.total())
        tokenizer = cls.build(texts, min_count=2 if len(texts) > 1000 and rare < RARE else 1)
        remarks = caption_problems(tokenizer, captions)
        if rare >= RARE and len(texts) > 1000:
            remarks.append(f"{rare:.0%} of all words occur only once; the vocabulary of {len(tokenizer):,} keeps them")
        return tokenizer, remarks

    def __len__(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Convert one text to token ids; a text without words becomes one unknown word."""
        ids = [self.id_of.get(word, UNKNOWN) for word in split_words(text)]
        return ids[: self.max_length] or [UNKNOWN]

    def decode(self, token_ids: Iterable[int]) -> str:
        return " ".join(self.vocabulary[index] for index in token_ids if index != PADDING)

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Convert texts to ``token_ids`` and ``padding``, True where there is not a word: ``[batch, longest]`` each."""
        rows = [self.encode(text) for text in texts]
        length = max((len(row) for row in rows), default=0)
        token_ids = torch.tensor([row + [PADDING] * (length - len(row)) for row in rows], dtype=torch.long)
        return token_ids, token_ids == PADDING


def caption_problems(tokenizer: WordTokenizer, captions: Sequence[Sequence[str]]) -> list[str]:
    """List what a model cannot learn from the captions of each image: one sentence per kind of problem."""
    texts = list(chain.from_iterable(captions))
    words = {text: tuple(split_words(text)) for text in texts}
    images_with = Counter(chain.from_iterable({words[text] for text in own} for own in captions))
    shared = sum(all(words[text] and images_with[words[text]] > 1 for text in own) for own in captions)
    long = [text for text in texts if len(words[text]) > tokenizer.max_length]
    wordless = [text for text in texts if not words[text]]
    unknown = [text for text in texts if words[text] and not tokenizer.id_of.keys() & words[text]]
    kinds = [(long, f"more than {tokenizer.max_length} words; what follows is cut off")]
    kinds.append((wordless, "no word, so they are all the same to the model"))
    kinds.append((unknown, "only unknown words, so they are all the same to the model"))
    lines = [f"{len(own):,} of {len(texts):,} captions have {what}: {own[0][:60]!r}" for own, what in kinds if own]
    if shared > SHARED * len(captions):
        which = f"{shared:,} of {len(captions):,} images share every caption with another image"
        lines.append(f"{which}; no model can tell these captions apart, and the loss cannot reach 0")
    return lines

"""Pairs on disk to batches: the dataset, the loader, and the batches that the encoders take."""

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from helpers.augmentation import Augmentation, resize
from helpers.files import DATA as DATA  # for the lessons
from helpers.files import InputError
from helpers.scale.distributed import rank_slice
from helpers.sources.cache import decoded
from helpers.sources.coco import read_captions as read_captions
from helpers.sources.images import read_square
from helpers.text import WordTokenizer, split_words

SHARED_MEMORY = Path("/dev/shm")  # on Linux, what workers pass their batches through
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Paths = Sequence[Path | str]
Texts = Sequence[str | Sequence[str]]  # for each image, a caption or a list of captions


def normalize(pixels: Tensor) -> Tensor:
    """Subtract ImageNet's mean from pixels uint8 ``[..., 3, height, width]`` and divide by its standard deviation."""
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]  # [3, 1, 1]
    std = torch.tensor(IMAGENET_STD)[:, None, None]  # [3, 1, 1]
    # (x / 255 - mean) / std = x / (255 std) - mean / std, in one multiplication and one subtraction
    return pixels.float().mul_(1 / (255 * std)).sub_(mean / std)


class ImageTextDataset(Dataset):
    """Pairs of an image and a text, which is a caption or a list of captions; each epoch samples one, or several.

    ``dataset[i]`` is ``{"image": float [3, size, size], "text": str, "image_id": int}``: RGB, resized to a square of
    ``image_size`` pixels (one of several sizes for each batch), normalised with ImageNet's mean and standard deviation.
    Rows with the same file have the same ``image_id``. With several ``captions_per_image``, a longer caption is
    sampled more often, and further captions of an image are its ``further_texts``. All randomness depends on the
    seed, the epoch and the row only; call :meth:`set_epoch` before each epoch.
    """

    def __init__(
        self,
        image_paths: Paths,
        texts: Texts,
        image_size: int | Sequence[int] = 224,
        seed: int = 0,
        augment: Augmentation | None = None,
        captions_per_image: int = 1,
    ) -> None:
        self.image_sizes = (image_size,) if isinstance(image_size, int) else tuple(image_size)
        if not self.image_sizes or not all(isinstance(size, int) and size >= 1 for size in self.image_sizes):
            raise InputError(f"image_size must be a whole number of pixels >= 1, or a list of them, not {image_size!r}")
        check_pairs(image_paths, texts)
        self.image_size = max(self.image_sizes)
        self.image_paths = [Path(path) for path in image_paths]
        self.captions = [[text] if isinstance(text, str) else list(text) for text in texts]
        first_row: dict[Path, int] = {}
        self.image_ids = [first_row.setdefault(path, row) for row, path in enumerate(self.image_paths)]
        self.seed, self.augment, self.captions_per_image = seed, augment, captions_per_image
        self._epoch = torch.zeros(1, dtype=torch.long).share_memory_()  # shared with workers that are already running
        self._cache_file: str | None = None
        self._cache: np.ndarray | None = None  # the file, mapped into memory

    def set_epoch(self, epoch: int) -> None:
        """Choose the captions and augmentations of this epoch, also in workers that are already running."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return len(self.image_paths)

    def __getitem__(self, row: int) -> dict:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict]:
        """The items of a batch, made together; the DataLoader calls this, which is faster than item by item."""
        batch = self.batch(rows)
        items = []
        for image, texts, image_id in zip(batch["images"], batch["texts"], batch["image_ids"], strict=True):
            further = {"further_texts": texts[1:]} if len(texts) > 1 else {}
            items.append({"image": image, "text": texts[0], "image_id": image_id} | further)
        return items

    def batch(self, rows: Sequence[int]) -> dict:
        """``{"images": float [batch, 3, size, size], "texts": for each row its captions, "image_ids": list[int]}``."""
        rows = [range(len(self))[row] for row in rows]  # supports negative rows and raises IndexError
        pixels = self._pixels(rows)  # uint8 [batch, 3, image_size, image_size]
        texts = [self.sample_captions(row) for row in rows]
        size = self._random(rows[0], "size").choice(self.image_sizes)
        if self.augment is None:
            pixels = resize(pixels, size)
        else:
            changed = [
                self.augment(image, captions, size, self._random(row, "augmentation"))
                for image, captions, row in zip(pixels, texts, rows, strict=True)
            ]
            pixels, texts = torch.stack([image for image, _ in changed]), [captions for _, captions in changed]
        return {"images": normalize(pixels), "texts": texts, "image_ids": [self.image_ids[row] for row in rows]}

    def decode(self, row: int) -> Tensor:
        """The pixels of an image, uint8 ``[3, image_size, image_size]``."""
        return torch.from_numpy(np.array(read_square(self.image_paths[row], self.image_size))).permute(2, 0, 1)

    def use_cache(self, folder: Path | str | None = None) -> None:
        """Decode every image once, into a file in ``folder`` (default ``data/cache``), or use an earlier one."""
        rows = sorted(set(self.image_ids))
        self._cache_file = decoded([self.image_paths[row] for row in rows], self.image_size, folder).filename
        self._cache_rows, self._cache = np.searchsorted(rows, self.image_ids), None

    def sample_captions(self, row: int) -> list[str]:
        """The ``captions_per_image`` captions of this row in this epoch, before any augmentation."""
        captions = self.captions[row]
        if len(captions) == 1:
            return captions * self.captions_per_image
        generator = self._random(row)
        if self.captions_per_image == 1:
            return [generator.choice(captions)]
        # Efraimidis and Spirakis, 2006: sorting by random ** (1 / weight) samples by weight without replacement. Here
        # the weight is the square of the number of words, since a longer caption says more of its image.
        keys = [generator.random() ** (1 / max(1, len(split_words(caption))) ** 2) for caption in captions]
        ranked = [caption for _, caption in sorted(zip(keys, captions, strict=True), reverse=True)]
        return [ranked[number % len(ranked)] for number in range(self.captions_per_image)]

    def _random(self, row: int, *purpose: str) -> random.Random:
        return random.Random("/".join(map(str, (self.seed, int(self._epoch), row, *purpose))))

    def _pixels(self, rows: Sequence[int]) -> Tensor:
        if self._cache_file is None:
            return torch.stack([self.decode(row) for row in rows])
        if self._cache is None:
            self._cache = np.load(self._cache_file, mmap_mode="r")  # [images, 3, image_size, image_size]
        return torch.from_numpy(self._cache[self._cache_rows[rows]])

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_cache": None}  # a spawned worker maps the file again


def check_pairs(image_paths: Paths, texts: Texts) -> None:
    """Raise ``InputError`` if images and texts are not pairs, a file is missing, or a caption is empty."""
    if isinstance(texts, str):
        raise InputError("texts must be a list with one entry per image, not one string")
    if len(image_paths) != len(texts):
        raise InputError(f"image_paths and texts must be pairs: got {len(image_paths)} images and {len(texts)} texts")
    if len(image_paths) == 0:
        raise InputError("there are no pairs; give at least one image with its text")
    missing = [path for path in image_paths if not Path(path).is_file()]
    if missing:
        raise InputError(f"{len(missing)} of {len(image_paths)} image files are missing; check {missing[0]}")
    for row, (path, text) in enumerate(zip(image_paths, texts, strict=True)):
        captions = [text] if isinstance(text, str) else text
        if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
            raise InputError(f"text {row} (of {Path(path).name}) has an empty caption, {text!r}; write one")


class Collate:
    """Turn items of the dataset into a batch: images stacked, texts tokenized.

    A batch is ``{"images": [B, 3, H, W], "token_ids": [B, L], "padding": bool [B, L], "texts", "image_ids": [B]}``;
    ``further_texts`` has ``{"token_ids", "padding", "texts"}`` of the second captions, of the third, and so on.
    """

    def __init__(self, tokenizer: WordTokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, items: Sequence[dict]) -> dict:
        texts = [[item["text"], *item.get("further_texts", ())] for item in items]
        first, *further = zip(*texts, strict=True)  # the first captions of all images, the second ones, and so on
        batch = {
            "images": torch.stack([item["image"] for item in items]),
            **self.tokenized(first),
            "image_ids": torch.tensor([item["image_id"] for item in items]),
        }
        return batch | ({"further_texts": [self.tokenized(texts) for texts in further]} if further else {})

    def tokenized(self, texts: Sequence[str]) -> dict:
        token_ids, padding = self.tokenizer(texts)
        return {"token_ids": token_ids, "padding": padding, "texts": list(texts)}


class EpochBatches(Sampler[list[int]]):
    """Batches of row numbers, shuffled for each epoch from the seed and the epoch alone.

    Rows left over at the end of an epoch are dropped, so that every batch has the same number of negatives. A set
    smaller than one batch makes one batch. ``batch_size`` counts the rows of all ``ranks``; each gets its own part.
    """

    def __init__(self, rows: int, batch_size: int, seed: int = 0, rank: int = 0, ranks: int = 1) -> None:
        self.rows, self.batch_size, self.seed, self.rank, self.ranks = rows, min(batch_size, rows), seed, rank, ranks
        rank_slice(range(self.batch_size), rank, ranks)  # refuses a batch that cannot be shared equally
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the order; a resumed run continues at ``first_batch`` of the epoch in which it was stopped."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        return self.rows // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self.rows))
        random.Random(f"{self.seed}/{self.epoch}").shuffle(order)
        for number in range(self.first_batch, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield rank_slice(batch, self.rank, self.ranks)


def make_loader(
    dataset: ImageTextDataset,
    tokenizer: WordTokenizer,
    batch_size: int,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
) -> DataLoader:
    """Shuffled training batches. Call ``set_epoch`` on the dataset and on ``batch_sampler`` before each epoch."""
    batches = EpochBatches(len(dataset), batch_size, seed, rank, ranks)
    # Each worker keeps two batches of float32 ready; one that finds no room for them would wait for ever.
    needed = 2 * workers * 4 * 3 * dataset.image_size**2 * batches.batch_size // ranks
    if workers and SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free < needed:
        hint = "use fewer workers or smaller batches, or start Docker with --shm-size=2g"
        raise InputError(f"{workers} workers need {needed / 1e6:,.0f} MB in {SHARED_MEMORY}, and less is free; {hint}")
    return DataLoader(dataset, batch_sampler=batches, collate_fn=Collate(tokenizer), num_workers=workers)


def captions_by_image(captions: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """All captions in one list, and for each the row of its image, int64 ``[captions]``."""
    all_captions = [caption for image_captions in captions for caption in image_captions]
    image_of_caption = [row for row, image_captions in enumerate(captions) for _ in image_captions]
    return all_captions, torch.tensor(image_of_caption, dtype=torch.long)

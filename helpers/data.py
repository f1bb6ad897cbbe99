"""Pairs on disk to batches: the dataset, the loader, and the batches that the encoders take."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

# Where pairs lie and how they are read belongs to this page too.
from helpers.annotations import DATA as DATA
from helpers.annotations import read_captions as read_captions
from helpers.command_line import InputError
from helpers.text import WordTokenizer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(pixels: Tensor) -> Tensor:
    """Pixels uint8 ``[..., 3, height, width]`` to float, less ImageNet's mean and divided by its standard deviation.

    The same as torchvision's ``normalize``, whose import alone takes longer than many of the course's commands.
    """
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))  # [3, 1, 1]
    return pixels.float().div_(255).sub_(mean).div_(std)


class ImageTextDataset(Dataset):
    """Pairs of an image and a text, ready for the encoders but for the tokenizer.

    ``dataset[i]`` is ``{"image": float [3, size, size], "text": str, "image_id": int}``: RGB, resized to a square of
    ``image_size`` pixels, normalised with ImageNet's mean and standard deviation. Rows that share an image file
    share an ``image_id``.

    Where an image has several captions, each epoch draws one of them, from the seed, the epoch and the row alone: the
    same with any number of workers. Call :meth:`set_epoch` before each epoch.
    """

    def __init__(
        self,
        image_paths: Sequence[Path | str],
        texts: Sequence[str | Sequence[str]],
        image_size: int = 224,
        seed: int = 0,
    ) -> None:
        """
        Args:
            image_paths: a file an image.
            texts: for each image its caption, or the list of its captions.
            image_size: side of the square, in pixels.
            seed: fixes which captions are drawn.

        Raises:
            InputError: if the lengths differ, a file is missing, a caption is empty, or there are no pairs.
        """
        if isinstance(texts, str):
            raise InputError("texts must be a list with one entry an image, not one string")
        if len(image_paths) != len(texts):
            raise InputError(
                f"image_paths and texts must be pairs: got {len(image_paths)} images and {len(texts)} texts"
            )
        if len(image_paths) == 0:
            raise InputError("there are no pairs; give at least one image with its text")
        if image_size < 1:
            raise InputError(f"image_size must be at least 1 pixel, not {image_size}")
        self.image_paths = [Path(path) for path in image_paths]
        missing = [path for path in self.image_paths if not path.is_file()]
        if missing:
            raise InputError(f"{len(missing)} of {len(image_paths)} image files are missing, first {missing[0]}")
        self.captions = [[text] if isinstance(text, str) else list(text) for text in texts]
        for index, captions in enumerate(self.captions):
            if not captions or not all(isinstance(caption, str) and caption.strip() for caption in captions):
                raise InputError(f"text {index} (of {self.image_paths[index].name}) has an empty caption: {captions!r}")
        first_row: dict[Path, int] = {}
        self.image_ids = [first_row.setdefault(path, index) for index, path in enumerate(self.image_paths)]
        self.image_size = image_size
        self.seed = seed
        # Shared memory, so that workers which live through several epochs see the epoch change.
        self._epoch = torch.zeros(1, dtype=torch.long).share_memory_()
        self._pixels: Tensor | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the captions of this epoch, here and in running workers."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return len(self.image_paths)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """The items of a whole batch, which a DataLoader asks for when it can: normalised together, that is faster."""
        # Indexing a range counts from the end where asked to, and refuses what is out of range.
        indices = [range(len(self))[index] for index in indices]
        pixels = self._pixels[indices] if self._pixels is not None else torch.stack([self.decode(i) for i in indices])
        images = normalize(pixels)  # [batch, 3, size, size]
        return [
            {"image": image, "text": self.draw_caption(index), "image_id": self.image_ids[index]}
            for image, index in zip(images, indices, strict=True)
        ]

    def decode(self, index: int) -> Tensor:
        """The pixels of an image, uint8 ``[3, image_size, image_size]``.

        Raises:
            InputError: if the file is no image, or a broken one.
        """
        path = self.image_paths[index]
        try:
            with Image.open(path) as image:
                image = ImageOps.exif_transpose(image).convert("RGB")  # phones store a turned picture with a note
                image = image.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"cannot read the image {path} ({error}); replace the file or remove its entry") from None
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)  # [3, image_size, image_size]

    def keep_decoded(self) -> None:
        """Decode every image once and keep the pixels in memory (3 bytes a pixel), so that later epochs need no disk.

        Raises:
            InputError: as :meth:`decode`, so every broken image is found here.
        """
        size = self.image_size
        pixels = torch.empty(len(self), 3, size, size, dtype=torch.uint8)
        for index in tqdm(range(len(self)), desc="reading images", unit="image", leave=False, disable=None):
            pixels[index] = self.decode(index)
        self._pixels = pixels

    def draw_caption(self, index: int) -> str:
        """The caption of this row in this epoch."""
        captions = self.captions[index]
        if len(captions) == 1:
            return captions[0]
        return random.Random(f"{self.seed}/{int(self._epoch)}/{index}").choice(captions)


class Collate:
    """A list of items to a batch: images and token ids stacked, texts kept as they are."""

    def __init__(self, tokenizer: WordTokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, items: list[dict]) -> dict:
        """``{"images": [B, 3, H, W], "token_ids": [B, L], "padding": bool [B, L], "texts": [B], "image_ids": [B]}``."""
        texts = [item["text"] for item in items]
        token_ids, padding = self.tokenizer(texts)
        return {
            "images": torch.stack([item["image"] for item in items]),
            "token_ids": token_ids,
            "padding": padding,
            "texts": texts,
            "image_ids": torch.tensor([item["image_id"] for item in items]),
        }


class EpochBatches(Sampler[list[int]]):
    """Row numbers in batches, shuffled anew each epoch from the seed and the epoch alone.

    Rows left over at the end of an epoch are dropped, so that every batch has the same number of negatives; the next
    epoch's order takes them in elsewhere. A set smaller than one batch makes one batch of all its rows.
    """

    def __init__(self, rows: int, batch_size: int, seed: int = 0) -> None:
        self.rows = rows
        self.batch_size = min(batch_size, rows)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the order; a resumed run goes on at ``first_batch`` of the epoch it was stopped in."""
        self.epoch = epoch
        self.first_batch = first_batch

    def __len__(self) -> int:
        return self.rows // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self.rows))
        random.Random(f"{self.seed}/{self.epoch}").shuffle(order)
        for batch in range(self.first_batch, len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size]


def make_loader(
    dataset: ImageTextDataset, tokenizer: WordTokenizer, batch_size: int, seed: int = 0, workers: int = 0
) -> DataLoader:
    """Shuffled training batches; call ``set_epoch`` on the dataset and on the loader's ``batch_sampler`` each epoch."""
    return DataLoader(
        dataset,
        batch_sampler=EpochBatches(len(dataset), batch_size, seed),
        collate_fn=Collate(tokenizer),
        num_workers=workers,
    )


def captions_by_image(captions: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """All captions in one list, and for each the row of its image, int64 ``[captions]``."""
    flat = [caption for of_image in captions for caption in of_image]
    image_of_caption = [index for index, of_image in enumerate(captions) for _ in of_image]
    return flat, torch.tensor(image_of_caption, dtype=torch.long)

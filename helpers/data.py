"""Pairs on disk to batches: the dataset, the loader, and the batches that the encoders take."""

import math
import mmap
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from helpers.augmentation import Augmentation, resize
from helpers.files import InputError
from helpers.scale.distributed import World, rank_slice
from helpers.sources.cache import Rows, decoded

# Where pairs lie and how they are read belongs to this page too.
from helpers.sources.coco import DATA as DATA
from helpers.sources.coco import read_captions as read_captions
from helpers.sources.images import read_square
from helpers.text import WordTokenizer, split_words

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def room_for(shape: Sequence[int]) -> Tensor:
    """A float tensor with nothing in it yet.

    Blocks above 32 MB the C library takes from the system anew each time, and the system clears them in pages of 4 kB:
    for a large batch that takes longer than all that is computed. In pages of 2 MB, which Linux gives when asked, it
    takes a third of the time. The memory goes back when the tensor is gone.
    """
    count = math.prod(shape)
    if 4 * count < 2**25 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(*shape)
    block = mmap.mmap(-1, 4 * count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a system without large pages
        block.madvise(mmap.MADV_HUGEPAGE)
    return torch.from_numpy(np.frombuffer(block, dtype=np.float32, count=count)).view(*shape)


def normalize(pixels: Tensor) -> Tensor:
    """Pixels uint8 ``[..., 3, height, width]`` to float, less ImageNet's mean and divided by its standard deviation.

    The same as torchvision's ``normalize``, whose import alone takes longer than many of the course's commands, in one
    multiplication and one addition: ``(x / 255 - mean) / std = x / (255 std) - mean / std``.
    """
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))  # [3, 1, 1]
    return room_for(pixels.shape).copy_(pixels).mul_(1 / (255 * std)).sub_(mean / std)


class Items(list):
    """The items of a batch, whose images lie side by side in one tensor, so that a batch of them needs no copy."""

    def __init__(self, images: Tensor, texts: Sequence[Sequence[str]], image_ids: Sequence[int]) -> None:
        self.images = images  # [batch, 3, height, width]
        self.rows = list(images)
        super().__init__(
            {"image": image, "text": text, "image_id": image_id} | ({"further_texts": further} if further else {})
            for image, (text, *further), image_id in zip(self.rows, texts, image_ids, strict=True)
        )

    def are_untouched(self) -> bool:
        """Whether the items still hold the images they were made with, in their order."""
        return len(self) == len(self.rows) and all(
            item["image"] is row for item, row in zip(self, self.rows, strict=True)
        )


class ImageTextDataset(Dataset):
    """Pairs of an image and a text, ready for the encoders but for the tokenizer.

    ``dataset[i]`` is ``{"image": float [3, size, size], "text": str, "image_id": int}``: RGB, resized to a square of
    ``image_size`` pixels, normalised with ImageNet's mean and standard deviation. Rows that share an image file
    share an ``image_id``. With ``captions_per_image`` of 2 or more, ``further_texts`` has the others of these captions.

    What is drawn anew in each epoch depends on the seed and the epoch, and on nothing else but the row: where an image
    has several captions, one of them; how a pair is augmented; of several image sizes, the one of a batch (by its first
    row). So it is the same with any number of workers. Call :meth:`set_epoch` before each epoch.
    """

    def __init__(
        self,
        image_paths: Sequence[Path | str],
        texts: Sequence[str | Sequence[str]],
        image_size: int | Sequence[int] = 224,
        seed: int = 0,
        augment: Augmentation | None = None,
        captions_per_image: int = 1,
    ) -> None:
        """
        Args:
            image_paths: a file an image.
            texts: for each image its caption, or the list of its captions.
            image_size: side of the square, in pixels; or several, of which each batch has one. Images are decoded at
                the largest, and the smaller ones are made from that.
            seed: fixes what is drawn.
            augment: what may be done to a pair in each epoch.
            captions_per_image: how many different captions of an image an item has. Of 2 or more, as
                :meth:`draw_captions` draws them.

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
        self.image_sizes = (image_size,) if isinstance(image_size, int) else tuple(image_size)
        if not self.image_sizes or not all(isinstance(size, int) and size >= 1 for size in self.image_sizes):
            raise InputError(f"image_size must be a whole number of pixels, 1 or more, or several, not {image_size!r}")
        self.image_size = max(self.image_sizes)
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
        self.seed = seed
        self.augment = augment
        self.captions_per_image = captions_per_image
        # Shared memory, so that workers which live through several epochs see the epoch change.
        self._epoch = torch.zeros(1, dtype=torch.long).share_memory_()
        self._cache: Rows | None = None
        self._place_in_cache: dict[int, int] = {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the captions and augmentations of this epoch, here and in running workers."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return len(self.image_paths)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Items:
        """The items of a whole batch, which a DataLoader asks for when it can: made together, that is faster."""
        # Indexing a range counts from the end where asked to, and refuses what is out of range.
        first = getattr(indices, "first", indices[0])  # of the batch, where these rows are a part of one
        indices = [range(len(self))[index] for index in indices]
        pixels = self._pixels(indices)  # [batch, 3, image_size, image_size]
        texts = [self.draw_captions(index) for index in indices]
        size = self.image_size if len(self.image_sizes) == 1 else self._draw(first, "size").choice(self.image_sizes)
        if self.augment is None:
            pixels = resize(pixels, size)
        else:
            changed = [
                self.augment(image, "\0".join(of_image), size, self._draw(index, "augmentation"))
                for image, of_image, index in zip(pixels, texts, indices, strict=True)
            ]  # the captions of an image as one, since a flip must be right for all of them
            pixels, texts = torch.stack([image for image, _ in changed]), [text.split("\0") for _, text in changed]
        return Items(normalize(pixels), texts, [self.image_ids[index] for index in indices])

    def decode(self, index: int) -> Tensor:
        """The pixels of an image, uint8 ``[3, image_size, image_size]``.

        Raises:
            InputError: if the file is no image, or a broken one.
        """
        return torch.from_numpy(np.array(read_square(self.image_paths[index], self.image_size))).permute(2, 0, 1)

    def use_cache(self, folder: Path | str | None = None) -> None:
        """Decode every image once, into a file in ``data/cache`` or ``folder``, or use the one that is there already.

        Raises:
            InputError: as :func:`helpers.sources.cache.decoded`, so every broken image is found here.
        """
        different = sorted(set(self.image_ids))
        self._cache = Rows(decoded([self.image_paths[row] for row in different], self.image_size, folder))
        self._place_in_cache = {row: place for place, row in enumerate(different)}

    def draw_caption(self, index: int) -> str:
        """The caption of this row in this epoch, as it was given, before any augmentation."""
        captions = self.captions[index]
        return captions[0] if len(captions) == 1 else self._draw(index).choice(captions)

    def draw_captions(self, index: int) -> list[str]:
        """The ``captions_per_image`` captions of this row in this epoch, before any augmentation.

        They differ, unless the image has fewer. Of two captions, one with twice as many words is four times as likely
        to come first: it says more of what distinguishes its image.
        """
        if self.captions_per_image == 1:
            return [self.draw_caption(index)]
        draw = self._draw(index)
        # Efraimidis and Spirakis, 2006: sorting by random ** (1 / weight) draws by weight without putting back.
        keys = [draw.random() ** (1 / max(1, len(split_words(caption))) ** 2) for caption in self.captions[index]]
        ranked = [caption for _, caption in sorted(zip(keys, self.captions[index], strict=True), reverse=True)]
        return [ranked[place % len(ranked)] for place in range(self.captions_per_image)]

    def _draw(self, index: int, *purpose: str) -> random.Random:
        """What a row's draws of this epoch come from, one for each purpose."""
        return random.Random("/".join(map(str, (self.seed, int(self._epoch), index, *purpose))))

    def _pixels(self, indices: Sequence[int]) -> Tensor:
        """uint8 ``[batch, 3, image_size, image_size]``."""
        if self._cache is None:
            return torch.stack([self.decode(index) for index in indices])
        return torch.from_numpy(self._cache.read([self._place_in_cache[self.image_ids[index]] for index in indices]))


class Collate:
    """A list of items to a batch: images and token ids stacked, texts kept as they are."""

    def __init__(self, tokenizer: WordTokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, items: list[dict]) -> dict:
        """``{"images": [B, 3, H, W], "token_ids": [B, L], "padding": bool [B, L], "texts": [B], "image_ids": [B]}``.

        Where items have further texts, ``further_texts`` holds for the second caption of each image, and for each one
        after it, ``{"token_ids": [B, L], "padding": bool [B, L], "texts": [B]}``.
        """
        in_one_piece = isinstance(items, Items) and items.are_untouched()
        batch = {
            "images": items.images if in_one_piece else torch.stack([item["image"] for item in items]),
            **self.tokenized([item["text"] for item in items]),
            "image_ids": torch.tensor([item["image_id"] for item in items]),
        }
        if "further_texts" in items[0]:
            by_place = zip(*(item["further_texts"] for item in items), strict=True)
            batch["further_texts"] = [self.tokenized(texts) for texts in by_place]
        return batch

    def tokenized(self, texts: Sequence[str]) -> dict:
        token_ids, padding = self.tokenizer(texts)
        return {"token_ids": token_ids, "padding": padding, "texts": list(texts)}


class EpochBatches(Sampler[list[int]]):
    """Row numbers in batches, shuffled anew each epoch from the seed and the epoch alone.

    Rows left over at the end of an epoch are dropped, so that every batch has the same number of negatives; the next
    epoch's order takes them in elsewhere. A set smaller than one batch makes one batch of all its rows.

    Where rows share images, two captions of one image may meet in a batch, and each then counts as wrong for the
    other's picture. With ``image_ids``, they never do.
    """

    def __init__(self, rows: int, batch_size: int, seed: int = 0, image_ids: Sequence[int] | None = None) -> None:
        """
        Args:
            rows: how many there are.
            batch_size: rows in a batch.
            seed: fixes the order.
            image_ids: for each row its image; no batch then holds two rows of one image.

        Raises:
            InputError: if there are fewer different images than a batch needs, or not one image id a row.
        """
        self.rows = rows
        self.batch_size = min(batch_size, rows)
        self.seed = seed
        self.image_ids = image_ids
        self.batches = rows // self.batch_size
        if image_ids is not None:
            if len(image_ids) != rows:
                raise InputError(f"every row needs an image id: got {rows} rows and {len(image_ids)} ids")
            self.batches = most_distinct_batches(image_ids, self.batch_size)
            if self.batches == 0:
                raise InputError(
                    f"a batch of {self.batch_size} rows without two of one image needs as many images, and there are "
                    f"{len(set(image_ids))}; choose smaller batches"
                )
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the order; a resumed run goes on at ``first_batch`` of the epoch it was stopped in."""
        self.epoch = epoch
        self.first_batch = first_batch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self.rows))
        random.Random(f"{self.seed}/{self.epoch}").shuffle(order)
        size = self.batch_size
        if self.image_ids is None:
            batches = (order[batch * size : (batch + 1) * size] for batch in range(self.batches))
        else:
            batches = distinct_batches(order, self.image_ids, size, self.batches)
        return islice(batches, self.first_batch, None)


class PartOfBatch(list):
    """The rows that are one rank's, and the ``first`` row of the whole batch, by which what is one for all is drawn."""

    def __init__(self, rows: Sequence[int], first: int) -> None:
        super().__init__(rows)
        self.first = first


class RankBatches(Sampler[list[int]]):
    """The batches of :class:`helpers.data.EpochBatches`, of each only this rank's part. Alone, they are whole."""

    def __init__(self, batches: EpochBatches, here: World) -> None:
        """
        Raises:
            InputError: if the ranks cannot share a batch equally.
        """
        rank_slice(range(batches.batch_size), here.rank, here.size)
        self.batches, self.here = batches, here

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """As :meth:`helpers.data.EpochBatches.set_epoch`; every rank must choose the same."""
        self.batches.set_epoch(epoch, first_batch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (PartOfBatch(rank_slice(batch, self.here.rank, self.here.size), batch[0]) for batch in self.batches)


def most_distinct_batches(image_ids: Sequence[int], batch_size: int) -> int:
    """How many batches without two rows of one image can be made: an image gives each of them one row at most."""
    images_with = Counter(Counter(image_ids).values())  # so many rows: so many images
    batches = len(image_ids) // batch_size
    while sum(images * min(rows, batches) for rows, images in images_with.items()) < batches * batch_size:
        batches -= 1
    return batches


def distinct_batches(
    order: Sequence[int], image_ids: Sequence[int], batch_size: int, batches: int
) -> Iterator[list[int]]:
    """Rows in the given order, but that a row waits for the next batch if its image is in this one already.

    An image that has a row for each of the batches to come, or more, goes first, for else too few different images
    would be left at the end. So ``batches`` can be all that :func:`most_distinct_batches` counts.
    """
    rows_of: dict[int, deque[int]] = {}
    for row in order:
        rows_of.setdefault(image_ids[row], deque()).append(row)
    turns = (image_ids[row] for row in order)
    waiting: deque[int] = deque()
    most = max(map(len, rows_of.values()))
    for to_come in range(batches, 0, -1):
        urgent = [image for image, rows in rows_of.items() if len(rows) >= to_come] if to_come <= most else []
        chosen = dict.fromkeys(urgent[:batch_size])  # an ordered set of images
        again: list[int] = []
        while len(chosen) < batch_size:
            image = waiting.popleft() if waiting else next(turns)
            if image in chosen:
                again.append(image)
            elif rows_of[image]:  # else its rows went first, when they were urgent
                chosen[image] = None
        waiting.extendleft(reversed(again))
        yield [rows_of[image].popleft() for image in chosen]


def make_loader(
    dataset: ImageTextDataset,
    tokenizer: WordTokenizer,
    batch_size: int,
    seed: int = 0,
    workers: int = 0,
    distinct_images: bool = False,
) -> DataLoader:
    """Shuffled training batches; call ``set_epoch`` on the dataset and on the loader's ``batch_sampler`` each epoch.

    With ``distinct_images``, no batch holds two rows of one image.

    Raises:
        InputError: as :class:`EpochBatches`.
    """
    image_ids = dataset.image_ids if distinct_images else None
    return DataLoader(
        dataset,
        batch_sampler=EpochBatches(len(dataset), batch_size, seed, image_ids),
        collate_fn=Collate(tokenizer),
        num_workers=workers,
    )


def captions_by_image(captions: Sequence[Sequence[str]]) -> tuple[list[str], Tensor]:
    """All captions in one list, and for each the row of its image, int64 ``[captions]``."""
    flat = [caption for of_image in captions for caption in of_image]
    image_of_caption = [index for index, of_image in enumerate(captions) for _ in of_image]
    return flat, torch.tensor(image_of_caption, dtype=torch.long)

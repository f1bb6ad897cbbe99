"""Training pairs straight from WebDataset shards, which are never unpacked: for what no disk of one machine holds.

A shard can only be read from front to back, so order comes in two parts, as in webdataset itself: the shards are
shuffled, and of what arrives a buffer of bounded size is kept, from which the next sample is drawn. Each rank reads
shards of its own, and each of its workers some of those.

``python -m helpers.streaming write --data data/scenes --out shards`` writes the pairs of any layout into shards.
"""

import hashlib
import io
import json
import random
import sys
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from helpers.annotations import whole_folder
from helpers.augmentation import Augmentation
from helpers.cache import start_worker
from helpers.command_line import CommandLine, InputError, counted
from helpers.data import Collate, ImageTextDataset, Items
from helpers.distributed import PartOfBatch, World, rank_slice
from helpers.images import SPARE, read_at_least
from helpers.layouts import SPLIT_NAMES, find_shards, open_pairs, shard_split
from helpers.shards import counts_of, sample_parts, samples_of, write_shard
from helpers.text import WordTokenizer

BUFFER = 2000  # samples, as the bytes of their files: some 200 MB a worker where an image has 100 kB
VOCABULARY_FROM = 100_000  # samples: in more of them only rare words are new


class Sample(NamedTuple):
    """An image and its captions as they lie in a shard; ``row`` is its number among the samples of all shards."""

    row: int
    image: "ImageInShard"
    captions: list[str]


class ImageInShard(io.BytesIO):
    """The bytes of an image, with as much of a ``Path`` as :mod:`helpers.images` asks for to read and to name it."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name

    def is_file(self) -> bool:
        return True

    def open(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self.getvalue())


class ArrivedPairs(ImageTextDataset):
    """The pairs of one batch, whose files have arrived; all that is drawn for them is drawn as for files on a disk."""

    def __init__(self, shards: Sequence[Path], rows: int, *settings: Any) -> None:
        # Checked are the settings, and that the shards are there; image files and captions come with each batch.
        super().__init__(shards, [shard.name for shard in shards], *settings)
        self.image_ids = range(rows)

    def __len__(self) -> int:
        return len(self.image_ids)

    def items(self, batch: int, samples: Sequence[Sample]) -> Items:
        """The items of a batch; its number draws what all ranks have alike, the size of its images."""
        self.images = {sample.row: sample.image for sample in samples}
        self.captions = {sample.row: sample.captions for sample in samples}
        return self.__getitems__(PartOfBatch(list(self.images), first=batch))

    def decode(self, index: int) -> Tensor:
        image = read_at_least(self.images[index], int(SPARE * self.image_size))  # as `read_square` does
        side = (self.image_size, self.image_size)
        square = image.resize(side, Image.Resampling.BILINEAR, reducing_gap=SPARE)
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)  # [3, image_size, image_size]


class StreamedPairs(IterableDataset):
    """The batches of an epoch from shards, for :class:`StreamLoader`: of each, the rows that are this rank's.

    The samples are numbered through all shards. What is drawn for one, its caption and its augmentation, depends on the
    seed, the epoch and this number, as in :class:`helpers.data.ImageTextDataset`. The order depends on the seed and the
    epoch, and on how many ranks and workers share the shards: of the epoch's shuffled shards, rank ``r`` of ``W`` has
    ``shards[r::W]``, and of these worker ``w`` of ``n`` has ``[w::n]``, which makes the batches ``w, w + n, …``.

    No sample comes twice in an epoch. All ranks and workers make equally many batches, so that none waits for another:
    as many as the smallest shards would give. What is left over in an epoch is dropped, and in the next it is other
    samples. Least is dropped where all shards have equally many samples, and their number is a multiple of ``W * n``.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        batch_size: int,
        image_size: int | Sequence[int] = 224,
        seed: int = 0,
        augment: Augmentation | None = None,
        captions_per_image: int = 1,
        here: World | None = None,
        workers: int = 0,
        buffer_size: int = BUFFER,
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            shards: tar files, in an order that numbers their samples.
            batch_size: images of all ranks together.
            image_size, seed, augment, captions_per_image: as for :class:`helpers.data.ImageTextDataset`.
            here: which rank this is of how many; alone where it is not given.
            workers: processes that read and decode beside this one; none: it does so itself.
            buffer_size: samples that a worker keeps to draw the next from; it never has more in memory, but for those
                of the batch it makes.
            folder: where the counts of samples are kept, as for :func:`counts_of`.

        Raises:
            InputError: if there are too few shards for the ranks and workers, or too few samples in them for a batch
                of each, or the ranks cannot share a batch equally; and as :func:`counts_of`.
        """
        self.shards = list(shards)
        self.seed, self.here = seed, here or World()
        self.workers, self.buffer_size = workers, buffer_size
        self.rows = len(rank_slice(range(batch_size), self.here.rank, self.here.size))
        streams = self.here.size * max(1, workers)
        if len(self.shards) < streams:
            raise InputError(
                f"{counted(len(self.shards), 'shard')} cannot be shared by {counted(self.here.size, 'rank')} with "
                f"{counted(max(1, workers), 'worker')} each; use fewer, or write more and smaller shards"
            )
        self.counts = counts_of(self.shards, folder)
        fewest = sum(sorted(self.counts)[: len(self.shards) // streams])
        self.batches_each = fewest // self.rows
        if self.batches_each == 0:
            raise InputError(
                f"a worker may get shards of only {counted(fewest, 'sample')}, and a rank's part of a batch of "
                f"{batch_size} is {self.rows}; choose smaller batches, or fewer ranks or workers"
            )
        self.first_rows = list(accumulate(self.counts, initial=0))
        self.arrived = ArrivedPairs(self.shards, self.first_rows[-1], image_size, seed, augment, captions_per_image)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the order and all that is drawn; a resumed run goes on at ``first_batch``, and gets the same bits."""
        self.epoch, self.first_batch = epoch, first_batch
        self.arrived.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches an epoch, the same in every epoch and on every rank."""
        return self.batches_each * max(1, self.workers)

    def __iter__(self) -> Iterator[Items]:
        """The batches of this worker, from the first that is not before ``first_batch``."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        worker = (worker + self.first_batch) % workers  # the loader asks its worker 0 first, whichever batch it is
        order = list(range(len(self.shards)))
        random.Random(f"{self.seed}/{self.epoch}").shuffle(order)
        order = order[self.here.rank :: self.here.size][worker::workers]
        turns = range(worker, len(self), workers)
        to_come = [batch for batch in turns if batch >= self.first_batch]
        samples = self._samples(order, skipped=(len(turns) - len(to_come)) * self.rows)
        for batch in to_come:
            yield self.arrived.items(batch, list(islice(samples, self.rows)))

    def fingerprint(self) -> str:
        """What changes when a shard's name, its size in bytes or its number of samples does."""
        state = [(shard.name, shard.stat().st_size, n) for shard, n in zip(self.shards, self.counts, strict=True)]
        return hashlib.sha256(repr(state).encode()).hexdigest()

    def _samples(self, order: list[int], skipped: int) -> Iterator[Sample]:
        """The samples of some shards in the order of the buffer, the first of them skipped.

        The buffer draws places, before anything is read. So skipping is counting: no image is decoded, and a shard that
        is skipped whole is not even opened. But some samples wait long in a buffer: when seven times its size has been
        drawn, e to the minus seven, one in a thousand, still waits. So the shards of about that many are read again.
        """
        total = sum(self.counts[shard] for shard in order)
        places = shuffled(total, self.buffer_size, random.Random(f"{self.seed}/{self.epoch}/buffer/{order[0]}"))
        done = bytearray(total)  # 1 for each place that is skipped
        for place in islice(places, skipped):
            done[place] = 1
        arriving = self._arriving(order, done)
        buffer: dict[int, Sample] = {}
        for place in places:
            while place not in buffer:
                buffer.update([next(arriving)])
            yield buffer.pop(place)

    def _arriving(self, order: list[int], done: bytearray) -> Iterator[tuple[int, Sample]]:
        """The samples of some shards as they lie there, each with its place, but for those that are done."""
        start = 0
        for number in order:
            shard, count = self.shards[number], self.counts[number]
            if 0 in done[start : start + count]:
                found = 0
                for found, sample in enumerate(samples_of(shard), start=1):
                    place = found - 1
                    if found <= count and not done[start + place]:
                        name, content, captions = sample_parts(sample, shard)
                        image = ImageInShard(content, f"{shard}: {name}")
                        yield start + place, Sample(self.first_rows[number] + place, image, captions)
                if found != count:
                    raise InputError(
                        f"{shard} has {counted(found, 'sample')} where {count:,} were counted, or are named in its "
                        "sizes.json; correct that, and leave shards unchanged while they are read"
                    )
            start += count


class StreamLoader(DataLoader):
    """The batches of :class:`StreamedPairs`, made in its workers, as :class:`helpers.data.Collate` writes them."""

    def __init__(self, pairs: StreamedPairs, tokenizer: WordTokenizer) -> None:
        super().__init__(
            pairs,
            batch_size=None,  # they come in batches already
            collate_fn=Collate(tokenizer),
            num_workers=pairs.workers,
            worker_init_fn=leave_signals,
        )

    def __iter__(self) -> Iterator[dict]:
        try:
            yield from super().__iter__()
        except InputError as error:
            # A worker's error has its traceback in its text. This process's own would keep the workers waiting for it.
            words = str(error.with_traceback(None)).rpartition("InputError: ")[2].strip()
            raise InputError(words) from None


def leave_signals(_: int) -> None:
    """What a worker does first: Ctrl-C is its parent's matter."""
    start_worker()


def shuffled(total: int, buffer_size: int, generator: random.Random) -> Iterator[int]:
    """The numbers below ``total``, each drawn evenly from a buffer, where the next one to come takes its place."""
    buffer: list[int] = []
    for number in range(total):
        if len(buffer) < buffer_size:
            buffer.append(number)
        else:
            chosen = generator.randrange(buffer_size)
            yield buffer[chosen]
            buffer[chosen] = number
    generator.shuffle(buffer)
    yield from buffer


def captions_of(shards: Sequence[Path], samples: int = VOCABULARY_FROM) -> list[list[str]]:
    """The captions of each of the first so many samples, for a vocabulary; no image is read for it."""
    texts = ((shard, sample) for shard in shards for sample in samples_of(shard, images=False))
    return [sample_parts(sample, shard)[2] for shard, sample in islice(texts, samples)]


def shards_by_split(folder: Path) -> dict[str, list[Path]]:
    """The shards of a folder by the split in their names or their folders', as in ``train-000000.tar``.

    Raises:
        InputError: if one names no split, or none is named train or val. A split that nothing names is drawn by image,
            for which all shards would have to be unpacked.
    """
    by_split: dict[str, list[Path]] = {}
    for shard in find_shards(folder) if folder.is_dir() else []:
        split = shard_split(shard.relative_to(folder))
        if split is None:
            raise InputError(f"{shard} names no split; call it train-{shard.name}, or val-{shard.name}")
        by_split.setdefault(split, []).append(shard)
    if not {"train", "val"} <= set(by_split):
        raise InputError(f"{folder} must have shards of train and val, such as train-000000.tar and val-000000.tar")
    return by_split


def write_shards(data: Path, out: Path, per_shard: int = 1000) -> None:
    """Write the pairs of any layout into shards by split, ``train-000000.tar`` and so on, always with the same bytes.

    They are shuffled, since a buffer mixes only what lies near. Splits beside train, val and test are left out.

    Raises:
        InputError: for pairs that cannot be read, images of another kind than shards have, or a folder that is there
            already or cannot be written.
    """
    if per_shard < 1:
        raise InputError(f"--per-shard must be 1 sample or more, not {per_shard}")
    if out.exists():
        raise InputError(f"{out} exists already; remove it, or write to another folder")
    sizes: dict[str, int] = {}
    by_split = {split: records for split, records in open_pairs(data).by_split.items() if split in SPLIT_NAMES}
    with whole_folder(out) as partial:
        for split, records in by_split.items():
            records = random.Random(0).sample(records, len(records))
            for number, start in enumerate(range(0, len(records), per_shard)):
                name, some = f"{split}-{number:06d}.tar", records[start : start + per_shard]
                write_shard(partial / name, some, start)
                sizes[name] = len(some)
        (partial / "sizes.json").write_text(json.dumps(sizes))
    print(f"{out} has {counted(sum(sizes.values()), 'sample')} in {counted(len(sizes), 'shard')}")


def main(arguments: list[str] | None = None) -> int:
    parser = CommandLine(prog="python -m helpers.streaming", description="WebDataset shards as training input.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="write")
    write = commands.add_parser("write", help="write pairs into shards, by split and shuffled")
    write.add_argument("--data", type=Path, required=True, help="a folder of pairs in any layout")
    write.add_argument("--out", type=Path, required=True, help="the folder to write; must not exist yet")
    write.add_argument("--per-shard", type=int, default=1000, metavar="SAMPLES", help="default 1000")
    options = parser.parse_args(arguments)
    return parser.run(lambda: write_shards(options.data, options.out, options.per_shard))


if __name__ == "__main__":
    sys.exit(main())

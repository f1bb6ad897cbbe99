"""Image-text pairs in tar files (WebDataset), read in sequence and divided among ranks and workers."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import webdataset as wds
from torch import Tensor
from torch.utils.data import DataLoader

from helpers.files import InputError, atomic_folder
from helpers.scale.distributed import world
from helpers.sources.images import read_square


def write_shards(
    image_paths: Sequence[Path], captions: Sequence[Sequence[str]], out: Path, image_size: int, images_per_shard: int
) -> list[Path]:
    """Write images, resized to squares, and their captions into tar files in the new folder ``out``.

    Image 12 becomes the sample ``00000012.png`` and ``00000012.json``, the list of its captions.
    """
    with atomic_folder(out) as folder, wds.ShardWriter(f"{folder}/%06d.tar", images_per_shard, verbose=0) as writer:
        for index, (path, texts) in enumerate(zip(image_paths, captions, strict=True)):
            writer.write({"__key__": f"{index:08d}", "png": read_square(path, image_size), "json": list(texts)})
    return sorted(out.glob("*.tar"))


def to_item(sample: dict, normalize: Callable[[Tensor], Tensor], seed: int, epoch: int) -> dict:
    """A decoded sample as an item of ``ImageTextDataset``, with one of its captions for this epoch."""
    image_id = int(sample["__key__"])
    text = random.Random(f"{seed}/{epoch}/{image_id}").choice(sample["json"])
    return {"image": normalize(sample["png"]), "text": text, "image_id": image_id}


def shard_loader(
    shards: Sequence[Path],
    batch_size: int,
    collate: Callable[[list[dict]], dict],
    normalize: Callable[[Tensor], Tensor],
    seed: int = 0,
    epoch: int = 0,
    workers: int = 0,
) -> DataLoader:
    """Load this rank's batches of one epoch, in an order that the seed, the epoch, ranks and workers determine.

    Ranks and their workers share the shuffled shards; each worker shuffles its pairs in a buffer of 1,000. Give all
    shards the same number of images, or a rank with fewer batches will leave the others waiting.
    """
    readers, order = world().size * max(1, workers), f"{seed}/{epoch}"
    if not shards or len(shards) % readers:
        raise InputError(f"the number of shards ({len(shards)}) must be a multiple of ranks times workers ({readers})")
    pipeline = wds.DataPipeline(
        wds.SimpleShardList([str(shard) for shard in shards], seed=order),
        wds.split_by_node,
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.shuffle(1000, initial=1000, seed=order),
        wds.decode("torchrgb8"),  # uint8 [3, image_size, image_size]
        wds.map(partial(to_item, normalize=normalize, seed=seed, epoch=epoch)),
        wds.batched(batch_size, collation_fn=collate),
    )
    return DataLoader(pipeline, batch_size=None, num_workers=workers)

"""WebDataset shards: tar files whose members of one name are an image and its text, read with ``webdataset``."""

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm import tqdm

from helpers.annotations import Record, check_caption, check_file_name
from helpers.command_line import InputError, counted


def unpack_shards(folder: Path, splits: dict[Path, str | None], images: Path) -> dict[str | None, list[Record]]:
    """Write the images of all shards into ``images``, and give their records by split.

    Args:
        folder: where the shards lie; each gets a folder of the same name in ``images``.
        splits: the split of each shard, None for all of them where none is named.

    Raises:
        InputError: naming shard and sample, for what is broken in them.
    """
    by_split: dict[str | None, list[Record]] = {}
    number = count = 0
    for shard in tqdm(splits, desc="unpacking shards", unit="shard", leave=False, disable=None):
        inside = shard.relative_to(folder).with_suffix("").as_posix()
        for sample in samples_of(shard):
            name, pixels, captions = sample_parts(sample, shard)
            path = images / inside / name
            if path.exists():
                raise InputError(f"{shard} has {name} twice; write the shard anew with a key a sample")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pixels)
            annotations = [{"id": count + k, "image_id": number, "caption": text} for k, text in enumerate(captions)]
            record = Record({"id": number, "file_name": f"{inside}/{name}"}, path, annotations)
            by_split.setdefault(splits[shard], []).append(record)
            number, count = number + 1, count + len(captions)
    if number == 0:
        raise InputError(f"{folder} has only empty shards; write them anew")
    return by_split


def samples_of(shard: Path) -> Iterator[dict]:
    """The samples of a shard: ``__key__``, and the bytes of its members by the endings of their names."""
    try:
        from webdataset.tariterators import group_by_keys, tar_file_expander
    except ImportError:
        raise InputError(
            f"{shard} is a shard, for which the package webdataset is needed: "
            "install it with `.venv/bin/python -m pip install webdataset`, in a notebook `%pip install webdataset`"
        ) from None
    try:
        with shard.open("rb") as file:
            if not ends_as_a_tar_does(file):
                raise InputError(f"{shard} is cut off, or no tar file; fetch or write it anew")
            yield from group_by_keys(tar_file_expander([{"url": str(shard), "stream": file}]))
    except InputError:
        raise
    except Exception as error:  # the package passes on what tarfile raises, and errors of its own
        raise InputError(f"{shard} cannot be read ({error.args[0]}); fetch or write it anew") from None


def ends_as_a_tar_does(file: BinaryIO) -> bool:
    """Whether two empty blocks end a file: Python's reader takes one that is cut off between two members for whole."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1024))
    empty = not any(file.read())
    file.seek(0)
    return empty and size >= 1024 and size % 512 == 0


def sample_parts(sample: dict, shard: Path) -> tuple[str, bytes, list[str]]:
    """The file name, the image's bytes and the captions of a sample, checked."""
    where = f"{shard}: sample {sample['__key__']!r}"
    kinds = [kind for kind in ("jpg", "jpeg", "png", "webp") if kind in sample]
    if len(kinds) != 1:
        raise InputError(
            f"{where} has {counted(len(kinds), 'image')}; it needs one .jpg, .png or .webp beside its text"
        )
    if "txt" not in sample and "json" not in sample:
        raise InputError(f"{where} has no caption; it needs a .txt or .json right after its image")
    try:
        if "txt" in sample:
            captions = [line.strip() for line in sample["txt"].decode("utf-8-sig").split("\n") if line.strip()]
        else:
            captions = json_captions(json.loads(sample["json"]))
        name = f"{sample['__key__']}.{kinds[0]}"
        check_file_name(name, Path(shard.stem))
        if not captions:
            raise InputError("has no caption; write one, or remove the sample")
        for caption in captions:
            check_caption(caption)
    except UnicodeDecodeError:
        raise InputError(f"{where} has a text that is not UTF-8; write the shard anew") from None
    except InputError as error:
        raise InputError(f"{where} {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} has broken JSON ({error}); write the shard anew") from None
    return str(PurePosixPath(name)), sample[kinds[0]], captions


def json_captions(content: object) -> list[str]:
    captions = content.get("captions", content.get("caption")) if isinstance(content, dict) else None
    if isinstance(captions, str):
        return [captions]
    if not isinstance(captions, list):
        raise InputError("has a .json without 'caption' or 'captions'; write one of them")
    return captions

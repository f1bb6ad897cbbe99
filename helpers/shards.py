"""WebDataset shards: tar files whose members of one name are an image and its text, read with ``webdataset``."""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm import tqdm

from helpers import cache
from helpers.annotations import Record, check_caption, check_file_name, read_json, reading
from helpers.command_line import InputError, counted

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")


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


def samples_of(shard: Path, images: bool = True) -> Iterator[dict]:
    """The samples of a shard: ``__key__``, and the bytes of its members by the endings of their names.

    Without ``images`` only the texts are read, which is much quicker, and every other member is empty.
    """
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
            members = tar_file_expander([{"url": str(shard), "stream": file}]) if images else texts_in(file, str(shard))
            yield from group_by_keys(members)
    except InputError:
        raise
    except Exception as error:  # the package passes on what tarfile raises, and errors of its own
        raise InputError(f"{shard} cannot be read ({error.args[0]}); fetch or write it anew") from None


def texts_in(file: BinaryIO, url: str) -> Iterator[dict]:
    """The members of a shard as ``tar_file_expander`` gives them, but that only those that are texts are read."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.isreg() and not re.match(r"__[^/]*__($|/)", member.name):  # the package passes over these too
                is_text = member.name.lower().endswith((".txt", ".json"))
                content = tar.extractfile(member).read() if is_text else b""
                yield {"fname": member.name, "data": content, "__url__": url}


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
    kinds = [kind for kind in IMAGE_KINDS if kind in sample]
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


def counts_of(shards: Sequence[Path], folder: Path | None = None) -> list[int]:
    """How many samples each shard has.

    As a ``sizes.json`` beside it says, ``{"000000.tar": 1000, …}``, which open_clip reads too; else counted from the
    headers, once for each size and time of change, and kept in ``folder``, ``data/cache`` where none is given.

    Raises:
        InputError: naming the shard that cannot be read, a ``sizes.json`` that is none, or a folder that cannot be
            written.
    """
    places = sorted({shard.absolute().parent for shard in shards})
    named = {str(place / name): count for place in places for name, count in sizes_in(place / "sizes.json").items()}
    index = (
        folder or cache.CACHE
    ) / f"shards-{hashlib.sha256(repr([str(place) for place in places]).encode()).hexdigest()[:16]}.json"
    known = sizes_in(index)
    counts, kept = [], len(known)
    for shard in tqdm(shards, desc="counting samples", unit="shard", leave=False, disable=None):
        with reading(shard):
            path, status = str(shard.absolute()), shard.stat()
        state = f"{path} {status.st_size} {status.st_mtime_ns}"
        if path not in named and state not in known:
            known[state] = sum(1 for _ in samples_of(shard, images=False))
        counts.append(named[path] if path in named else known[state])
    if len(known) > kept:
        write_whole(index, json.dumps(known))
    return counts


def sizes_in(file: Path) -> dict[str, int]:
    """The counts that a file holds; none if there is no file."""
    sizes = read_json(file) if file.is_file() else {}
    if not isinstance(sizes, dict) or not all(type(size) is int and size >= 0 for size in sizes.values()):
        raise InputError(f'{file} must hold the number of samples of each shard, as {{"000000.tar": 1000}}; remove it')
    return sizes


def write_whole(file: Path, text: str) -> None:
    """Write a file that other processes may be reading or writing: it is there whole, or not at all."""
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        partial.replace(file)
    except OSError as error:
        raise InputError(f"cannot write {file} ({error.strerror}); free space, or choose another folder") from None


def write_shard(shard: Path, records: Sequence[Record], first: int = 0) -> None:
    """Write images as they are, each with its captions beside it, under a number from ``first`` on.

    Raises:
        InputError: for an image of another kind than shards have.
    """
    with tarfile.open(shard, "w") as tar:
        for key, record in enumerate(records, start=first):
            if record.path.suffix.lower().removeprefix(".") not in IMAGE_KINDS:
                raise InputError(f"{record.path} cannot go into a shard; save it as .jpg, .png or .webp")
            captions = json.dumps({"captions": [entry["caption"] for entry in record.annotations]}, ensure_ascii=False)
            contents = {record.path.suffix.lower(): record.path.read_bytes(), ".json": captions.encode()}
            for ending, content in contents.items():
                member = tarfile.TarInfo(f"{key:08d}{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

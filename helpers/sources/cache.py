"""A cache of decoded images: the pixels of a whole split in one ``.npy`` file, mapped into memory when it is read.

The file's name has hashes of the images' paths, sizes and times, so an image that was replaced is decoded again.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.files import DATA, atomic_file, locked
from helpers.sources.images import read_square

CACHE = DATA / "cache"
FEW = 200  # images; one process decodes them before two have started


def decoded(paths: Sequence[Path | str], image_size: int, folder: Path | str | None = None) -> np.ndarray:
    """The pixels of all images, each resized to a square: uint8 ``[images, 3, image_size, image_size]``, read-only."""
    return cached(paths, f"{image_size}px", lambda file, paths: write(file, paths, image_size), folder)


def cached(
    paths: Sequence[Path | str], kind: str, write: Callable[[Path, Sequence[str]], None], folder: Path | str | None
) -> np.ndarray:
    """Load what ``write(file, paths)`` wrote to ``folder``, one row per image, read-only; call it if needed."""
    paths = [os.path.abspath(path) for path in paths]
    folder = CACHE if folder is None else Path(folder)
    images = f"{short_hash(paths)}-{kind}"
    states = (f"{s.st_size}:{s.st_mtime_ns}:{s.st_ctime_ns}:{s.st_ino}" for s in map(os.stat, paths))
    file = folder / f"{images}-{short_hash(states)}.npy"
    if not file.exists():
        with locked(folder, wait=True):
            for path in set(folder.glob(f"{images}-*")) - {file}:  # outdated
                path.unlink()
            if not file.exists():  # another process may have written it meanwhile
                write(file, paths)
    return np.load(file, mmap_mode="r")


def short_hash(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode(errors="surrogateescape")).hexdigest()[:16]


def write(file: Path, paths: Sequence[str], size: int) -> None:
    """Decode all images into one ``.npy`` file, in two processes if there are many."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(paths), 3, size, size)}
    pool = ProcessPoolExecutor(min(2, os.cpu_count() or 1)) if len(paths) > FEW else None
    try:
        images = pool.map(decode, paths, repeat(size), chunksize=16) if pool else map(decode, paths, repeat(size))
        with atomic_file(file) as target:
            np.lib.format.write_array_header_1_0(target, header)
            for image in tqdm(images, "decoding images", len(paths), leave=False, disable=None):
                target.write(image.tobytes())
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def decode(path: str, size: int) -> np.ndarray:
    return np.asarray(read_square(path, size)).transpose(2, 0, 1)  # [3, size, size]

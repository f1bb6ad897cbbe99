"""Images decoded once: the pixels of a whole split in one file, which is mapped into memory rather than read.

A cache is an ordinary ``.npy`` file. Its name says which images it holds (their paths), at which size, and of which
state (their sizes in bytes and times of change), so a cache whose name fits is right, and one of another state is
outdated. It gets its name when it is whole and on the disk, never before. The folder may be removed at any time.
"""

import contextlib
import hashlib
import io
import itertools
import math
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from helpers.cli import signals_held
from helpers.files import InputError
from helpers.sources.coco import DATA
from helpers.sources.images import read_square

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CACHE = DATA / "cache"
DECODING = 1  # to be raised by one when images are decoded in another way, which makes every cache outdated
WORKERS = min(2, os.cpu_count() or 1)
FEW = 200  # images that are decoded before two processes have even started
BLOCK = 16  # images that a worker decodes at a time


def decoded(image_paths: Sequence[Path | str], image_size: int, folder: Path | str | None = None) -> np.memmap:
    """The pixels of all images, each squashed to a square: uint8 ``[N, 3, image_size, image_size]``, mapped read-only.

    The first call decodes the images, in two processes, and writes a cache into ``folder``, ``data/cache`` where none
    is given; later calls map it. An image that has changed since, in size or time, makes the cache anew. Processes that
    want the same cache at the same time wait for the one that makes it, and one that is killed while it does leaves
    nothing that is taken for a cache.

    Raises:
        InputError: if an image is missing or broken, the folder cannot be written, or the disk is too full.
    """
    if len(image_paths) == 0:
        raise InputError("there are no images to decode; give at least one")
    paths = [os.path.abspath(path) for path in image_paths]
    folder = CACHE if folder is None else Path(folder)
    file = folder / f"{name_images(paths)}-{image_size}px-{name_state(paths)}.npy"
    shape = (len(paths), 3, image_size, image_size)
    pixels = map_file(file, shape)
    if pixels is None:
        try:
            make_file(file, paths, shape)
        except OSError as error:
            raise InputError(
                f"cannot write the cache of decoded images in {folder}: {error.strerror or error}; make room or make "
                "it writable, or choose another folder"
            ) from None
        pixels = map_file(file, shape)
    if pixels is None:
        raise InputError(f"the cache of decoded images in {folder} was removed while it was made; start again")
    return pixels


def name_images(paths: Sequence[str]) -> str:
    """A short name for a list of paths."""
    return hashlib.sha256(b"\0".join(map(os.fsencode, paths))).hexdigest()[:16]


def name_state(paths: Sequence[str]) -> str:
    """A short name for the state that files are in: their sizes and times of change."""
    summary = hashlib.sha256(b"%d" % DECODING)
    for path in paths:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            raise InputError(f"the image {path} is missing; put it there or remove its entry") from None
        summary.update(b"/%d:%d" % (status.st_size, status.st_mtime_ns))
    return summary.hexdigest()[:16]


def header(shape: tuple[int, ...]) -> bytes:
    """How a ``.npy`` file of such pixels begins."""
    beginning = io.BytesIO()
    np.lib.format.write_array_header_1_0(beginning, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return beginning.getvalue()


def map_file(file: Path, shape: tuple[int, ...]) -> np.memmap | None:
    """A cache mapped read-only, or None if there is none, or one that something has damaged."""
    beginning = header(shape)
    try:
        with file.open("rb") as content:
            begins_right = content.read(len(beginning)) == beginning
        if not begins_right or file.stat().st_size != len(beginning) + math.prod(shape):
            return None
        return np.memmap(file, np.uint8, "r", len(beginning), shape)
    except OSError:
        return None


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[bool]:
    """Be the only process that makes caches in a folder; the system takes the lock from a process that dies.

    Gives False where there are no such locks. Then several processes may make the same cache at once, each in a file of
    its own, and the last one's is kept.
    """
    with (folder / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that decodes images into {folder}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        except (AttributeError, OSError):  # Windows, and some network drives
            yield False
            return
        yield True


def make_file(file: Path, paths: Sequence[str], shape: tuple[int, ...]) -> None:
    """Make a cache, unless another process is doing so, and remove what is outdated or was left by a killed process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with lock(file.parent) as alone:
        if map_file(file, shape) is not None:  # made by the process that had the lock
            return
        of_these_images = file.name.rpartition("-")[0]
        for outdated in file.parent.glob(f"{of_these_images}-*.npy"):
            outdated.unlink(missing_ok=True)
        if alone:
            for left_over in file.parent.glob("*.partial"):
                left_over.unlink(missing_ok=True)
        write_file(file, paths, shape)


def write_file(file: Path, paths: Sequence[str], shape: tuple[int, ...]) -> None:
    """Decode all images into a file beside ``file``, which gets that name when it is whole; else nothing is left.

    It is written, not mapped, for on a full disk a write is an error in words but a store into a map ends the process.
    """
    needed, free = math.prod(shape), shutil.disk_usage(file.parent).free
    if needed > free:
        raise InputError(
            f"the decoded images need {needed / 1e6:,.1f} MB in {file.parent}, where {free / 1e6:,.1f} MB are free; "
            "make room, choose another folder, or a smaller image size"
        )
    partial = file.with_name(f"{file.stem}.{os.getpid()}.partial")
    blocks = decode_in_blocks(paths, size=shape[-1])
    bar = tqdm(total=len(paths), desc="decoding images", unit="image", leave=False, disable=None)
    try:
        with bar, contextlib.closing(blocks), partial.open("wb") as target:
            target.write(header(shape))
            for block in blocks:
                target.write(block)
                bar.update(len(block))
            target.flush()
            os.fsync(target.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def decode_in_blocks(paths: Sequence[str], size: int) -> Iterator[np.ndarray]:
    """The pixels of all images in their order, some at a time, decoded by two processes if they are many."""
    starts = range(0, len(paths), BLOCK)
    blocks = (paths[start : start + BLOCK] for start in starts)
    if len(paths) < FEW:
        yield from (decode(block, size) for block in blocks)
        return
    pool = ProcessPoolExecutor(WORKERS, initializer=start_worker)
    try:
        with signals_held():  # one that arrives while Python forks would be lost
            waiting = deque(pool.submit(decode, block, size) for block in itertools.islice(blocks, 2 * WORKERS))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(decode, block, size) for block in itertools.islice(blocks, 1))
    except InputError as error:
        raise InputError(str(error)) from None  # without the worker's own traceback
    except BrokenProcessPool:
        raise InputError(
            "a process that decoded images was ended from outside, perhaps for want of memory; start again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def decode(paths: Sequence[str], size: int) -> np.ndarray:
    """The pixels of some images, uint8 ``[N, 3, size, size]``."""
    pixels = np.empty((len(paths), 3, size, size), np.uint8)
    for place, path in enumerate(paths):
        pixels[place] = np.asarray(read_square(path, size)).transpose(2, 0, 1)
    return pixels


def start_worker() -> None:
    """Leave Ctrl-C to the parent, which ends its workers, and end when it is killed and cannot."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


class Rows:
    """The rows of a cache, each read from its file when it is asked for.

    Taking them from the map gives the same, but every page that it touches counts as memory of this process from then
    on, bringing pages in one after the other takes longer, and a file that was cut short would end the process.
    """

    def __init__(self, pixels: np.memmap) -> None:
        self.path, self.offset, self.shape = Path(pixels.filename), pixels.offset, pixels.shape
        self.file = self.path.open("rb", buffering=0)

    def read(self, rows: Sequence[int]) -> np.ndarray:
        """Copies of some rows, uint8 ``[len(rows), 3, size, size]``.

        Raises:
            InputError: if the file has been cut short since it was opened.
        """
        copies = np.empty((len(rows), *self.shape[1:]), np.uint8)
        length = math.prod(self.shape[1:])
        for copy, row in zip(copies, rows, strict=True):
            if read_at(self.file, copy, self.offset + row * length) != length:
                raise InputError(f"{self.path} has been cut short; remove it and start again")
        return copies

    def __getstate__(self) -> dict:
        """For a process that starts anew: where the pixels are, not the pixels."""
        return {name: value for name, value in self.__dict__.items() if name != "file"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.file = self.path.open("rb", buffering=0)


def read_at(file: io.FileIO, copy: np.ndarray, position: int) -> int:
    """How many bytes of a file could be read into an array; processes share an open file, but not a place in it."""
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), (copy,), position)
    file.seek(position)  # Windows, where each worker opens the file for itself
    return file.readinto(copy)

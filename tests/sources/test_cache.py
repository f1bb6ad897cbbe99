"""The cache of decoded images: right, or not there; whatever happens while it is made."""

import contextlib
import errno
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers.files import InputError
from helpers.sources import cache
from helpers.sources.cache import Rows, decoded
from helpers.sources.images import read_image

SIZE = 16
MANY = 600  # images: enough for two processes, and for a while of work


def draw(path: Path, number: int) -> Path:
    Image.effect_noise((40 + number % 7, 30), 60).convert("RGB").save(path)
    return path


@pytest.fixture
def few(tmp_path: Path) -> list[Path]:
    (tmp_path / "images").mkdir()
    return [draw(tmp_path / "images" / f"{number}.png", number) for number in range(8)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("many")
    return [draw(folder / f"{number}.jpg", number) for number in range(MANY)]


def by_hand(paths: list[Path]) -> np.ndarray:
    squares = [read_image(path).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for path in paths]
    return np.stack([np.asarray(square).transpose(2, 0, 1) for square in squares])


def files(folder: Path) -> list[str]:
    """What lies in a cache folder, but for the lock."""
    return sorted(path.name for path in folder.glob("*") if path.name != "lock")


def never(*_: object) -> None:
    raise AssertionError("the images are decoded again")


def test_the_pixels_are_those_of_the_images(few: list[Path], tmp_path: Path) -> None:
    pixels = decoded(few, SIZE, tmp_path / "made" / "cache")
    assert np.array_equal(pixels, by_hand(few))
    assert isinstance(pixels, np.memmap)
    assert not pixels.flags.writeable
    assert len(files(tmp_path / "made" / "cache")) == 1
    assert files(tmp_path / "images") == sorted(path.name for path in few)


def test_two_processes_give_the_same(many: list[Path], tmp_path: Path) -> None:
    pixels = decoded(many, SIZE, tmp_path)
    assert np.array_equal(pixels, by_hand(many))
    assert len(files(tmp_path)) == 1


def test_a_second_call_decodes_nothing(few: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decoded(few, SIZE, tmp_path / "cache")
    monkeypatch.setattr(cache, "decode", never)
    monkeypatch.chdir(tmp_path / "images")
    again = decoded([path.name for path in few], SIZE, tmp_path / "cache")
    assert np.array_equal(first, again)
    with pytest.raises(AssertionError):
        decoded(few, SIZE + 1, tmp_path / "cache")


def rewritten(path: Path) -> None:
    draw(path, 5)


def touched(path: Path) -> None:
    """Other pixels in as many bytes; only the time tells."""
    content = path.read_bytes()
    time_before = path.stat().st_mtime_ns
    image = Image.open(path).copy()
    image.putpixel((0, 0), (0, 0, 0))
    path.write_bytes(content)
    os.utime(path, ns=(time_before, time_before + 1))


def grown(path: Path) -> None:
    """Another size at the same time."""
    time_before = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b" ")
    os.utime(path, ns=(time_before, time_before))


@pytest.mark.parametrize("change", [rewritten, touched, grown])
def test_a_changed_image_makes_the_cache_anew(few: list[Path], tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = tmp_path / "cache"
    decoded(few, SIZE, folder)
    other_size = decoded(few, SIZE * 2, folder)
    before = files(folder)
    change(few[3])
    assert np.array_equal(decoded(few, SIZE, folder), by_hand(few))
    after = files(folder)
    assert len(after) == 2  # the outdated one is gone, the one of the other size is nobody's business
    assert len(set(before) & set(after)) == 1
    assert other_size.shape[-1] == SIZE * 2


def test_another_list_of_images_has_another_cache(few: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    for paths in (few, few[:4], few[::-1], [*few, few[0]]):
        assert np.array_equal(decoded(paths, SIZE, folder), by_hand(paths))
    assert len(files(folder)) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:20],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: bytes(len(content)),
        lambda content: content.replace(b"|u1", b"|i1", 1),
        lambda content: content.replace(b"(8, 3,", b"(3, 8,", 1),
        lambda content: content.replace(b"{'descr'", b"{{{{{{{{", 1),
    ],
)
def test_a_damaged_cache_is_made_anew(few: list[Path], tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = tmp_path / "cache"
    decoded(few, SIZE, folder)
    file = folder / files(folder)[0]
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(damage(whole))
    assert file.read_bytes() != whole
    assert np.array_equal(decoded(few, SIZE, folder), by_hand(few))
    assert file.read_bytes() == whole
    assert files(folder) == [file.name]


@pytest.mark.parametrize("count", [8, MANY])
def test_a_broken_image_is_named_and_nothing_is_left(many: list[Path], tmp_path: Path, count: int) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(many[0].read_bytes()[:500])
    paths = [*many[: count - 2], broken, many[0]]
    with pytest.raises(InputError, match="cannot read the image .*broken.png"):
        decoded(paths, SIZE, tmp_path / "cache")
    assert files(tmp_path / "cache") == []


def test_missing_images_are_named(few: list[Path], tmp_path: Path) -> None:
    few[2].unlink()
    with pytest.raises(InputError, match=r"the image .*2.png is missing"):
        decoded(few, SIZE, tmp_path / "cache")
    with pytest.raises(InputError, match="there are no images"):
        decoded([], SIZE, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


# Folders and disks that cannot be written


def in_a_child(work: Callable[[], None], before: Callable[[], None] = lambda: None) -> str:
    """What ``work`` says it failed with, in a forked process of its own in which ``before`` is called first."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before()
            work()
            answer = "no error"
        except InputError as error:
            answer = f"InputError: {error}"
        except BaseException as error:  # the parent's pytest must not go on here
            answer = repr(error)
        os.write(send, answer.encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as answers:
        answer = answers.read()
    assert os.waitpid(child, 0)[1] == 0, "the child was ended by a signal"
    return answer


def drop_privileges() -> None:
    """Become nobody: root may write anywhere."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """A folder that nobody can get at, in spite of the private ones above it."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


def test_a_folder_that_may_not_be_written_is_refused_in_words(few: list[Path], open_to_all: Path) -> None:
    folder = open_to_all / "read_only"
    folder.mkdir()
    folder.chmod(0o555)
    for place in (folder, folder / "within"):
        answer = in_a_child(lambda place=place: decoded(few, SIZE, place), before=drop_privileges)
        assert answer.startswith(f"InputError: cannot write the cache of decoded images in {place}: Permission denied")
        assert "choose another folder" in answer
    assert files(folder) == []


def test_a_whole_cache_is_read_from_a_folder_that_may_not_be_written(few: list[Path], open_to_all: Path) -> None:
    folder = open_to_all / "cache"
    decoded(few, SIZE, folder)
    folder.chmod(0o555)
    assert in_a_child(lambda: decoded(few, SIZE, folder), before=drop_privileges) == "no error"


def test_a_file_in_place_of_the_folder_is_refused_in_words(few: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(InputError, match="cannot write the cache"):
            decoded(few, SIZE, folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_room_is_looked_at_before_anything_is_decoded(
    few: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "decode", never)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=8 * 3 * SIZE**2 - 1))
    with pytest.raises(InputError, match="need 0.0 MB in .*cache, where 0.0 MB are free; make room"):
        decoded(few, SIZE, tmp_path / "cache")


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A disk of its own for a folder, or False where this user may mount none."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = sys.platform == "linux" and os.getuid() == 0
    mounted = mounted and subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def limit_files_to_256_kb() -> None:
    """What a user without a disk to fill can do: the system then refuses to write on, likewise in the middle."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, 256 * 1024))


def test_a_disk_that_fills_up_meanwhile_is_an_error_in_words(
    many: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a SIGBUS, which a store into a map on a full disk would be: then the child would not answer."""
    with small_disk(tmp_path / "disk", "256k") as mounted:
        folder = tmp_path / "disk"
        if mounted:
            with pytest.raises(InputError, match=r"need 0.5 MB in .*disk, where 0.3 MB are free; make room"):
                decoded(many, SIZE, folder)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))  # others fill it meanwhile
        before = (lambda: None) if mounted else limit_files_to_256_kb
        answer = in_a_child(lambda: decoded(many, SIZE, folder), before)
        refusal = os.strerror(errno.ENOSPC if mounted else errno.EFBIG)
        assert answer.startswith(
            f"InputError: cannot write the cache of decoded images in {folder}: {refusal}; make room"
        )
        assert files(folder) == []
        assert np.array_equal(decoded(many[:100], SIZE, folder), by_hand(many[:100]))  # and what has room has room


# Several processes, and processes that are ended

MAKE = """
import sys
from pathlib import Path
from helpers.sources.cache import decoded
from helpers.cli import CommandLine
folder, size, *paths = Path(sys.argv[1]).read_text().splitlines()
sys.exit(CommandLine(prog="make").run(lambda: print(decoded(paths, int(size), Path(folder))[-1, 0, 0, 0], flush=True)))
"""


def start_making(paths: list[Path], folder: Path) -> subprocess.Popen:
    """Another Python that makes the cache, in a process group of its own."""
    order = folder.with_name(f"{folder.name}.order")
    order.write_text("\n".join([str(folder), str(SIZE), *map(str, paths)]))
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, str(order)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def test_two_that_make_it_at_once(many: list[Path], tmp_path: Path) -> None:
    processes = [start_making(many, tmp_path / "cache") for _ in range(3)]
    for process in processes:
        answer, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert int(answer) == by_hand(many[-1:])[0, 0, 0, 0]
    assert len(files(tmp_path / "cache")) == 1
    assert np.array_equal(decoded(many, SIZE, tmp_path / "cache"), by_hand(many))


def test_one_that_waits_finds_it_made(few: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    with cache.lock(folder) as alone:
        assert alone
        waiting = start_making(few, folder)
        assert "waiting for another process" in waiting.stderr.readline()
        file = folder / f"{cache.name_images([str(p) for p in few])}-{SIZE}px-{cache.name_state(few)}.npy"
        cache.write_file(file, few, (8, 3, SIZE, SIZE))
        made = file.stat()
    assert waiting.communicate(timeout=60)[0].strip() == str(by_hand(few)[-1, 0, 0, 0])
    assert waiting.returncode == 0
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_without_locks_several_processes_still_make_a_right_one(
    many: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows. What another process is writing is then left alone."""
    monkeypatch.setattr(cache, "fcntl", None)
    (tmp_path / "another.7.partial").write_bytes(b"half")
    with ProcessPoolExecutor(2) as pool:
        for making in [
            pool.submit(np.sum, decoded(many, SIZE, tmp_path)),
            pool.submit(make_without_locks, many, tmp_path),
        ]:
            assert making.result() == by_hand(many).sum()
    assert len(files(tmp_path)) == 2
    assert (tmp_path / "another.7.partial").exists()


def make_without_locks(paths: list[Path], folder: Path) -> int:
    cache.fcntl = None
    return decoded(paths, SIZE, folder).sum()


def killed_at_random(many: list[Path], folder: Path, moments: int) -> int:
    """Kill the maker with -9 at random moments; each time the next start must be right, byte for byte.

    Returns how often it left half a file.
    """
    halves = 0
    expected = by_hand(many)
    process = start_making(many, folder)
    wait_for(lambda: files(folder) != [])
    began = time.monotonic()
    assert process.wait(60) == 0
    duration = time.monotonic() - began
    generator = random.Random(0)
    for moment in range(moments):
        shutil.rmtree(folder)
        process = start_making(many, folder)
        if moment % 4:  # while it is written; every fourth time, anywhere from the start of Python on
            wait_for(lambda process=process: files(folder) != [] or process.poll() is not None)
        time.sleep(generator.uniform(0, duration))
        process.kill()
        process.communicate()
        wait_for(lambda process=process: group_is_gone(process.pid))  # its workers end by themselves
        halves += any(name.endswith(".partial") for name in files(folder))
        whole = [name for name in files(folder) if name.endswith(".npy")]
        for name in whole:
            assert np.array_equal(np.load(folder / name), expected)
        assert np.array_equal(decoded(many, SIZE, folder), expected)
        assert len(files(folder)) == 1
    return halves


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_killed_in_the_middle(many: list[Path], tmp_path: Path) -> None:
    killed_at_random(many, tmp_path / "cache", 2)


@pytest.mark.long
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    paths = [draw(tmp_path / "images" / f"{number}.png", number) for number in range(4000)]
    assert killed_at_random(paths, tmp_path / "cache", 20) > 5


def is_being_written(folder: Path) -> bool:
    return any(path.stat().st_size > 10_000 for path in folder.glob("*.partial"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing(many: list[Path], tmp_path: Path, number: int) -> None:
    """As Ctrl-C in a terminal sends it: to the process and its workers alike."""
    folder = tmp_path / "cache"
    process = start_making(many * 20, folder)
    wait_for(lambda: is_being_written(folder))
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    answer, error = process.communicate(timeout=60)
    assert (process.returncode, answer) == (128 + number, ""), error
    assert "Traceback" not in error
    assert files(folder) == []


def test_a_worker_that_is_killed_is_an_error_in_words(many: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    process = start_making(many * 20, folder)
    wait_for(lambda: is_being_written(folder))
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], check=True, capture_output=True, text=True)
    os.kill(int(workers.stdout.split()[0]), signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "a process that decoded images was ended from outside" in error
    assert "Traceback" not in error
    assert files(folder) == []


# Reading


def resident() -> int:
    """Bytes of this process in memory, mapped files among them."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which is Linux's")
def test_reading_a_mapped_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    rows, size = 4000, 96  # 110 MB
    with (tmp_path / "pixels.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, 3, size, size)}
        np.lib.format.write_array_header_1_0(file, header)
        for row in range(rows):
            file.write(bytes([row % 251]) * (3 * size * size))
    pixels = cache.map_file(tmp_path / "pixels.npy", (rows, 3, size, size))
    reader = Rows(pixels)
    order = list(range(rows))
    random.Random(0).shuffle(order)
    before = resident()
    for start in range(0, rows, 100):
        batch = reader.read(order[start : start + 100])
        assert batch[:, 2, -1, -1].tolist() == [row % 251 for row in order[start : start + 100]]
    assert resident() - before < 20e6
    assert pixels.sum() > 0
    assert resident() - before > 100e6  # what it would have grown by


@pytest.mark.parametrize("without", [[], ["preadv"]])
def test_rows_are_those_of_the_map(few: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without) -> None:
    for name in without:  # Windows
        monkeypatch.delattr(os, name)
    pixels = decoded(few, SIZE, tmp_path / "cache")
    rows = pickle.loads(pickle.dumps(Rows(pixels)))
    assert np.array_equal(rows.read([3, 0, 7, 3]), pixels[[3, 0, 7, 3]])
    assert rows.read([5]).flags.writeable
    assert len(pickle.dumps(rows)) < 1000
    os.truncate(pixels.filename, pixels.offset + 7 * 3 * SIZE**2 + 1)
    assert np.array_equal(rows.read([6]), by_hand(few[6:7]))
    with pytest.raises(InputError, match="has been cut short; remove it and start again"):
        rows.read([6, 7])

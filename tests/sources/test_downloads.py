import hashlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers.files import InputError
from helpers.sources.download import COCO, Source, Unreachable, download, download_coco, unpack

CONTENT = bytes(index * index % 251 for index in range(300_000))
MD5 = hashlib.md5(CONTENT).hexdigest()
SIZE = len(CONTENT)
Answer = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """Answers with the next of the server's ``answers``, and properly, ranges included, when they are used up."""

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        self.server.asked.append((self.path, self.headers.get("Range")))
        if content is None:
            self.send_error(404)
        elif self.server.answers:
            self.server.answers.pop(0)(self, content)
        else:
            in_full(self, content)

    def begin(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def in_full(handler: Handler, content: bytes, sent: int | None = None) -> None:
    """The bytes that were asked for, of which no more than ``sent`` go out before the connection closes."""
    if asked := handler.headers.get("Range"):
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            handler.begin(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
            return
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.begin(206, Content_Length=len(content) - start, Content_Range=span)
        handler.wfile.write(content[start:][:sent])
    else:
        handler.begin(200, Content_Length=len(content))
        handler.wfile.write(content[:sent])


def cut_after(sent: int) -> Answer:
    return lambda handler, content: in_full(handler, content, sent)


def status(code: int, **headers: str) -> Answer:
    return lambda handler, _: handler.begin(code, Content_Length=0, **headers)


def without_ranges(handler: Handler, content: bytes) -> None:
    handler.begin(200, Content_Length=len(content))
    handler.wfile.write(content)


def without_length(handler: Handler, content: bytes) -> None:
    handler.begin(200)
    handler.wfile.write(content)


def another_range(handler: Handler, content: bytes) -> None:
    """What a careless proxy does: it says 206 and begins at the beginning."""
    span = f"bytes 0-{len(content) - 1}/{len(content)}"
    handler.begin(206, Content_Length=len(content), Content_Range=span)
    handler.wfile.write(content)


def login_page(handler: Handler, _: bytes) -> None:
    handler.begin(200, Content_Type="text/html; charset=utf-8")
    handler.wfile.write(b"<html>Welcome to the hotel</html>")


def not_http(handler: Handler, _: bytes) -> None:
    handler.wfile.write(b"220 ftp ready\r\n")


def silence(handler: Handler, content: bytes) -> None:
    """Half of the bytes, and then nothing until the test is over."""
    handler.begin(200, Content_Length=len(content))
    handler.wfile.write(content[: len(content) // 2])
    handler.wfile.flush()
    handler.server.over.wait(30)


class Server(ThreadingHTTPServer):
    """Serves ``files``, and keeps in ``asked`` each request's path and range."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/data.bin": CONTENT}
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str | None]] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.bin"

    def handle_error(self, *_: object) -> None:
        """A client that goes away in the middle is what several tests are about."""

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.asked]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


def fetch(server: Server, path: Path, **changes: object) -> None:
    download(**{"url": server.url, "path": path, "size": SIZE, "md5": MD5, "waits": (0.0, 0.0)} | changes)


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_file_comes_whole_and_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "data.bin"
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    fetch(server, path)
    assert server.ranges == [None]
    assert os.listdir(path.parent) == ["data.bin"]


def test_a_connection_cut_off_is_taken_up_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.answers = [cut_after(100_000), cut_after(50_000), status(503), cut_after(50_000), cut_after(0)]
    fetch(server, tmp_path / "data.bin")  # two waits suffice, since they count anew after each step forward
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    starts = [None, 100_000, 150_000, 150_000, 200_000, 200_000]
    assert server.ranges == [start and f"bytes={start}-" for start in starts]


def test_a_server_that_falls_silent_is_left_and_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers = [silence]
    fetch(server, tmp_path / "data.bin", timeout=0.2)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_part_is_kept_when_the_waits_are_used_up_and_the_next_run_goes_on(server: Server, tmp_path: Path) -> None:
    server.answers = [cut_after(100_000), cut_after(0), cut_after(0)]
    with pytest.raises(Unreachable, match=r"broke off after 100.0 kB of 300.0 kB; try again later, or fetch http"):
        fetch(server, tmp_path / "data.bin")
    assert os.listdir(tmp_path) == ["data.bin.part"]
    fetch(server, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=100000-"


@pytest.mark.parametrize("answer", [without_ranges, another_range, status(416)])
def test_a_server_without_ranges_sends_all_of_it_anew(server: Server, tmp_path: Path, answer: Answer) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"?" * 1000)  # whatever it holds, none of it must be left
    server.answers = [answer]
    fetch(server, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_server_that_names_no_length_is_believed_by_the_bytes(server: Server, tmp_path: Path) -> None:
    server.answers = [without_length]
    fetch(server, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_part_that_is_complete_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    download(f"http://127.0.0.1:{closed_port()}/data.bin", tmp_path / "data.bin", SIZE, MD5)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["data.bin"]


def test_a_part_longer_than_the_file_is_begun_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT + b"?")
    fetch(server, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_part_is_removed_once_the_file_was_fetched_by_hand(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    (tmp_path / "data.bin").write_bytes(CONTENT)
    fetch(server, tmp_path / "data.bin")
    assert os.listdir(tmp_path) == ["data.bin"]
    assert server.asked == []


@pytest.mark.parametrize("found", [CONTENT[:-1], CONTENT + b"?", b"", b"?" + CONTENT[1:]])
def test_a_file_that_is_another_one_is_named_and_left(server: Server, tmp_path: Path, found: bytes) -> None:
    (tmp_path / "data.bin").write_bytes(found)
    with pytest.raises(InputError, match=r"data\.bin is not the file of http.*it has .* instead of .*; move it away"):
        fetch(server, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == found


def test_a_wrong_checksum_removes_what_came(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"has the MD5 {MD5} instead of {'0' * 32}.*it was removed"):
        fetch(server, tmp_path / "data.bin", md5="0" * 32)
    assert os.listdir(tmp_path) == []


def test_a_wrong_size_is_seen_before_anything_is_fetched_and_a_part_survives_it(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(Unreachable, match="has 300,000 bytes instead of 300,001"):
        fetch(server, tmp_path / "data.bin", size=SIZE + 1)
    server.answers = [login_page]
    with pytest.raises(Unreachable, match="is answered with a web page; does your network ask you to log in"):
        fetch(server, tmp_path / "data.bin")
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:1000]


def test_too_much_data_is_stopped(server: Server, tmp_path: Path) -> None:
    server.answers = [without_length]
    with pytest.raises(InputError, match="sends more than the 1,000 bytes it should"):
        fetch(server, tmp_path / "data.bin", size=1000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([status(404)], "is no longer there .HTTP 404"),
        ([status(403)], "is not given out to you, by its server or by your network .HTTP 403"),
        ([status(500)] * 3, "has a fault of its own or too much to do .HTTP 500"),
        ([status(204)], "an answer that makes no sense here .HTTP 204"),
        ([status(206)], "an answer that makes no sense here .HTTP 206"),
        ([status(302, Location="file:///etc/hostname")], "leads on to an address that is not followed"),
        ([status(302, Location="ftp://127.0.0.1/data.bin")], "leads on to an address that is not followed"),
        ([status(302, Location="/data.bin")] * 20, "leads on to an address that is not followed"),
        ([not_http] * 3, "gives no proper answer"),
    ],
)
def test_what_a_server_refuses_is_fetched_by_hand(
    server: Server, tmp_path: Path, answers: list[Answer], words: str
) -> None:
    server.answers = list(answers)
    path = tmp_path / "data.bin"
    with pytest.raises(Unreachable, match=f"{words}.*fetch {server.url} by hand, put it at {path}, and run this again"):
        fetch(server, path)
    assert not path.exists()


def test_a_fault_of_the_server_that_passes_is_waited_out(server: Server, tmp_path: Path) -> None:
    server.answers = [status(500), status(429)]
    fetch(server, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_redirect_on_the_web_is_followed_with_its_range(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    server.answers = [status(302, Location="/data.bin")]
    fetch(server, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"] * 2


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:{port}/data.bin", "127.0.0.1:[0-9]+ refuses the connection"),
        ("http://no-such-host.invalid/data.bin", "the name no-such-host.invalid is not found: there is no network"),
        ("https://127.0.0.1:{plain}/data.bin", "127.0.0.1:[0-9]+ cannot be reached safely"),
    ],
)
def test_without_network_it_says_at_once_what_to_fetch_by_hand(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, words: str
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    url = address.format(port=closed_port(), plain=server.server_port)
    with pytest.raises(Unreachable, match=f"{words}.*fetch {url} by hand, put it at {tmp_path / 'data.bin'}, and run"):
        fetch(server, tmp_path / "data.bin", url=url, waits=(float("nan"),))  # which no one can sleep for
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/hostname",
        "ftp://127.0.0.1/x",
        "data.bin",
        "",
        "http://",
        "http://[::1",
        "http://a:99999/",
        "http://a/b c",
    ],
)
def test_only_web_addresses_are_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="is no web address; it must begin with http:// or https://"):
        download(url, tmp_path / "x", 10, MD5)
    assert os.listdir(tmp_path) == []


def test_a_disk_without_room_is_not_begun_on(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.bin needs 1,000,000,000\.0 GB on the disk of .*are free; make room"):
        fetch(server, tmp_path / "data.bin", size=10**18)
    assert server.asked == []


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"cannot write in {tmp_path / 'file'}: .*name a folder that you may write in"):
        fetch(server, tmp_path / "file" / "data.bin")


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen]:
    """A process that runs ``code`` with this module's imports, killed in the end if it still runs."""
    command = [sys.executable, "-c", f"import sys\nfrom pathlib import Path\nfrom helpers.downloads import *\n{code}"]
    with subprocess.Popen([*command, *map(str, arguments)], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited for 30 s"
        time.sleep(0.001)


DOWNLOAD = "download(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_download_that_was_killed_goes_on_in_another_process(server: Server, tmp_path: Path, number: int) -> None:
    server.answers = [silence]
    part = tmp_path / "data.bin.part"
    arguments = (server.url, tmp_path / "data.bin", SIZE, MD5)
    with child(DOWNLOAD, *arguments) as process:
        wait_until(lambda: part.exists() and part.stat().st_size >= 100_000)
        process.send_signal(number)
        process.wait()
    held = part.stat().st_size
    assert part.read_bytes() == CONTENT[:held]
    with child(DOWNLOAD, *arguments) as process:
        process.wait()
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={held}-"]


def test_two_downloads_of_one_file_do_not_mix(server: Server, tmp_path: Path) -> None:
    def meanwhile(handler: Handler, content: bytes) -> None:
        handler.begin(200, Content_Length=len(content))
        handler.wfile.write(content[:150_000])
        handler.wfile.flush()
        wait_until(lambda: part.exists() and part.stat().st_size >= 100_000)
        with part.open("ab") as other:
            other.write(b"of another process")
        handler.wfile.write(content[150_000:])

    part = tmp_path / "data.bin.part"
    server.answers = [meanwhile]
    with pytest.raises(InputError, match=r"data\.bin\.part is being written by another run too"):
        fetch(server, tmp_path / "data.bin")


def zipped(path: Path, members: dict[str, bytes] | list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items() if isinstance(members, dict) else members:
            file.writestr(name, content)
    return path


def unix_entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_archive_becomes_a_folder(tmp_path: Path) -> None:
    content = {"pictures/a.jpg": b"a" * 100_000, "pictures/more/b.jpg": b"", "pictures/c.txt": "猫".encode()}
    archive = zipped(tmp_path / "pictures.zip", [("pictures/", b""), *content.items()])
    unpack(archive, tmp_path / "pictures")
    assert files_in(tmp_path / "pictures") == {name.removeprefix("pictures/"): value for name, value in content.items()}
    unpack(archive, tmp_path / "other")
    assert files_in(tmp_path / "other") == content
    unpack(archive, tmp_path / "few", only=["pictures/c.txt"])
    assert files_in(tmp_path / "few") == {"pictures/c.txt": "猫".encode()}


def test_a_folder_with_something_in_it_is_left(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"x": b"new"})
    (tmp_path / "a").mkdir()
    unpack(archive, tmp_path / "a")
    (tmp_path / "a" / "x").write_bytes(b"mine")
    unpack(archive, tmp_path / "a")
    assert files_in(tmp_path / "a") == {"x": b"mine"}


def altered(path: Path, content: bytes, **said: int) -> Path:
    """A zip whose list of members says of its one member what is not so."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb", content)
        for name, value in said.items():
            setattr(file.infolist()[0], name, value)
    return path


def damaged(path: Path) -> Path:
    """A zip of which one byte of content, not of the list at its end, is another."""
    content = bytearray(zipped(path, {"first": b"1", "second": os.urandom(50_000)}).read_bytes())
    content[25_000] ^= 255
    path.write_bytes(content)
    return path


def with_null(path: Path) -> Path:
    return written(path, zipped(path, {"a.txt_.jpg": b""}).read_bytes().replace(b"a.txt_.jpg", b"a.txt\0.jpg"))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def shortened(path: Path, by: int) -> Path:
    return written(path, path.read_bytes()[:-by])


GOOD = ("good.txt", b"good")
LINK = stat.S_IFLNK | 0o777
OUTSIDE = "has no place inside a folder; nothing was unpacked"
SPECIAL = "is a link or a device; nothing was unpacked"
BROKEN = "is broken .*nothing was unpacked, fetch it again"
TAKEN = "takes the place of another member"
MALICIOUS = {
    "parent": (lambda p: zipped(p, [GOOD, ("../evil", b"")]), r"'\.\./evil' " + OUTSIDE),
    "parent within": (lambda p: zipped(p, [GOOD, ("a/../../evil", b"")]), OUTSIDE),
    "parent with spaces": (lambda p: zipped(p, [GOOD, ("a/.. /evil", b"")]), OUTSIDE),
    "absolute": (lambda p: zipped(p, [GOOD, ("/evil", b"")]), "'/evil' " + OUTSIDE),
    "drive": (lambda p: zipped(p, [GOOD, ("C:/evil", b"")]), "'C:/evil' " + OUTSIDE),
    "drive without slash": (lambda p: zipped(p, [GOOD, ("C:evil", b"")]), "'C:evil' " + OUTSIDE),
    "backslashes": (lambda p: zipped(p, [GOOD, ("a\\..\\..\\evil", b"")]), OUTSIDE),
    "host": (lambda p: zipped(p, [GOOD, ("//host/share/evil", b"")]), OUTSIDE),
    "null": (with_null, OUTSIDE),
    "link and through it": (
        lambda p: zipped(p, [GOOD, (unix_entry("door", LINK), b"/"), ("door/evil", b"")]),
        "'door' " + SPECIAL,
    ),
    "pipe": (lambda p: zipped(p, [GOOD, (unix_entry("pipe", stat.S_IFIFO | 0o600), b"")]), SPECIAL),
    "two of one name": (lambda p: zipped(p, [GOOD, ("GOOD.txt", b"other")]), "'GOOD.txt' " + TAKEN),
    "file as folder": (lambda p: zipped(p, [GOOD, ("good.txt/x", b"")]), TAKEN),
    "folder as file": (lambda p: zipped(p, [("a/x", b""), ("a", b"")]), TAKEN),
    "more bytes than said": (lambda p: altered(p, bytes(5_000_000), file_size=1000), BROKEN),
    "fewer bytes than said": (lambda p: altered(p, b"abc", file_size=6_000_000), "does not have the 6,000,000 bytes"),
    "said to fill any disk": (
        lambda p: altered(p, b"", file_size=10**18),
        "1,000,000,000.0 GB on the disk of .*make room",
    ),
    "encrypted": (lambda p: altered(p, b"abc", flag_bits=1), "is broken .*password required.*nothing was unpacked"),
    "damaged": (damaged, BROKEN),
    "cut short": (lambda p: shortened(zipped(p, [GOOD]), 10), "is no zip archive, or its end is missing"),
    "no archive": (lambda p: written(p, b"<html>not found</html>"), "is no zip archive"),
    "empty file": (lambda p: written(p, b""), "is no zip archive"),
    "no file": (lambda p: p, "there is no archive"),
}


@pytest.mark.parametrize(("make", "words"), MALICIOUS.values(), ids=MALICIOUS)
def test_an_archive_that_is_bad_in_one_place_leaves_nothing(
    tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    room = tmp_path / "deep" / "room"
    room.mkdir(parents=True)
    archive = make(tmp_path / "bad.archive")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=words) as caught:
        unpack(archive, room / "folder")
    assert str(archive) in str(caught.value) or "make room" in words
    assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_without_what_is_wanted_is_named(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a/x": b""})
    with pytest.raises(InputError, match=r"a\.zip has no y, which should be in it"):
        unpack(archive, tmp_path / "a", only=["x", "y"])
    assert os.listdir(tmp_path) == ["a.zip"]


def test_a_file_where_the_folder_should_be_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(InputError, match="a is a file, and a folder of that name has to be there; move it away"):
        unpack(zipped(tmp_path / "a.zip", {"x": b""}), tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


STOPPED_AT_A_FILE = """
archive, folder, number, before = sys.argv[1], sys.argv[2], int(sys.argv[3]), iter(range(int(sys.argv[4])))
open_file = Path.open
def stop_or_open(path, mode):
    if next(before, None) is None:
        os.kill(os.getpid(), number)
    return open_file(path, mode)
Path.open = stop_or_open
unpack(archive, folder)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("before", [0, 20])
def test_a_folder_unpacked_in_part_is_never_taken_for_the_whole(tmp_path: Path, number: int, before: int) -> None:
    content = {f"folder/{index}": b"%d" % index * 100 for index in range(30)}
    archive, folder = zipped(tmp_path / "a.zip", content), tmp_path / "folder"
    with child(STOPPED_AT_A_FILE, archive, folder, number, before) as process:
        process.wait()
    assert process.returncode == -number
    assert not folder.exists()
    unpack(archive, folder)
    assert files_in(tmp_path) == {"a.zip": archive.read_bytes()} | content


@pytest.fixture
def coco(server: Server) -> dict[str, Source]:
    """A COCO of three photographs for val and two for train on the server, with its table of sources."""
    annotations = {"annotations/instances_val2017.json": b"{}"}
    numbers = {"val": (139, 285, 632), "train": (9, 25)}
    archives = {"annotations": ("/annotations/annotations_trainval2017.zip", annotations)}
    for split, ids in numbers.items():
        images = [{"id": number, "file_name": f"{number:012}.jpg"} for number in ids]
        captions = [{"id": number, "image_id": number, "caption": f"number {number}"} for number in ids]
        content = json.dumps({"images": images, "annotations": captions}).encode()
        annotations[f"annotations/captions_{split}2017.json"] = content
        photographs = {f"{split}2017/{number:012}.jpg": os.urandom(20_000) for number in ids}
        archives[split] = (f"/zips/{split}2017.zip", {f"{split}2017/": b""} | photographs)
    sources = {}
    for name, (path, members) in archives.items():
        with io.BytesIO() as memory:
            with zipfile.ZipFile(memory, "w") as file:
                for member, content in members.items():
                    file.writestr(member, content)
            server.files[path] = memory.getvalue()
        url = f"http://127.0.0.1:{server.server_port}{path}"
        sources[name] = Source(url, len(server.files[path]), hashlib.md5(server.files[path]).hexdigest())
    return sources


VAL = {
    "annotations/captions_train2017.json",
    "annotations/captions_val2017.json",
    *(f"val2017/{number:012}.jpg" for number in (139, 285, 632)),
}
TRAIN = {f"train2017/{number:012}.jpg" for number in (9, 25)}


def test_coco_is_laid_out_as_its_archives_unpack(
    server: Server, coco: dict[str, Source], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "data" / "coco"
    download_coco(out, "val", coco)
    assert set(files_in(out)) == VAL
    said = capsys.readouterr().out
    assert said.index("CC BY 4.0") < said.index("Flickr") < said.index("It comes as") < said.index("was removed")
    assert said.endswith(f"COCO val: 3 photographs with captions in {out}\n")
    download_coco(out, "val", coco)
    assert len(server.asked) == 2
    download_coco(out, "train", coco)
    assert set(files_in(out)) == VAL | TRAIN
    assert len(server.asked) == 3
    assert "\n".join(sorted(os.listdir(out))) == "annotations\ntrain2017\nval2017"


def test_coco_is_taken_from_archives_fetched_by_hand(server: Server, coco: dict[str, Source], tmp_path: Path) -> None:
    offline = {
        name: source._replace(url=f"http://127.0.0.1:{closed_port()}/{source.url.rpartition('/')[2]}")
        for name, source in coco.items()
    }
    with pytest.raises(Unreachable) as caught:
        download_coco(tmp_path, "val", offline)
    for name, file_name in (("annotations", "annotations_trainval2017.zip"), ("val", "val2017.zip")):
        assert offline[name].url in str(caught.value)
        assert str(tmp_path / file_name) in str(caught.value)
    (tmp_path / "annotations_trainval2017.zip").write_bytes(server.files["/annotations/annotations_trainval2017.zip"])
    with pytest.raises(
        Unreachable,
        match=f"fetch {offline['val'].url} by hand, put it at {tmp_path / 'val2017.zip'}, and run this again$",
    ):
        download_coco(tmp_path, "val", offline)
    (tmp_path / "val2017.zip").write_bytes(server.files["/zips/train2017.zip"])
    with pytest.raises(InputError, match=r"val2017\.zip is not the file of .*move it away"):
        download_coco(tmp_path, "val", offline)
    (tmp_path / "val2017.zip").write_bytes(server.files["/zips/val2017.zip"])
    download_coco(tmp_path, "val", offline)
    assert set(files_in(tmp_path)) == VAL
    assert server.asked == []


def test_coco_that_is_there_in_part_is_named(server: Server, coco: dict[str, Source], tmp_path: Path) -> None:
    download_coco(tmp_path, "val", coco)
    photograph = tmp_path / "val2017" / "000000000285.jpg"
    photograph.unlink()
    with pytest.raises(
        InputError, match=r"val2017 lacks 1 of 3 photographs that have captions, first 000000000285.jpg"
    ):
        download_coco(tmp_path, "val", coco)
    photograph.touch()
    captions = tmp_path / "annotations" / "captions_val2017.json"
    captions.write_text('{"images": [{"id": 1}]}')
    with pytest.raises(InputError, match=r"captions_val2017\.json is no caption file of COCO .*move the folder"):
        download_coco(tmp_path, "val", coco)
    captions.unlink()
    with pytest.raises(
        InputError, match=r"annotations is there, but has no captions_val2017\.json in it; move the folder"
    ):
        download_coco(tmp_path, "val", coco)


def test_coco_asks_for_room_and_for_a_split_that_has_captions(
    server: Server, coco: dict[str, Source], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="COCO 2017 has no captions for a split 'test'; choose val or train"):
        download_coco(tmp_path, "test", coco)
    huge = coco | {"val": coco["val"]._replace(size=10**18)}
    with pytest.raises(InputError, match=r"COCO val needs 2,000,000,000\.0 GB on the disk of .*make room"):
        download_coco(tmp_path, "val", huge)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write in .*file"):
        download_coco(tmp_path / "file", "val", coco)
    assert server.asked == []


def test_the_table_of_sources_is_well_formed() -> None:
    assert set(COCO) == {"annotations", "val", "train"}
    for source in COCO.values():
        assert len(bytes.fromhex(source.md5)) == 16
        assert source.url.startswith("http://images.cocodataset.org/")

"""Files from the network, whole or not at all: fetched with resume, checked, and unpacked into their own folder only.

The course itself needs no network. This is for the photographs of COCO, which are too many to come with it.
"""

import hashlib
import json
import lzma
import os
import re
import shutil
import socket
import ssl
import stat
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PureWindowsPath
from typing import IO, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from helpers.files import InputError

CHUNK = 1 << 16  # bytes


class Source(NamedTuple):
    """Where an archive is, and how we know that it came unchanged."""

    url: str
    size: int  # bytes
    md5: str  # hexadecimal


# COCO's own site gives the addresses, with http, but no checksums. Sizes: TensorFlow Datasets, url_checksums/coco.txt.
# MD5: mlverse's torchvision, R/dataset-coco.R; MLCommons' get-dataset-coco has the same for val and annotations.
COCO = {
    "annotations": Source(
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        252_907_541,
        "f4bbac642086de4f52a3fdda2de5fa2c",
    ),
    "val": Source("http://images.cocodataset.org/zips/val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
    "train": Source(
        "http://images.cocodataset.org/zips/train2017.zip", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"
    ),
}
CAPTION_FILES = ("captions_train2017.json", "captions_val2017.json")
COCO_NOTE = """\
COCO 2017. Its terms of use are at https://cocodataset.org/#termsofuse; in short:
- The captions belong to the COCO Consortium and are licensed under CC BY 4.0: name COCO where you use them.
- The photographs belong to those who took them, not to COCO. Using them has to keep to the terms of use of Flickr,
  where they come from, and whoever uses them answers for it.
"""


class Unreachable(InputError):  # noqa: N818  (named for what it tells)
    """The network or the server does not hand the file over; the message says how to come by it otherwise."""


class CutOff(Exception):  # noqa: N818  (no error yet: it is tried again)
    """A connection broke off or was not made, or the server has a bad moment."""

    def __init__(self, words: str, connected: bool = True) -> None:
        super().__init__(words)
        self.connected = connected


def download_coco(out: Path, split: str, sources: Mapping[str, Source] = COCO) -> None:
    """Fetch a split of COCO 2017 with its captions and lay it out in ``out`` as the official archives unpack.

    ::

        out/val2017/*.jpg                        (or train2017)
        out/annotations/captions_val2017.json    and captions_train2017.json

    What is there already is kept, archives fetched by hand included if they are the right ones. An archive is removed
    once it is unpacked, since that of "train" would take another 19 GB.

    Raises:
        InputError: as :func:`download` and :func:`unpack`; also for another split, or a folder that lacks photographs.
    """
    out = Path(out)
    if split not in ("val", "train"):
        raise InputError(f"COCO 2017 has no captions for a split {split!r}; choose val or train")
    photographs, annotations = out / f"{split}2017", out / "annotations"
    print(COCO_NOTE)
    with file_errors_told(out):
        missing = {
            folder: (sources[name], out / sources[name].url.rpartition("/")[2])
            for folder, name in ((annotations, "annotations"), (photographs, split))
            if not is_filled(folder)
        }
        # An archive and what is unpacked from it lie side by side for a while; photographs hardly shrink in a zip.
        held = sum(length(archive) + length(part_of(archive)) for _, archive in missing.values())
        total = sum(source.size for source, _ in missing.values())
        require_room(out, 2 * total - held, f"COCO {split}")
        if missing:
            print(f"It comes as {amount(total)}, and takes {amount(2 * total)} on the disk until all is unpacked.")
        if annotations in missing:
            obtain(missing, annotations, CAPTION_FILES)
        names = photographs_named(annotations / f"captions_{split}2017.json")
        if photographs in missing:
            obtain(missing, photographs)
        require_photographs(photographs, names)
    print(f"COCO {split}: {len(names):,} photographs with captions in {out}")


def obtain(missing: Mapping[Path, tuple[Source, Path]], folder: Path, only: Collection[str] | None = None) -> None:
    """Download and unpack one of the folders that are missing; a refusal names at once all that is to be fetched."""
    source, archive = missing[folder]
    try:
        download(source.url, archive, source.size, source.md5)
    except Unreachable as refusal:
        others = [
            f"{other.url} at {path}"
            for place, (other, path) in missing.items()
            if place != folder and not (path.exists() or is_filled(place))
        ]
        raise Unreachable(f"{refusal} (needed as well: {', '.join(others)})" if others else str(refusal)) from None
    unpack(archive, folder, only)
    archive.unlink()
    print(f"{archive} was removed: what the course needs of it is unpacked")


def photographs_named(captions: Path) -> set[str]:
    """The file names in a caption file."""
    again = f"move the folder {captions.parent} away and run this again"
    if not captions.is_file():
        raise InputError(f"{captions.parent} is there, but has no {captions.name} in it; {again}")
    try:
        return {str(image["file_name"]) for image in json.loads(captions.read_text(encoding="utf-8"))["images"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{captions} is no caption file of COCO ({reason(error)}); {again}") from None


def require_photographs(folder: Path, names: Collection[str]) -> None:
    missing = sorted(set(names) - {entry.name for entry in os.scandir(folder)})
    if missing:
        raise InputError(
            f"{folder} lacks {len(missing):,} of {len(names):,} photographs that have captions, first {missing[0]}; "
            "move the folder away and run this again"
        )


def download(
    url: str, path: Path, size: int, md5: str, waits: Sequence[float] = (1, 2, 4, 8), timeout: float = 30
) -> None:
    """Fetch ``url`` to ``path`` by way of ``path`` + ".part", which a later call goes on with.

    A file that is there already is checked and kept. A connection that breaks off is taken up again after each of
    ``waits`` in turn (seconds), counted anew whenever it got further; ``timeout`` (seconds) is for silence.

    Args:
        size: bytes the file must have.
        md5: what the MD5 of its bytes must be, in hexadecimal.

    Raises:
        Unreachable: if the network or the server says no; it says what to fetch by hand and where to put it.
        InputError: if the file is not the one expected, there is no room, or the folder cannot be written in.
    """
    require_web_address(url)
    path = Path(path)
    part = part_of(path)
    with file_errors_told(path.parent):
        if path.exists():
            if fault := difference(path, size, md5):
                raise InputError(f"{path} is not the file of {url}: it {fault}; move it away and run this again")
            part.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if length(part) > size:
            part.unlink()
        require_room(path.parent, size - length(part), path.name)
        receive_all(url, part, size, waits, timeout)
        if fault := difference(part, size, md5):
            part.unlink()
            raise InputError(
                f"what came from {url} {fault}: it was damaged on its way or has changed; "
                f"it was removed, so run this again, or fetch it by hand and put it at {path}"
            )
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, path)


def receive_all(url: str, part: Path, size: int, waits: Sequence[float], timeout: float) -> None:
    """Ask until ``part`` has ``size`` bytes, or ``waits`` are used up without getting further."""
    by_hand = f"fetch {url} by hand, put it at {part.with_suffix('')}, and run this again"
    began_with = furthest = length(part)
    waits_left = iter(waits)
    with tqdm(total=size, initial=furthest, unit="B", unit_scale=True, desc=part.stem, disable=None) as bar:
        while length(part) < size:
            try:
                receive(url, part, size, timeout, bar)
            except Unreachable as refusal:
                raise Unreachable(f"{refusal}; {by_hand}") from None
            except CutOff as trouble:
                if length(part) > furthest:
                    furthest, waits_left = length(part), iter(waits)
                offline = furthest == began_with and not trouble.connected  # waiting seconds mends no missing network
                wait = None if offline else next(waits_left, None)
                if wait is None:
                    raise Unreachable(f"{trouble}; try again later, or {by_hand}") from None
                bar.write(f"{trouble}; trying again in {wait:g} s", file=sys.stderr)
                time.sleep(wait)


def receive(url: str, part: Path, size: int, timeout: float, bar: tqdm) -> None:
    """Add to ``part`` what one connection brings; from the start where the server does not send from the middle."""
    response, have = ask(url, length(part), timeout)
    with response:
        if response.headers.get_content_type() == "text/html":
            raise Unreachable(f"{url} is answered with a web page; does your network ask you to log in?")
        announced = whole_size(response)
        if announced not in (None, size):
            raise Unreachable(f"{url} has {announced:,} bytes instead of {size:,}; it has changed")
        bar.n = have
        bar.refresh()
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := read(response, url):
                if os.fstat(file.fileno()).st_size != have:
                    raise InputError(f"{part} is being written by another run too; wait until that one is done")
                have += len(chunk)
                if have > size:
                    file.truncate(0)
                    raise InputError(f"{url} sends more than the {size:,} bytes it should; nothing of that was kept")
                file.write(chunk)
                file.flush()
                bar.update(len(chunk))
    if have < size:
        raise CutOff(f"the connection to {host(url)} broke off after {amount(have)} of {amount(size)}")


def ask(url: str, have: int, timeout: float) -> tuple[HTTPResponse, int]:
    """The server's answer to a request for the bytes from ``have`` on, and the byte that it truly begins with."""
    headers = {"User-Agent": "image-text-alignment-course", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = OPENER.open(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:  # the file has no such bytes: what we hold is of another one
            return ask(url, 0, timeout)
        raise http_trouble(url, error.code) from None
    except (OSError, HTTPException, ValueError) as error:
        raise network_trouble(url, error) from None
    begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status == 200:
        return response, 0
    if response.status == 206 and begins and int(begins[1]) == have:
        return response, have
    response.close()
    if have:
        return ask(url, 0, timeout)
    raise http_trouble(url, response.status)


def whole_size(response: HTTPResponse) -> int | None:
    """The size of the whole file in bytes, where the server says it."""
    if response.status == 206:
        said = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        said = response.headers.get("Content-Length", "")
    return int(said) if re.fullmatch("[0-9]{1,18}", said) else None


def read(response: HTTPResponse, url: str) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        raise CutOff(f"the connection to {host(url)} broke off ({reason(error)})") from None


def http_trouble(url: str, status: int) -> Unreachable | CutOff:
    """What a status of HTTP other than the ones hoped for means; a server's own faults are worth another try."""
    if status >= 500 or status in (408, 429):
        return CutOff(f"{host(url)} has a fault of its own or too much to do (HTTP {status})")
    if 300 <= status < 400:
        return Unreachable(f"{url} leads on to an address that is not followed (HTTP {status})")
    if status in (404, 410):
        return Unreachable(f"{url} is no longer there (HTTP {status})")
    if status in (401, 403, 407):
        return Unreachable(f"{url} is not given out to you, by its server or by your network (HTTP {status})")
    return Unreachable(f"{host(url)} gives an answer that makes no sense here (HTTP {status})")


def network_trouble(url: str, error: Exception) -> Unreachable | CutOff:
    """What kept a request from being answered at all."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(cause, socket.gaierror):
        return CutOff(f"the name {host(url)} is not found: there is no network, or it is closed", connected=False)
    if isinstance(cause, ConnectionRefusedError):
        return CutOff(f"{host(url)} refuses the connection", connected=False)
    if isinstance(cause, ssl.SSLError):
        return Unreachable(f"{host(url)} cannot be reached safely ({reason(cause)})")
    if isinstance(error, URLError):
        return CutOff(f"{host(url)} is not reached ({reason(cause)})", connected=False)
    if isinstance(error, (OSError, HTTPException)):
        return CutOff(f"{host(url)} gives no proper answer ({reason(cause)})")
    return Unreachable(f"{url} cannot be asked for ({reason(cause)})")


def require_web_address(url: str) -> None:
    """Raises InputError for anything that is no plain http or https address, such as a file of this machine."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not url.isascii() or re.search(r"[\x00-\x20\x7f]", url):
        raise InputError(f"{url!r} is no web address; it must begin with http:// or https:// and hold no spaces")


class WebRedirects(HTTPRedirectHandler):
    """Follows redirects to web addresses only; urllib itself would follow one to ftp."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


OPENER = build_opener(WebRedirects)


class Member(NamedTuple):
    """One entry of an archive."""

    name: str
    size: int  # bytes, as the archive says
    kind: str  # "file", "folder", or "special" for a link, a device and the like
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, only: Collection[str] | None = None) -> None:
    """Unpack a zip archive so that ``folder`` comes to be, whole or not at all, whenever this is interrupted.

    An archive whose members all lie in one folder of the same name as ``folder`` becomes that folder, not one in it. A
    folder that is there already, and not empty, is left as it is.

    Args:
        only: paths in ``folder`` of the files to unpack; all if None.

    Raises:
        InputError: naming archive and member, with nothing unpacked: for a member that leaves the folder or is a link
            or device, two of one name, a broken archive, one without a file of ``only``, sizes that are not true, or
            no room.
    """
    archive, folder = Path(archive), Path(folder)
    if is_filled(folder):
        return
    unpacking = folder.with_name(f".{folder.name}.unpacking")
    with file_errors_told(folder.parent), opened(archive) as members:
        wanted = {
            path: member
            for path, member in inside(archive, members, folder.name).items()
            if only is None or path in only
        }
        if absent := sorted(set(only or ()) - set(wanted)):
            raise InputError(f"{archive} has no {absent[0]}, which should be in it; fetch it again")
        require_room(folder.parent, sum(member.size for member in wanted.values()), folder.name)
        shutil.rmtree(unpacking, ignore_errors=True)
        unpacking.mkdir(parents=True)
        try:
            write_members(archive, wanted, unpacking)
            if folder.exists():
                folder.rmdir()
            os.replace(unpacking, folder)
        finally:
            shutil.rmtree(unpacking, ignore_errors=True)


def write_members(archive: Path, members: Mapping[str, Member], folder: Path) -> None:
    total = sum(member.size for member in members.values())
    with tqdm(total=total, unit="B", unit_scale=True, desc=f"unpacking {archive.name}", disable=None) as bar:
        for path, member in members.items():
            target = folder / path
            if member.kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            written = 0
            with member.open() as source, target.open("xb") as file:
                while chunk := source.read(CHUNK):
                    written += len(chunk)
                    if written > member.size:
                        break
                    file.write(chunk)
                    bar.update(len(chunk))
            if written != member.size:
                raise InputError(
                    f"{archive}: {member.name!r} does not have the {member.size:,} bytes that the archive says; "
                    "nothing was unpacked"
                )
    # Another run in the same folder clears away what it takes for a leftover, and might take ours.
    if not all((folder / path).exists() for path in members):
        raise InputError(f"another run unpacks {archive} at the same time; wait until it is done")


def inside(archive: Path, members: Sequence[Member], top: str) -> dict[str, Member]:
    """The members by their path in the folder that they become, all of them checked, in the order of the archive.

    Raises:
        InputError: naming the first member that is no plain file or folder, or has no place of its own in the folder.
    """
    # Windows' rules are the strictest: it knows drives and both slashes, makes no difference between "a" and "A", and
    # drops dots and spaces from the end of a name.
    placed = [(member, PureWindowsPath(member.name)) for member in members]
    files: set[PureWindowsPath] = set()
    folders: set[PureWindowsPath] = set()
    for member, path in placed:
        outside = path.drive or path.root or not all(part.strip(" .") for part in path.parts)
        if outside or re.search(r"[\\\0]", member.name) or (member.kind == "file" and not path.parts):
            raise InputError(f"{archive}: {member.name!r} has no place inside a folder; nothing was unpacked")
        if member.kind == "special":
            raise InputError(f"{archive}: {member.name!r} is a link or a device; nothing was unpacked")
        if path in files or not files.isdisjoint(path.parents) or (member.kind == "file" and path in folders):
            raise InputError(f"{archive}: {member.name!r} takes the place of another member; nothing was unpacked")
        folders.update(path.parents)
        (files if member.kind == "file" else folders).add(path)
    in_top = all(path.parts[0] == top for _, path in placed if path.parts) and PureWindowsPath(top) not in files
    inner = ("/".join(path.parts[1 if in_top else 0 :]) for _, path in placed)
    return {path: member for path, member in zip(inner, members, strict=True) if path}


# bz2 raises a bare OSError, zipfile a ValueError for offsets that cannot be and RuntimeError for a password.
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)


@contextmanager
def opened(archive: Path) -> Iterator[list[Member]]:
    """The members of a zip archive. Raises InputError if it is none, and for what turns out to be broken."""
    try:
        if not archive.is_file():
            raise InputError(f"there is no archive {archive}")
        if not zipfile.is_zipfile(archive):
            raise InputError(f"{archive} is no zip archive, or its end is missing; fetch it again")
        with zipfile.ZipFile(archive) as file:
            yield zip_members(file)
    except InputError:
        raise
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's fault, not the archive's
            raise
        raise InputError(f"{archive} is broken ({reason(error)}); nothing was unpacked, fetch it again") from None


def zip_members(file: zipfile.ZipFile) -> list[Member]:
    members = []
    for info in file.infolist():
        # ``filename`` has been cut at a null character and had its slashes turned; the check needs the name as it is.
        name = info.orig_filename
        plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
        kind = "special" if not plain else "folder" if name.endswith("/") else "file"
        members.append(Member(name, info.file_size, kind, partial(file.open, info)))
    return members


def difference(path: Path, size: int, md5: str) -> str:
    """How a file differs from the one expected, in words; empty if it does not."""
    if not path.is_file():
        return "is no file"
    if length(path) != size:
        return f"has {length(path):,} bytes instead of {size:,}"
    digest = hashlib.md5(usedforsecurity=False)
    with (
        path.open("rb") as file,
        tqdm(total=size, unit="B", unit_scale=True, desc=f"checking {path.name}", disable=None) as bar,
    ):
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return "" if digest.hexdigest() == md5 else f"has the MD5 {digest.hexdigest()} instead of {md5}"


@contextmanager
def file_errors_told(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into an InputError that names the file."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write in {folder}: {error.filename or 'its disk'}: {reason(error)}; "
            "make room, or name a folder that you may write in"
        ) from None


def require_room(folder: Path, needed: int, what: str) -> None:
    """Raises InputError if the disk of ``folder`` (which need not be there yet) has less free than ``needed`` bytes."""
    nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(nearest).free
    if needed > free:
        raise InputError(
            f"{what} needs {amount(needed)} on the disk of {nearest}, and {amount(free)} are free; make room"
        )


def is_filled(folder: Path) -> bool:
    """Whether there is such a folder with something in it. Raises InputError if it is a file."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, and a folder of that name has to be there; move it away")
    return folder.is_dir() and any(folder.iterdir())


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def host(url: str) -> str:
    return urlsplit(url).netloc


def amount(number: int) -> str:
    """Bytes as a person says them, such as "19.3 GB"."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number} bytes"


def reason(error: Exception) -> str:
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(words).split())

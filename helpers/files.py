"""Files and folders: errors that a student understands, and writes that happen completely or not at all."""

import codecs
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import charset_normalizer
from filelock import FileLock, Timeout

DATA = Path(__file__).resolve().parents[1] / "data"  # where the course keeps its pairs

# Encodings that Excel uses for non-Latin letters when it does not write UTF-8.
ENCODINGS = ["cp1251", "cp1253", "cp1256", "gb18030", "big5", "shift_jis", "cp949"]


class InputError(ValueError):
    """Input that the course cannot use. The message says what is wrong, where, and what to do."""


class WriteError(InputError):
    """A file or folder that cannot be written."""


def write_error(path: Path, error: OSError, partial: Path) -> OSError | WriteError:
    """A sentence about ``path`` if writing to ``partial`` failed; an error of another file stays as it is."""
    other = Path(error.filename or partial)
    if not (other.is_relative_to(partial) or path.is_relative_to(other)):
        return error
    return WriteError(f"cannot write {path} ({error.strerror or error}); free some space, or choose another folder")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces ``path`` when the block ends; after an error ``path`` is unchanged."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise write_error(path, error, partial) from None
    finally:
        with suppress(OSError):  # it is gone, or could not be written in the first place
            partial.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Create a temporary folder that becomes ``path``, which must not exist, when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    with locked(path):
        if path.exists():
            raise InputError(f"{path} exists already; remove it, or write to another folder")
        shutil.rmtree(partial, ignore_errors=True)  # a command that was killed may have left one
        try:
            partial.mkdir(parents=True)
            yield partial
            partial.rename(path)
        except OSError as error:
            raise write_error(path, error, partial) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Lock ``path`` for writing. If another process holds it, raise an error, or wait if ``wait``."""
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise InputError(f"{path} is in use by another command; wait until it ends, or choose another name") from None
    except OSError as error:
        raise WriteError(f"cannot write {path} ({error.strerror or error}); choose another folder") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            file.unlink()
        lock.release()


def read_text(path: Path) -> str:
    """Read a text file: UTF-8, UTF-16, or what the bytes look like; lines end in ``\\n``."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror})") from None
    encoding = "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in content[:2]:  # without a byte-order mark
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text, encoding = guess_encoding(content)
        if text is None:
            raise InputError(f"the encoding of {path} is unknown; save it as UTF-8") from None
        print(f"{path} is read as {encoding}; if letters look odd, save it as UTF-8", file=sys.stderr)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def guess_encoding(content: bytes) -> tuple[str | None, str]:
    """The text of bytes that are not UTF-8, and the encoding that they seem to have."""
    accented = [word for word in content.split() if not word.isascii()]
    beyond_ascii = sum(byte > 127 for word in accented for byte in word)
    if b"\0" not in content and (beyond_ascii <= 3 or beyond_ascii < 0.5 * sum(map(len, accented))):  # Latin letters
        macintosh = b"\r" in content and b"\n" not in content
        for encoding in ["mac_roman"] if macintosh else ["cp1252", "cp1250"]:
            with suppress(UnicodeDecodeError):
                return content.decode(encoding), encoding
    guess = charset_normalizer.from_bytes(content, cp_isolation=ENCODINGS).best()
    return (str(guess), guess.encoding) if guess else (None, "")


def counted(number: int, thing: str) -> str:
    """``1 image``, ``1,000 images``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def listed(names: Iterable[str]) -> str:
    """Up to five names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

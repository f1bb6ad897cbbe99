"""COCO's archives are downloaded with resume, checked, and unpacked, from a small server on this machine."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers.files import InputError
from helpers.sources import coco_download
from helpers.sources.coco_download import download, download_coco

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if self.server.resumes else 0
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.stop_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.starts, server.stop_at, server.resumes = {"/file": CONTENT}, [], None, True
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("resumes", [True, False])
def test_an_interrupted_download_continues(server: ThreadingHTTPServer, tmp_path: Path, resumes: bool) -> None:
    server.resumes, server.stop_at = resumes, 500_000
    with pytest.raises(InputError, match="run the command again to continue"):
        download(f"{server.url}/file", tmp_path / "file", len(CONTENT), MD5)
    server.stop_at = None
    download(f"{server.url}/file", tmp_path / "file", len(CONTENT), MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.starts == [0, 500_000 if resumes else 0]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_damaged_file_is_removed(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="arrived damaged and was removed"):
        download(f"{server.url}/file", tmp_path / "file", len(CONTENT), "0" * 32)
    assert not any(tmp_path.iterdir())


def test_a_missing_file_and_a_missing_server_are_named(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    for url in (f"{server.url}/gone", "http://127.0.0.1:9/file"):
        with pytest.raises(InputError, match=f"cannot download {url} .*run the command again"):
            download(url, tmp_path / "file", len(CONTENT), MD5)


def test_coco_is_laid_out_as_its_archives_unpack(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = {"annotations/captions_val2017.json": b"{}", "annotations/instances_val2017.json": b"{}"}
    archives = {}
    for name, members in (("annotations", captions), ("val2017", {"val2017/": b"", "val2017/1.jpg": b"one"})):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as file:
            for member, data in members.items():
                file.writestr(member, data)
        server.files[f"/{name}.zip"] = content.getvalue()
        md5 = hashlib.md5(content.getvalue()).hexdigest()
        archives[name] = (f"{server.url}/{name}.zip", len(content.getvalue()), md5)
    monkeypatch.setattr(coco_download, "ARCHIVES", archives)
    for _ in range(2):  # the second time downloads nothing
        download_coco(tmp_path / "coco", "val")
    assert len(server.starts) == 2
    paths = sorted(path.relative_to(tmp_path / "coco").as_posix() for path in (tmp_path / "coco").rglob("*.*"))
    assert paths == ["annotations/captions_val2017.json", "val2017/1.jpg"]

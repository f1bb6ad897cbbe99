"""COCO's archives are downloaded, checked and unpacked, from a small server on this machine."""

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
from helpers.sources.coco_download import download_coco


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.stop_at])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    captions = {"annotations/captions_val2017.json": b"{}", "annotations/instances_val2017.json": b"{}"}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.stop_at = {}, None
        archives = {}
        for name, members in (("annotations", captions), ("val2017", {"val2017/": b"", "val2017/1.jpg": b"one"})):
            content = io.BytesIO()
            with zipfile.ZipFile(content, "w") as file:
                for member, data in members.items():
                    file.writestr(member, data)
            server.files[f"/{name}.zip"] = content.getvalue()
            md5 = hashlib.md5(content.getvalue()).hexdigest()
            archives[name] = (f"http://127.0.0.1:{server.server_port}/{name}.zip", md5)
        monkeypatch.setattr(coco_download, "ARCHIVES", archives)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def laid_out(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))


ALL = ["annotations/captions_val2017.json", "annotations/instances_val2017.json", "val2017/1.jpg"]


def test_coco_is_laid_out_as_its_archives_unpack(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    download_coco(tmp_path / "coco", "val")
    server.files.clear()
    download_coco(tmp_path / "coco", "val")  # the second time downloads nothing
    assert laid_out(tmp_path / "coco") == ALL


def test_a_download_that_ended_early_begins_again(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    server.stop_at = 50
    with pytest.raises(InputError, match="cannot download .*run the command again"):
        download_coco(tmp_path / "coco", "val")
    server.stop_at = None
    download_coco(tmp_path / "coco", "val")
    assert laid_out(tmp_path / "coco") == ALL


def test_an_archive_that_was_half_unpacked_is_unpacked_again(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / "coco" / "val2017").mkdir(parents=True)
    (tmp_path / "coco" / "val2017.zip").write_bytes(server.files["/val2017.zip"])
    download_coco(tmp_path / "coco", "val")
    assert laid_out(tmp_path / "coco") == ALL


def test_a_missing_file_and_a_missing_server_are_named(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (f"http://127.0.0.1:{server.server_port}/gone", "http://127.0.0.1:9/file"):
        monkeypatch.setitem(coco_download.ARCHIVES, "annotations", (url, "0" * 32))
        with pytest.raises(InputError, match=f"cannot download {url} .*run the command again"):
            download_coco(tmp_path / "coco", "val")

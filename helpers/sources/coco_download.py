"""COCO 2017: photographs with five captions each, downloaded and unpacked.

Its terms of use are at https://cocodataset.org/#termsofuse: the captions are licensed under CC BY 4.0 (name COCO where
you use them), and the photographs belong to the people who took them and put them on Flickr.
"""

import hashlib
import http.client
import shutil
import urllib.request
import zipfile
from pathlib import Path

from tqdm import tqdm

from helpers.files import InputError, atomic_folder, locked

URL = "http://images.cocodataset.org"
ARCHIVES = {  # the address, the size in bytes and the MD5 of each archive
    "annotations": (f"{URL}/annotations/annotations_trainval2017.zip", 252_907_541, "f4bbac642086de4f52a3fdda2de5fa2c"),
    "val2017": (f"{URL}/zips/val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
    "train2017": (f"{URL}/zips/train2017.zip", 19_336_861_798, "cced6f7f71b7629ddf16f17bbcfab6b2"),
}


def download_coco(out: Path, split: str) -> None:
    """Download the photographs of "val" or "train" and the captions into ``out``; folders that are there are kept."""
    with locked(out):
        for name in ("annotations", f"{split}2017"):
            if not (out / name).is_dir():
                url, size, md5 = ARCHIVES[name]
                archive = out / url.rpartition("/")[2]
                download(url, archive, size, md5)
                unpack(archive, out / name)
                archive.unlink()


def download(url: str, path: Path, size: int, md5: str) -> None:
    """Download a file; an interrupted download continues where it stopped."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        if have < size:
            request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
            with urllib.request.urlopen(request, timeout=30) as response:
                have = have if response.status == 206 else 0  # 206: the server sends the rest, not the whole file
                file = part.open("ab" if have else "wb")
                with file, tqdm.wrapattr(file, "write", size, initial=have, desc=path.name, disable=None) as target:
                    shutil.copyfileobj(response, target, 1 << 20)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"cannot download {url} to {path} ({error}); run the command again to continue") from None
    if part.stat().st_size < size:
        raise InputError(f"the connection to {url} ended early; run the command again to continue")
    with part.open("rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() != md5:
            part.unlink()
            raise InputError(f"{url} arrived damaged and was removed; run the command again")
    part.replace(path)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files in the archive's folder of the same name as ``folder``; of the annotations only the captions."""
    prefix = "annotations/captions_" if folder.name == "annotations" else f"{folder.name}/"
    with zipfile.ZipFile(archive) as file, atomic_folder(folder) as partial:
        members = [member for member in file.infolist() if member.filename.startswith(prefix) and not member.is_dir()]
        for member in tqdm(members, f"unpacking {archive.name}", disable=None):
            member.filename = member.filename.rpartition("/")[2]
            file.extract(member, partial)

"""COCO 2017, downloaded and unpacked. Its terms of use are at https://cocodataset.org/#termsofuse."""

from pathlib import Path

from torchvision.datasets.utils import download_and_extract_archive

from helpers.files import InputError, locked

URL = "http://images.cocodataset.org"
ARCHIVES = {  # the address and the MD5 of each archive
    "annotations": (f"{URL}/annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"),
    "val2017": (f"{URL}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),
    "train2017": (f"{URL}/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),
}


def download_coco(out: Path, split: str) -> None:
    """Download the photographs of "val" or "train" and the captions into ``out``; existing folders are kept."""
    with locked(out):
        for name in ("annotations", f"{split}2017"):
            url, md5 = ARCHIVES[name]
            archive = out / url.rpartition("/")[2]  # removed once it is unpacked
            if (out / name).is_dir() and not archive.exists():
                continue
            try:
                download_and_extract_archive(url, out, md5=md5, remove_finished=True)
            except (OSError, RuntimeError) as error:
                raise InputError(f"cannot download {url} to {out} ({error}); run the command again") from None

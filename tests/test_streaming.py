"""Training input from shards: every sample once at most, on any number of ranks, the same bits when resumed."""

import contextlib
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import helpers.layouts
import helpers.shards
import helpers.streaming
from helpers.annotations import Record
from helpers.augmentation import Augmentation
from helpers.checkpoints import load_checkpoint
from helpers.command_line import InputError, Interrupted
from helpers.data import ImageTextDataset
from helpers.distributed import World
from helpers.layouts import open_pairs, read_shards
from helpers.scenes import write_scenes
from helpers.shards import counts_of, samples_of, write_shard
from helpers.streaming import (
    ArrivedPairs,
    ImageInShard,
    StreamedPairs,
    StreamLoader,
    captions_of,
    main,
    shards_by_split,
    shuffled,
    write_shards,
)
from helpers.text import WordTokenizer
from helpers.training import train

SIZES = (9, 12, 10, 12, 11, 9, 12, 8)  # samples of each shard
BATCH = 4
TOKENIZER = WordTokenizer.build([f"picture {row} from the left" for row in range(sum(SIZES))])


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Small images of one colour each, with one to three captions."""
    folder = tmp_path_factory.mktemp("images")
    made = []
    for row in range(sum(SIZES)):
        path = folder / f"{row}.png"
        Image.new("RGB", (20 + row % 7, 12), (3 * row, 255 - 3 * row, 7)).save(path)
        captions = [{"caption": f"picture {row} from the left, {k}"} for k in range(1 + row % 3)]
        made.append(Record({}, path, captions))
    return made


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> list[Path]:
    folder, first = tmp_path_factory.mktemp("shards"), 0
    for number, size in enumerate(SIZES):
        write_shard(folder / f"train-{number:06d}.tar", records[first : first + size], first)
        first += size
    return sorted(folder.iterdir())


def loader_of(shards: list[Path], **settings) -> StreamLoader:
    pairs = StreamedPairs(shards, **({"batch_size": BATCH, "image_size": 8, "buffer_size": 10} | settings))
    return StreamLoader(pairs, TOKENIZER)


def rows_of(loader: StreamLoader, epoch: int = 0, first_batch: int = 0) -> list[list[int]]:
    loader.dataset.set_epoch(epoch, first_batch)
    return [batch["image_ids"].tolist() for batch in loader]


def same(one: object, other: object) -> bool:
    """Whether two batches, or parts of them, are equal to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("captions", [1, 2])
@pytest.mark.parametrize("augment", [None, Augmentation(flip="exchange", crop=0.5)])
def test_a_sample_comes_as_from_a_dataset_of_its_files(
    shards: list[Path], records: list[Record], augment: Augmentation | None, captions: int
) -> None:
    texts = [[entry["caption"] for entry in record.annotations] for record in records]
    files = ImageTextDataset([record.path for record in records], texts, 8, 5, augment, captions)
    loader = loader_of(shards, seed=5, augment=augment, captions_per_image=captions)
    for epoch in (0, 3):
        files.set_epoch(epoch)
        loader.dataset.set_epoch(epoch)
        for batch in loader:
            items = [files[row] for row in batch["image_ids"].tolist()]
            assert same(batch, loader.collate_fn(items))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_make_equally_many_batches_and_no_sample_comes_twice_in_an_epoch(
    shards: list[Path], ranks: int, workers: int
) -> None:
    loaders = [loader_of(shards, here=World(rank, ranks), workers=workers) for rank in range(ranks)]
    seen: set[int] = set()
    orders = set()
    for epoch in range(2 if workers else 8):
        by_rank = [rows_of(loader, epoch) for loader in loaders]
        assert {len(batches) for batches in by_rank} == {len(loaders[0])}
        assert {len(batch) for batches in by_rank for batch in batches} == {BATCH // ranks}
        rows = [row for batches in by_rank for batch in batches for row in batch]
        assert max(Counter(rows).values()) == 1
        seen.update(rows)
        orders.add(tuple(rows))
    assert len(orders) == (2 if workers else 8)
    if not workers:
        assert seen == set(range(sum(SIZES)))  # what an epoch drops, others take in


def test_a_rank_alone_leaves_out_less_than_a_batch(shards: list[Path]) -> None:
    assert len(loader_of(shards)) == sum(SIZES) // BATCH


def test_the_shortest_shards_decide_how_many_batches_there_are(shards: list[Path]) -> None:
    of_four = loader_of(shards, here=World(3, 4))
    assert len(of_four) == (8 + 9) // 1  # two shards a rank, the smallest of all in the worst of epochs
    with_workers = StreamedPairs(shards, BATCH, here=World(0, 2), workers=3)
    assert len(with_workers) == 3 * (8 // 2)  # four by each worker, of one shard


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_epoch_gives_the_same_bits(shards: list[Path], workers: int, ranks: int) -> None:
    loader = loader_of(
        shards, workers=workers, here=World(ranks - 1, ranks), augment=Augmentation(crop=0.5), image_size=[8, 6]
    )
    loader.dataset.set_epoch(2)
    whole = list(loader)
    assert {batch["images"].shape[-1] for batch in whole} == {6, 8}
    for first_batch in (1, 2, 5, len(loader) - 1) if workers == 0 else (1, len(loader) - 2):
        loader.dataset.set_epoch(2, first_batch)
        resumed = list(loader)
        assert len(resumed) == len(whole) - first_batch
        assert all(same(batch, other) for batch, other in zip(resumed, whole[first_batch:], strict=True))


def test_the_batches_after_the_last_are_none(shards: list[Path]) -> None:
    loader = loader_of(shards)
    assert rows_of(loader, 0, len(loader)) == []


def test_skipping_decodes_nothing_and_opens_no_shard_that_is_done(
    shards: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = loader_of(shards, buffer_size=5)
    opened, decoded = [], []
    monkeypatch.setattr(helpers.streaming, "samples_of", lambda shard: opened.append(shard) or samples_of(shard))
    decode = ArrivedPairs.decode
    monkeypatch.setattr(ArrivedPairs, "decode", lambda self, row: decoded.append(row) or decode(self, row))
    rows_of(loader, 0, len(loader) - 2)
    assert len(decoded) == 2 * BATCH
    assert len(opened) <= 2


@pytest.mark.parametrize("buffer_size", [1, 5, 20, 1000])
def test_no_more_samples_are_in_memory_than_the_buffer_holds(
    shards: list[Path], buffer_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, most = 0, 0

    class Counted(ImageInShard):
        def __init__(self, *given: object) -> None:
            nonlocal held, most
            super().__init__(*given)
            held += 1
            most = max(most, held)

        def __del__(self) -> None:
            nonlocal held
            held -= 1

    monkeypatch.setattr(helpers.streaming, "ImageInShard", Counted)
    loader = loader_of(shards, buffer_size=buffer_size)
    for first_batch in (0, 7):
        most = 0
        rows_of(loader, 0, first_batch)
        assert held <= BATCH  # those of the last batch
        assert min(buffer_size, 40) <= most <= buffer_size + 2 * BATCH  # and a batch that is made, and one before it


def test_the_buffer_mixes_samples_that_lie_near(shards: list[Path]) -> None:
    order = list(shuffled(1000, 50, random.Random(1)))
    assert sorted(order) == list(range(1000))
    assert all(place < drawn + 50 for drawn, place in enumerate(order))  # none before it has arrived
    moved = sum(abs(place - drawn) for drawn, place in enumerate(order)) / 1000
    assert 20 < moved < 80
    assert list(shuffled(5, 1, random.Random(1))) == [0, 1, 2, 3, 4]


def test_all_ranks_have_one_image_size_in_a_batch(shards: list[Path]) -> None:
    sizes = [
        [batch["images"].shape[-1] for batch in loader_of(shards, here=World(rank, 2), image_size=[8, 6])]
        for rank in range(2)
    ]
    assert sizes[0] == sizes[1]
    assert set(sizes[0]) == {6, 8}


def test_another_seed_gives_another_order_and_the_same_seed_the_same(shards: list[Path]) -> None:
    first, again, other = (rows_of(loader_of(shards, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"here": World(0, 3), "batch_size": 6, "workers": 3}, "8 shards cannot be shared by 3 ranks with 3 workers"),
        ({"here": World(0, 3)}, "4 pairs cannot be shared equally by 3 processes"),
        ({"here": World(0, 2), "workers": 4, "batch_size": 100}, "only 8 samples.* batch of 100 is 50.*smaller"),
    ],
)
def test_too_few_shards_or_samples_are_refused_in_words(shards: list[Path], settings: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        loader_of(shards, **settings)


def test_captions_are_read_without_images_and_up_to_a_number(shards: list[Path], records: list[Record]) -> None:
    expected = [[entry["caption"] for entry in record.annotations] for record in records]
    assert captions_of(shards) == expected
    assert captions_of(shards, 10) == expected[:10]
    assert {len(sample["png"]) for sample in samples_of(shards[0], images=False)} == {0}


def test_members_that_webdataset_passes_over_are_not_counted(tmp_path: Path, records: list[Record]) -> None:
    shard = tmp_path / "a.tar"
    write_shard(shard, records[:3])
    with tarfile.open(shard, "a") as tar:
        for name in ("__notes__/00000009.txt", "folder.x", "README"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name == "folder.x" else tarfile.REGTYPE
            tar.addfile(member)
    assert [sample["__key__"] for sample in samples_of(shard)] == ["00000000", "00000001", "00000002"]
    assert counts_of([shard], tmp_path) == [3]


def test_counts_are_kept_until_a_shard_changes(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [tmp_path / f"{number}.tar" for number in range(3)]
    for number, shard in enumerate(shards):
        write_shard(shard, records[: number + 2])
    read: list[Path] = []
    monkeypatch.setattr(helpers.shards, "samples_of", lambda shard, images: read.append(shard) or samples_of(shard))
    for _ in range(2):
        assert counts_of(shards, tmp_path / "kept") == [2, 3, 4]
        assert read == shards
    write_shard(shards[1], records[:9])
    assert counts_of(shards, tmp_path / "kept") == [2, 9, 4]
    assert read == [*shards, shards[1]]
    os.utime(shards[0], (1, 1))
    assert counts_of(shards[:1], tmp_path / "kept") == [2]
    assert read[-1] == shards[0]
    (tmp_path / "sizes.json").write_text(json.dumps({shard.name: 7 for shard in shards}))
    assert counts_of(shards, tmp_path / "kept") == [7, 7, 7]
    assert len(read) == 5


@pytest.mark.parametrize("count", [8, 12])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_sizes_json_that_is_wrong_is_named(tmp_path: Path, records: list[Record], count: int, workers: int) -> None:
    shards = [tmp_path / "a.tar", tmp_path / "b.tar"]
    for shard in shards:
        write_shard(shard, records[:10])
    (tmp_path / "sizes.json").write_text(json.dumps({"a.tar": count, "b.tar": count}))
    with pytest.raises(InputError, match=rf"^\S*(a|b).tar has 10 samples where {count} .*sizes.json"):
        rows_of(loader_of(shards, workers=workers))


@pytest.mark.parametrize("content", ["[1]", '{"a.tar": "many"}', '{"a.tar": -1}', "{"])
def test_a_sizes_json_that_is_none_is_named(tmp_path: Path, records: list[Record], content: str) -> None:
    write_shard(tmp_path / "a.tar", records[:10])
    (tmp_path / "sizes.json").write_text(content)
    with pytest.raises(InputError, match="sizes.json"):
        counts_of([tmp_path / "a.tar"], tmp_path)


def test_a_folder_that_cannot_hold_the_counts_is_named(tmp_path: Path, records: list[Record]) -> None:
    write_shard(tmp_path / "a.tar", records[:10])
    with pytest.raises(InputError, match=r"cannot write .*a.tar/shards-.*json.*another folder"):
        counts_of([tmp_path / "a.tar"], tmp_path / "a.tar")
    with pytest.raises(InputError, match=r"b.tar cannot be read"):
        counts_of([tmp_path / "b.tar"], tmp_path)


def damaged(shard: Path, how: str) -> None:
    """A shard of ten samples in which something is wrong, most of them with the sixth."""
    with tarfile.open(shard) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    content = {
        "no image": {"00000005.png": None},
        "no caption": {"00000005.json": None},
        "broken image": {"00000005.png": b"nothing that Pillow knows"},
        "empty image": {"00000005.png": b""},
        "empty caption": {"00000005.json": b'{"captions": [" "]}'},
    }.get(how, {})
    with tarfile.open(shard, "w") as tar:
        for member, before in members:
            now = content.get(member.name, before)
            if now is not None:
                member.size = len(now)
                tar.addfile(member, io.BytesIO(now))
    if how == "cut off":
        shard.write_bytes(shard.read_bytes()[:5000])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no image", r"a.tar: sample '00000005' has 0 images"),
        ("no caption", r"a.tar: sample '00000005' has no caption"),
        ("broken image", r"a.tar: 00000005.png: it is not an image"),
        ("empty image", r"a.tar: 00000005.png: it is empty"),
        ("empty caption", r"a.tar: sample '00000005' has an empty caption"),
        ("cut off", r"a.tar is cut off"),
    ],
)
def test_what_is_wrong_in_a_shard_is_told_in_a_sentence(
    tmp_path: Path, records: list[Record], how: str, words: str, workers: int
) -> None:
    write_shard(tmp_path / "a.tar", records[:10])
    loader = loader_of([tmp_path / "a.tar"], batch_size=5, workers=workers)
    status = (tmp_path / "a.tar").stat()
    damaged(tmp_path / "a.tar", how)
    os.utime(tmp_path / "a.tar", ns=(status.st_atime_ns, status.st_mtime_ns))
    before = set(multiprocessing.active_children())
    with pytest.raises(InputError, match=words) as error:
        rows_of(loader)
    assert "\n" not in str(error.value)
    assert set(multiprocessing.active_children()) <= before  # its workers have ended


def test_without_webdataset_the_error_says_how_to_install_it(
    shards: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    with pytest.raises(InputError, match=r"train-000000.tar .*webdataset.*pip install webdataset"):
        StreamedPairs(shards, BATCH, folder=tmp_path)


def test_the_fingerprint_tells_names_sizes_and_counts(tmp_path: Path, records: list[Record]) -> None:
    for name in ("a.tar", "b.tar", "c.tar"):
        write_shard(tmp_path / name, records[: 6 if name == "c.tar" else 5])

    def fingerprint(name: str) -> str:
        return StreamedPairs([tmp_path / name], BATCH).fingerprint()

    before = fingerprint("a.tar")
    assert len({before, fingerprint("b.tar"), fingerprint("c.tar")}) == 3
    os.utime(tmp_path / "a.tar", (1, 1))
    assert fingerprint("a.tar") == before
    write_shard(tmp_path / "a.tar", records[:9])
    assert fingerprint("a.tar") != before


@contextlib.contextmanager
def source(tmp_path: Path, records: list[Record]) -> Iterator[Path]:
    """A folder of pairs in another layout."""
    folder = tmp_path / "source"
    folder.mkdir()
    for row, record in enumerate(records[:40]):
        (folder / f"{row}.png").write_bytes(record.path.read_bytes())
        (folder / f"{row}.txt").write_text("\n".join(entry["caption"] for entry in record.annotations))
    yield folder


def test_written_shards_hold_the_pairs_of_their_source(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helpers.layouts, "SHARDS", tmp_path / "unpacked")
    with source(tmp_path, records) as folder:
        for out in ("one", "two"):
            assert main(["write", "--data", str(folder), "--out", str(tmp_path / out), "--per-shard", "10"]) == 0
        given, written = open_pairs(folder), open_pairs(tmp_path / "one")
    contents = [{file.name: file.read_bytes() for file in (tmp_path / out).iterdir()} for out in ("one", "two")]
    assert contents[0] == contents[1]
    assert written.splits == given.splits
    for split in given.splits:
        paths, captions = given.captions(split)
        expected = [(path.read_bytes(), of_image) for path, of_image in zip(paths, captions, strict=True)]
        paths, captions = written.captions(split)
        found = [(path.read_bytes(), of_image) for path, of_image in zip(paths, captions, strict=True)]
        assert sorted(found) == sorted(expected)
        assert found != expected or len(found) < 10  # shuffled
    by_split = shards_by_split(tmp_path / "one")
    assert counts_of(by_split["train"]) == [10, 10, 10, 2]
    assert len(read_shards(tmp_path / "one", by_split["val"])[0]["val"]) == 4


def test_what_cannot_be_written_is_told_in_words(
    tmp_path: Path, records: list[Record], capsys: pytest.CaptureFixture
) -> None:
    with source(tmp_path, records) as folder:
        command = ["write", "--data", str(folder), "--out"]
        assert main([*command, str(folder)]) == 2
        assert "exists already" in capsys.readouterr().err
        assert main([*command, str(tmp_path / "out"), "--per-shard", "0"]) == 2
        assert "--per-shard must be 1" in capsys.readouterr().err
        Image.new("RGB", (4, 4)).save(folder / "0.gif")
        (folder / "0.png").unlink()
        assert main([*command, str(tmp_path / "out")]) == 2
        assert "0.gif cannot go into a shard" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_shards_without_a_split_in_their_names_are_refused(tmp_path: Path, records: list[Record]) -> None:
    with pytest.raises(InputError, match="must have shards of train and val"):
        shards_by_split(tmp_path)
    write_shard(tmp_path / "train-000000.tar", records[:3])
    with pytest.raises(InputError, match="must have shards of train and val"):
        shards_by_split(tmp_path)
    write_shard(tmp_path / "val-000000.tar", records[:3])
    assert list(shards_by_split(tmp_path)) == ["train", "val"]
    write_shard(tmp_path / "000000.tar", records[:3])
    with pytest.raises(InputError, match=r"000000.tar names no split; call it train-000000.tar"):
        shards_by_split(tmp_path)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_training_from_shards_that_is_stopped_goes_on_to_the_same_bits(tmp_path: Path, workers: int) -> None:
    write_scenes(tmp_path / "scenes", {"train": 100, "val": 20, "test": 20})
    write_shards(tmp_path / "scenes", tmp_path / "shards", per_shard=25)
    settings = {"epochs": 2, "image_size": 32, "batch_size": 16, "stream": True, "workers": workers}
    settings["cache"] = tmp_path / "cache"
    whole = train(tmp_path / "shards", tmp_path / "whole", **settings)

    def stop(step: int, *_: object) -> None:
        if step == 8:  # in the second epoch
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path / "shards", tmp_path / "run", **settings, on_step=stop)
    resumed = train(tmp_path / "shards", tmp_path / "run", **settings, resume=True)
    assert [record["step"] for record in whole] == [0, 6, 12]
    assert [record["loss"] for record in resumed] == [record["loss"] for record in whole]
    ours, theirs = (load_checkpoint(tmp_path / name / "last.pt")["model"] for name in ("run", "whole"))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    with pytest.raises(InputError, match=f"was started with workers {workers}"):
        train(tmp_path / "shards", tmp_path / "run", **settings | {"workers": workers + 1}, resume=True)


def test_a_folder_without_shards_is_no_stream(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", {"train": 20, "val": 20, "test": 20})
    with pytest.raises(InputError, match="must have shards of train and val"):
        train(tmp_path / "scenes", tmp_path / "run", epochs=1, stream=True)
    assert not (tmp_path / "run").exists()

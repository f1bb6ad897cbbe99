"""The temperature explorer: the similarity matrix and its softmax, computed in the browser while a slider moves."""

import base64
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import anywidget
import torch
import torch.nn.functional as F
import traitlets
from PIL import Image, ImageOps
from torch import Tensor

from helpers import diagnostics
from helpers.files import atomic_file
from helpers.losses import check_features
from helpers.sources.images import to_rgb
from helpers.widgets.shared import Temperature, browser_files, keep_one_per_cell

MAX_PAIRS = 512
BROWSER_SCRIPT, BROWSER_STYLE = browser_files("explorer")

Features = tuple[Tensor, Tensor]  # of the images and of the texts, [pairs, dim] each


class TemperatureExplorer(anywidget.AnyWidget):
    """A slider over the temperature, and what it does to a batch of image-text pairs.

    The browser computes everything from the stored features, so a displayed widget needs no kernel. A cell can set the
    traits from ``temperature`` on; ``selected`` is the row, or column, whose negatives are shown.

    Args:
        image_features, text_features: ``[pairs, dim]``; row i of both belongs together.
        images: thumbnails, one per pair: PIL images, or a tensor ``[pairs, 3, H, W]``, uint8 or from 0 to 1.
        temperature: the start value; it may lie outside the slider's range of 0.01 to 2.
        snapshots: by name, the features of the same pairs at moments of a training; plus "now", unless one equals it.
    """

    _esm = BROWSER_SCRIPT
    _css = BROWSER_STYLE

    pairs = traitlets.Int().tag(sync=True)
    features = traitlets.Bytes().tag(sync=True)  # float32 [moments, 2, pairs, dim], images first
    moments = traitlets.List(traitlets.Unicode()).tag(sync=True)
    geometry = traitlets.List(traitlets.Dict()).tag(sync=True)  # one per moment
    thumbnails = traitlets.Bytes().tag(sync=True)  # one WebP picture of square tiles, or empty
    captions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    temperature = Temperature(0.07).tag(sync=True)
    direction = traitlets.Enum(["both", "image to text", "text to image"], "both").tag(sync=True)
    normalize = traitlets.Bool(True).tag(sync=True)
    scale = traitlets.Enum(["temperature", "logit scale"], "temperature").tag(sync=True)
    selected = traitlets.Int(None, allow_none=True).tag(sync=True)
    moment = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        image_features: Tensor,
        text_features: Tensor,
        images: Tensor | Sequence[Image.Image] | None = None,
        captions: Sequence[str] | None = None,
        temperature: float = 0.07,
        snapshots: Mapping[object, Features] | None = None,
    ) -> None:
        moments, start = order_moments((image_features, text_features), snapshots or {})
        pairs = len(text_features)
        if pairs > MAX_PAIRS:
            raise ValueError(f"{pairs} pairs are too many to show; pass {MAX_PAIRS} or fewer, such as features[:64]")
        for name, given in (("images", images), ("captions", captions)):
            if given is not None and len(given) != pairs:
                raise ValueError(f"{name} must have one entry per pair: got {len(given)} for {pairs} pairs")
        super().__init__(
            pairs=pairs,
            features=b"".join(pack(*features) for features in moments.values()),
            moments=list(moments),
            geometry=[geometry(*features) for features in moments.values()],
            thumbnails=b"" if images is None else thumbnail_sheet(images),
            captions=[] if captions is None else [str(caption) for caption in captions],
            temperature=float(temperature),
            moment=start,
        )
        keep_one_per_cell(self)

    @traitlets.validate("selected", "moment")
    def _check_range(self, proposal: dict) -> int | None:
        name, value = proposal["trait"].name, proposal["value"]
        count = self.pairs if name == "selected" else len(self.moments)
        if value is not None and not 0 <= value < count:
            raise traitlets.TraitError(f"{name} must lie between 0 and {count - 1}, got {value}")
        return value

    def similarities_by_direction(self) -> list[Tensor]:
        """Cosines, or dot products, at this moment: ``[line, other]`` per direction shown, in float64."""
        features = torch.frombuffer(bytearray(self.features), dtype=torch.float32).double()
        images, texts = features.view(len(self.moments), 2, self.pairs, -1)[self.moment]  # [pairs, dim] each
        if self.normalize:
            images, texts = F.normalize(images, dim=1), F.normalize(texts, dim=1)
        lines = {"image to text": images @ texts.T, "text to image": texts @ images.T}
        return list(lines.values()) if self.direction == "both" else [lines[self.direction]]

    def numbers(self) -> dict[str, float]:
        """Compute the numbers that the widget shows, in float64; see also :func:`geometry`.

        ``loss`` (nats) and ``accuracy`` (0 to 1; a tie is wrong) are means over the directions shown.
        ``entropy`` (nats) and its exponential, ``effective_negatives``, are means over images, or texts if shown alone.
        """
        lines = self.similarities_by_direction()
        targets = torch.arange(self.pairs)
        margin = 1e-6 * max(1.0, float(lines[0].abs().max()))
        losses = [F.cross_entropy(line / self.temperature, targets) for line in lines]
        counts = diagnostics.effective_negatives(lines[0], self.temperature)  # [pairs]
        return {
            "temperature": self.temperature,
            "loss": float(sum(losses) / len(lines)),
            "accuracy": sum(accuracy(line, margin) for line in lines) / len(lines),
            "effective_negatives": float(counts.mean()),
            "entropy": float(counts.log().mean()),
            **self.geometry[self.moment],
        }

    def to_html(self, path: str | Path) -> Path:
        """Write the explorer to a single HTML file that needs no kernel and no network."""
        state = self.get_state(set(TemperatureExplorer.class_own_traits(sync=True)))
        state |= {name: base64.b64encode(state[name]).decode() for name in ("features", "thumbnails")}
        page = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8")).substitute(
            style=BROWSER_STYLE,
            script=BROWSER_SCRIPT,
            state=json.dumps(state).replace("<", "\\u003c"),  # so that no caption can end the script
            numbers=html.escape(repr(self)),
        )
        with atomic_file(Path(path)) as file:
            file.write(page.encode())
        return Path(path)

    def __repr__(self) -> str:
        numbers = self.numbers()
        names = ("temperature", "loss", "accuracy", "effective_negatives")
        return f"TemperatureExplorer({self.pairs} pairs, {', '.join(f'{name}={numbers[name]:.4g}' for name in names)})"


def order_moments(now: Features, snapshots: Mapping[object, Features]) -> tuple[dict[str, Features], int]:
    """Name the moments in order, with features in float64, and return the index of the one to start with."""
    moments = {str(name): features for name, features in snapshots.items()} | {"now": now}
    for name, features in moments.items():
        images, texts = (torch.as_tensor(side).detach().double().cpu() for side in features)
        moments[name] = (images, texts)
        check_features(images, texts)
        if images.shape != now[0].shape:
            raise ValueError(f"snapshot {name!r} has the shape {list(images.shape)}, not {list(now[0].shape)}")
        if not (images.isfinite().all() and texts.isfinite().all()):
            raise ValueError("the features hold NaN or infinite numbers, which have no similarity; check the model")
    *earlier, (images, texts) = moments.values()
    for index, features in enumerate(earlier):
        if torch.equal(features[0], images) and torch.equal(features[1], texts):
            del moments["now"]
            return moments, index
    return moments, len(earlier)


def geometry(image_features: Tensor, text_features: Tensor) -> dict[str, float]:
    """Diagnostics of the L2-normalised features; ``uniformity`` is the mean of both sides."""
    images, texts = F.normalize(image_features, dim=1), F.normalize(text_features, dim=1)
    return {
        "alignment": float(diagnostics.alignment(images, texts)),
        "uniformity": float(diagnostics.uniformity(images) + diagnostics.uniformity(texts)) / 2,
        "modality_gap": float(diagnostics.modality_gap(images, texts)),
    }


def accuracy(lines: Tensor, margin: float) -> float:
    """Share of the rows of ``[pairs, pairs]`` whose diagonal beats every other entry by more than ``margin``."""
    others = lines.clone().fill_diagonal_(-torch.inf).amax(1)
    return float((lines.diagonal() > others + margin).double().mean())


def pack(image_features: Tensor, text_features: Tensor) -> bytes:
    """Both sides as float32 bytes ``[2, pairs, dim]``, rotated into at most ``2 * pairs`` dimensions to save space."""
    features = torch.cat([image_features, text_features])  # [2 * pairs, dim]
    if features.shape[1] > len(features):
        features = torch.linalg.qr(features.T).R.T  # [2 * pairs, 2 * pairs], with the same dot products
    return features.numpy().astype("<f4").tobytes()


def thumbnail_sheet(images: Tensor | Sequence[Image.Image]) -> bytes:
    """All thumbnails as one WebP picture of square tiles, filled row by row."""
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must have the shape [pairs, 3, H, W], not {list(images.shape)}")
        if images.dtype != torch.uint8:
            if not (images.min() >= -1e-3 and images.max() <= 1 + 1e-3):  # resizing may overshoot; NaN fails too
                raise ValueError("images must be uint8, or from 0 to 1; undo the normalisation first")
            images = images.float().clamp(0, 1).mul(255).round().byte()
        images = [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in images]
    size = 64 if len(images) <= 32 else 32
    across = math.ceil(math.sqrt(len(images)))
    sheet = Image.new("RGB", (across * size, across * size), "white")
    for index, image in enumerate(images):
        tile = ImageOps.fit(to_rgb(image), (size, size))
        sheet.paste(tile, (index % across * size, index // across * size))
    buffer = io.BytesIO()
    sheet.save(buffer, format="WEBP", quality=85)
    return buffer.getvalue()

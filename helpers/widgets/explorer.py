"""The temperature explorer: the similarity matrix and its softmax, redrawn in the browser while a slider moves."""

import base64
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import anywidget
import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor

from helpers import diagnostics
from helpers.losses import check_features, check_temperature
from helpers.widgets import figures as plots
from helpers.widgets.shared import Temperature, one_a_cell, shipped

MOST_PAIRS = 512
BROWSER_SCRIPT, BROWSER_STYLE = shipped("shared.js", "explorer.js"), shipped("shared.css", "explorer.css")

Features = tuple[Tensor, Tensor]  # of the images and of the texts, [pairs, dim] each


class TemperatureExplorer(anywidget.AnyWidget):
    """A slider over the temperature, and what it does to a batch of image-text pairs.

    The widget holds features, not matrices, and computes in the browser, so it needs no kernel once it is shown. What
    is chosen in it is synchronised: ``temperature``, ``direction``, ``normalize`` (off: dot products of the features
    as they are), ``mask`` (other pairs of the same image are no negatives), ``scale`` (which of its names the
    temperature goes by), ``moment`` (of the training) and ``selected`` (the row whose negatives are shown, or column
    for "text to image"; None for no row). Set them from a cell, or ``observe`` them.

    Args:
        image_features: ``[pairs, dim]``, a tensor or array; normalised where the cosines are computed.
        text_features: ``[pairs, dim]``, row i belonging to image i.
        images: thumbnails, one a pair: a list of PIL images, or a tensor ``[pairs, 3, H, W]``, uint8 or in 0..1.
        captions: one string a pair.
        temperature: where the slider starts; any number above 0, also outside the slider's own 0.01 to 2.
        snapshots: features of the same pairs at moments of a training, in order, each ``(image_features,
            text_features)``; a mapping names them. A second slider goes through them. It starts at the features given
            first, which become the last moment, "now", unless they are one of the snapshots.
        image_ids: which image each pair shows, whole numbers; where some stand twice, they can be masked.

    Raises:
        ValueError: for features that are not finite pairs, more than 512 pairs, a number of images, captions or ids
            that is not the number of pairs, snapshots of other pairs, images whose values are not pictures, or a
            temperature not above 0.
    """

    _esm = BROWSER_SCRIPT
    _css = BROWSER_STYLE

    pairs = traitlets.Int().tag(sync=True)
    features = traitlets.Bytes().tag(sync=True)  # float32 [moments, 2, pairs, dim], images first
    moments = traitlets.List(traitlets.Unicode()).tag(sync=True)
    geometry = traitlets.List(traitlets.Dict()).tag(sync=True)  # of each moment
    thumbnails = traitlets.Bytes().tag(sync=True)  # one PNG or JPEG of square tiles, or empty
    captions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    image_ids = traitlets.List(traitlets.Int()).tag(sync=True)
    temperature = Temperature(0.07).tag(sync=True)
    direction = traitlets.Enum(["both", "image to text", "text to image"], "both").tag(sync=True)
    normalize = traitlets.Bool(True).tag(sync=True)
    mask = traitlets.Bool(False).tag(sync=True)
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
        snapshots: Mapping[object, Features] | Sequence[Features] | None = None,
        image_ids: Tensor | Sequence[int] | None = None,
    ) -> None:
        check_temperature(temperature)
        moments, opened = in_order(image_features, text_features, snapshots)
        pairs = len(moments[opened][1])
        if pairs > MOST_PAIRS:
            raise ValueError(f"{pairs} pairs are too many to look at; pass {MOST_PAIRS} or fewer, say features[:64]")
        for name, given in (("images", images), ("captions", captions), ("image_ids", image_ids)):
            if given is not None and len(given) != pairs:
                raise ValueError(f"{name} must be one a pair: got {len(given)} for {pairs} pairs")
        super().__init__(
            pairs=pairs,
            features=b"".join(packed(*features) for _, *features in moments),
            moments=[name for name, *_ in moments],
            geometry=[geometry_of(*features) for _, *features in moments],
            thumbnails=b"" if images is None else thumbnail_sheet(images),
            captions=[] if captions is None else [str(caption) for caption in captions],
            image_ids=[] if image_ids is None else torch.as_tensor(image_ids).tolist(),
            temperature=float(temperature),
            moment=opened,
        )
        one_a_cell(self)

    @traitlets.validate("selected", "moment")
    def _within_reach(self, proposal: dict) -> int | None:
        name, value = proposal["trait"].name, proposal["value"]
        there = self.pairs if name == "selected" else len(self.moments)
        if value is not None and not 0 <= value < there:
            raise traitlets.TraitError(f"{name} runs from 0 to {there - 1} here, got {value}")
        return value

    def similarities(self) -> Tensor:
        """Of each image with each text at this moment, ``[image, text]`` in float64: cosines, or dot products."""
        features = torch.frombuffer(bytearray(self.features), dtype=torch.float32).double()
        images, texts = features.view(len(self.moments), 2, self.pairs, -1)[self.moment]  # [pairs, dim] each
        if self.normalize:
            images, texts = F.normalize(images, dim=1), F.normalize(texts, dim=1)
        return images @ texts.T

    def _lines(self) -> list[Tensor]:
        """For each direction looked at, who is compared: ``[line, other]``, -inf for what the mask takes out."""
        similarities = self.similarities()
        if self.mask and self.image_ids:
            ids = torch.tensor(self.image_ids)
            other_pair = ~torch.eye(self.pairs, dtype=torch.bool)
            similarities = similarities.masked_fill((ids[:, None] == ids) & other_pair, -torch.inf)
        lines = {"image to text": similarities, "text to image": similarities.T}
        return list(lines.values()) if self.direction == "both" else [lines[self.direction]]

    def numbers(self) -> dict[str, float]:
        """The numbers shown, computed here in float64.

        ``loss`` (nats) and ``accuracy`` (0 to 1) are the mean of both directions unless ``direction`` names one.
        A match counts as right only when it beats every other by more than 1e-6 (of the largest dot product), which
        float32 cannot blur: a tie is wrong, so a model that gives all pairs the same features scores 0.
        ``effective_negatives`` is the mean over rows of exp(entropy of the softmax), over columns for "text to image";
        ``entropy`` the mean of those entropies (nats). The rest describes the L2-normalised features of this moment:
        see :func:`geometry_of`.
        """
        lines = self._lines()
        own = torch.arange(self.pairs)
        blur = 1e-6 * max(1.0, float(self.similarities().abs().max()))
        losses = [F.cross_entropy(line / self.temperature, own) for line in lines]
        counts = diagnostics.effective_negatives(lines[0], self.temperature)  # [pairs]
        return {
            "temperature": self.temperature,
            "loss": float(sum(losses) / len(lines)),
            "accuracy": sum(share_right(line, blur) for line in lines) / len(lines),
            "effective_negatives": float(counts.mean()),
            "entropy": float(counts.log().mean()),
            **self.geometry[self.moment],
        }

    def gradient(self) -> Tensor:
        """The pull (below 0) and push (above 0) on each similarity: ``pairs * d loss / d similarity``.

        ``[image, text]``; in one direction it is ``(probability - [matched]) / temperature``, of both the mean.
        """
        parts = [
            ((line / self.temperature).softmax(1) - torch.eye(self.pairs)) / self.temperature for line in self._lines()
        ]
        if self.direction != "image to text":
            parts[-1] = parts[-1].T
        return sum(parts) / len(parts)

    def shares(self) -> Tensor:
        """The share of each negative in the repulsion of the selected row (column for "text to image"), ``[pairs]``.

        Raises:
            ValueError: while no row is selected.
        """
        if self.selected is None:
            raise ValueError("no row is selected; click on one, or set it: explorer.selected = 0")
        return diagnostics.gradient_shares(self._lines()[0], self.temperature)[self.selected]

    def to_html(self, path: str | os.PathLike) -> Path:
        """Write a page of its own: no kernel, no network, everything alive. The folder is made if it is missing."""
        state = self.get_state(set(TemperatureExplorer.class_own_traits(sync=True)))
        state |= {name: base64.b64encode(state[name]).decode() for name in ("features", "thumbnails")}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".unfinished")
        try:
            unfinished.write_text(page(state, self.still_picture(), self.description()), encoding="utf-8")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return path

    def still_picture(self) -> bytes:
        """What a reader without JavaScript sees: both matrices as they are now, a PNG."""
        similarities = self.similarities()
        softmax = (self._lines()[0] / self.temperature).softmax(1)
        columns = self.direction == "text to image"
        side = min(7.0, 3.0 + 0.25 * self.pairs)
        figure = Figure(figsize=(2 * side, side), layout="constrained")
        left, right = figure.subplots(1, 2)
        axes = (tiles_of(self.thumbnails, self.pairs) if self.pairs <= 32 else None, self.captions or None)
        name = "cosine similarity" if self.normalize else "dot product"
        plots.draw_matrix(left, similarities, *axes, name, limit=max(1.0, float(similarities.abs().max())))
        title = f"softmax of each {'column' if columns else 'row'} at temperature {self.temperature:g}"
        plots.draw_matrix(right, softmax.T if columns else softmax, *axes, title, probabilities=True)
        large, small = io.BytesIO(), io.BytesIO()
        figure.savefig(large, format="png", dpi=72, facecolor="white")
        Image.open(large).convert("RGB").quantize(256).save(small, format="PNG", optimize=True)
        return small.getvalue()

    def description(self) -> str:
        """The picture in words."""
        numbers = self.numbers()
        low, high = (float(end) for end in self.similarities().aminmax())
        chance = self._lines()[0].isfinite().sum(1).log().mean()  # what a mask leaves out is not guessed either
        what = "Cosines" if self.normalize else "Dot products"
        return (
            f"{what} of {self.pairs} images, the rows, with {self.pairs} texts, the columns, from {low:.2f} to "
            f"{high:.2f}, and their softmax at temperature {self.temperature:g}. Loss {numbers['loss']:.3f}, chance "
            f"{float(chance):.3f}; accuracy {numbers['accuracy']:.1%}; in the mean "
            f"{numbers['effective_negatives']:.3g} of {self.pairs} count."
        )

    def __repr__(self) -> str:
        """What a reader sees where no widget can be shown, in the 110 characters that a notebook keeps."""
        numbers = self.numbers()
        names = ("temperature", "loss", "accuracy", "effective_negatives")
        shown = ", ".join(f"{name}={numbers[name]:.4g}" for name in names)
        return f"TemperatureExplorer({self.pairs} pairs, {shown})"


def in_order(
    image_features: Tensor, text_features: Tensor, snapshots: Mapping[object, Features] | Sequence[Features] | None
) -> tuple[list[tuple[str, Tensor, Tensor]], int]:
    """The moments, each with its name, and which of them is the one of the features given first.

    Raises:
        ValueError: for features that are not finite pairs, or moments of different shapes.
    """
    given = [torch.as_tensor(features) for features in (image_features, text_features)]
    check_features(*given)
    if not isinstance(snapshots, Mapping):
        snapshots = {f"moment {number}": features for number, features in enumerate(snapshots or ())}
    moments = [(str(name), *map(torch.as_tensor, features)) for name, features in snapshots.items()]
    for name, *features in moments:
        try:
            check_features(*features)
        except ValueError as error:
            raise ValueError(f"snapshot {name!r}: {error}") from None
        if features[0].shape != given[0].shape:
            raise ValueError(
                f"snapshot {name!r} must have the shape of the features given first, {list(given[0].shape)}, "
                f"not {list(features[0].shape)}"
            )
    for number, (_, *features) in enumerate(moments):
        if all(torch.equal(a.double(), b.double()) for a, b in zip(features, given, strict=True)):
            return moments, number
    return [*moments, ("now", *given)], len(moments)


def geometry_of(image_features: Tensor, text_features: Tensor) -> dict[str, float]:
    """How normalised features lie, whatever the temperature: each diagnostic once for the whole batch.

    ``uniformity`` is the mean of both sides; ``effective_rank`` is that of both together.
    """
    images, texts = (
        F.normalize(features.detach().double().cpu(), dim=1) for features in (image_features, text_features)
    )
    return {
        "alignment": float(diagnostics.alignment(images, texts)),
        "uniformity": float(diagnostics.uniformity(images) + diagnostics.uniformity(texts)) / 2,
        "modality_gap": float(diagnostics.modality_gap(images, texts)),
        "distribution_gap": float(diagnostics.distribution_gap(images, texts)),
        "effective_rank": float(diagnostics.effective_rank(torch.cat([images, texts]))),
    }


def share_right(lines: Tensor, blur: float) -> float:
    """Share of the rows of ``[pairs, pairs]`` whose diagonal beats every other entry by more than ``blur``."""
    others = lines.clone().fill_diagonal_(-torch.inf).amax(1)
    return float((lines.diagonal() > others + blur).double().mean())


def packed(image_features: Tensor, text_features: Tensor) -> bytes:
    """Both sides as float32 bytes ``[2, pairs, dim]``, in fewer dimensions where that loses nothing.

    ``2 * pairs`` vectors span at most ``2 * pairs`` dimensions. A rotation into that span leaves every dot product as
    it was and a stored notebook small: where features = R^T Q^T, the rows of R^T have the dot products of the features.
    """
    features = torch.cat([image_features, text_features]).detach().double().cpu()  # [2 * pairs, dim]
    if features.shape[1] > len(features):
        features = torch.linalg.qr(features.T).R.T  # [2 * pairs, 2 * pairs]
    return features.float().contiguous().numpy().astype("<f4").tobytes()


def thumbnail_sheet(images: Tensor | Sequence[Image.Image]) -> bytes:
    """All thumbnails as one picture of square tiles, filled row by row: as PNG or JPEG, whichever is smaller."""
    size, across = sheet_layout(len(images))
    sheet = Image.new("RGB", (across * size, across * size), "white")
    for index, image in enumerate(pictures(images)):
        tile = ImageOps.fit(image.convert("RGBA"), (size, size))
        sheet.paste(tile, (index % across * size, index // across * size), tile)  # see-through parts stay white
    files = []
    for options in ({"format": "PNG", "optimize": True}, {"format": "JPEG", "quality": 85}):
        buffer = io.BytesIO()
        sheet.save(buffer, **options)
        files.append(buffer.getvalue())
    return min(files, key=len)


def sheet_layout(count: int) -> tuple[int, int]:
    """The side of a tile in pixels, and how many tiles stand side by side."""
    return 64 if count <= 32 else 32, next(n for n in range(1, MOST_PAIRS) if n * n >= count)


def tiles_of(sheet: bytes, count: int) -> list[Tensor] | None:
    """The thumbnails of a sheet again, ``[3, size, size]`` uint8 each; None where there is no sheet."""
    if not sheet:
        return None
    size, across = sheet_layout(count)
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(sheet)).convert("RGB"))).permute(2, 0, 1)
    places = [(index // across * size, index % across * size) for index in range(count)]
    return [pixels[:, top : top + size, left : left + size] for top, left in places]


def pictures(images: Tensor | Sequence[Image.Image]) -> list[Image.Image]:
    """The images as PIL images, or ``ValueError`` where they are not pictures."""
    if not isinstance(images, Tensor):
        if not all(isinstance(image, Image.Image) for image in images):
            raise ValueError("images must be a list of PIL images or one tensor [pairs, 3, H, W]")
        return list(images)
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must have the shape [pairs, 3, H, W], not {list(images.shape)}")
    images = images.detach().cpu()
    if images.dtype != torch.uint8:
        low, high = float(images.min()), float(images.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # resizing may pass the ends by a rounding error; NaN fails too
            raise ValueError(
                f"image values must lie in 0..1, or be uint8, but run from {low:.3g} to {high:.3g}; "
                "if they are normalised, multiply by the standard deviation and add the mean first"
            )
        images = images.float().clamp(0, 1).mul(255).round().byte()
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]


def page(state: dict, picture: bytes, words: str) -> str:
    """A web page with script, style and state inside it. ``render`` is in reach, since all of it is one module.

    A reader whose browser runs no script gets the picture, and one who cannot see it the words.
    """
    image = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    # In JSON a "<" can be written as an escape, so that no caption can end the script or begin markup.
    data = json.dumps(state).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:">
<link rel="icon" href="data:,">
<title>Temperature explorer</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ background: Canvas; color: CanvasText; max-width: 980px; margin: 16px auto; padding: 0 12px; }}
{BROWSER_STYLE}</style>
</head>
<body>
<noscript>
<p>The slider needs JavaScript. This is the picture at one temperature.</p>
<img src="{image}" alt="{html.escape(words)}" style="max-width: 100%">
</noscript>
<main id="explorer"></main>
<script type="application/json" id="state">{data}</script>
<script type="module">
{BROWSER_SCRIPT}
const state = JSON.parse(document.getElementById("state").textContent);
for (const name of ["features", "thumbnails"]) {{
  state[name] = new DataView(Uint8Array.from(atob(state[name]), (c) => c.charCodeAt(0)).buffer);
}}
const events = new EventTarget();
const model = {{
  get: (name) => state[name],
  set(name, value) {{
    state[name] = value;
    events.dispatchEvent(new Event(`change:${{name}}`));
  }},
  save_changes() {{}},
  on: (name, listener) => events.addEventListener(name, listener),
  off: (name, listener) => events.removeEventListener(name, listener),
}};
render({{ model, el: document.getElementById("explorer") }});
</script>
</body>
</html>
"""

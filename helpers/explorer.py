"""The temperature explorer: the similarity matrix and its softmax, redrawn in the browser while a slider moves."""

import base64
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import anywidget
import torch
import torch.nn.functional as F
import traitlets
from PIL import Image, ImageOps
from torch import Tensor

from helpers.losses import check_features, check_temperature, one_way_contrastive_loss

MOST_PAIRS = 512
BROWSER_SCRIPT = Path(__file__).with_name("explorer.js").read_text(encoding="utf-8")
BROWSER_STYLE = Path(__file__).with_name("explorer.css").read_text(encoding="utf-8")


class TemperatureExplorer(anywidget.AnyWidget):
    """A slider over the temperature, and what it does to a batch of image-text pairs.

    The widget holds features, not matrices, and computes in the browser, so it needs no kernel once it is shown.
    ``temperature`` and ``direction`` are synchronised: set them from a cell, or ``observe`` them.

    Args:
        image_features: ``[pairs, dim]``, a tensor or array; normalised where the cosines are computed.
        text_features: ``[pairs, dim]``, row i belonging to image i.
        images: thumbnails, one a pair: a list of PIL images, or a tensor ``[pairs, 3, H, W]``, uint8 or in 0..1.
        captions: one string a pair.
        temperature: where the slider starts; any number above 0, also outside the slider's own 0.01 to 2.

    Raises:
        ValueError: for features that are not finite pairs, more than 512 pairs, a number of images or captions that is
            not the number of pairs, images whose values are not pictures, or a temperature not above 0.
    """

    _esm = BROWSER_SCRIPT
    _css = BROWSER_STYLE

    pairs = traitlets.Int().tag(sync=True)
    features = traitlets.Bytes().tag(sync=True)  # float32 [2, pairs, dim], images first
    thumbnails = traitlets.Bytes().tag(sync=True)  # one PNG or JPEG of square tiles, or empty
    captions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    temperature = traitlets.CFloat(0.07).tag(sync=True)
    direction = traitlets.Enum(["both", "image to text", "text to image"], "both").tag(sync=True)

    def __init__(
        self,
        image_features: Tensor,
        text_features: Tensor,
        images: Tensor | Sequence[Image.Image] | None = None,
        captions: Sequence[str] | None = None,
        temperature: float = 0.07,
    ) -> None:
        image_features, text_features = torch.as_tensor(image_features), torch.as_tensor(text_features)
        check_features(image_features, text_features)
        check_temperature(temperature)
        pairs = len(image_features)
        if pairs > MOST_PAIRS:
            raise ValueError(f"{pairs} pairs are too many to look at; pass {MOST_PAIRS} or fewer, say features[:64]")
        for name, given in (("images", images), ("captions", captions)):
            if given is not None and len(given) != pairs:
                raise ValueError(f"{name} must be one a pair: got {len(given)} for {pairs} pairs")
        super().__init__(
            pairs=pairs,
            features=packed(image_features, text_features),
            thumbnails=b"" if images is None else thumbnail_sheet(images),
            captions=[] if captions is None else [str(caption) for caption in captions],
            temperature=float(temperature),
        )

    @traitlets.validate("temperature")
    def _temperature_above_zero(self, proposal: dict) -> float:
        try:
            check_temperature(proposal["value"])
        except ValueError as error:
            raise traitlets.TraitError(str(error)) from None
        return proposal["value"]

    def numbers(self) -> dict[str, float]:
        """The numbers shown, computed here in float64: temperature, loss, accuracy and effective negatives.

        Loss (nats) and accuracy (0 to 1) are the mean of both directions unless ``direction`` names one.
        A match counts as right only when it beats every other by more than 1e-6, which float32 cannot blur: a tie is
        wrong, so a model that gives all pairs the same features scores 0.
        ``effective_negatives`` is the mean over rows of exp(entropy of the softmax), over columns for "text to image".
        """
        image_features, text_features = (
            torch.frombuffer(bytearray(self.features), dtype=torch.float32).double().view(2, self.pairs, -1)
        )
        directions = {
            "image to text": (image_features, text_features),
            "text to image": (text_features, image_features),
        }
        if self.direction != "both":
            directions = {self.direction: directions[self.direction]}
        losses = [one_way_contrastive_loss(a, b, self.temperature, normalize=True) for a, b in directions.values()]
        similarities = [F.normalize(a, dim=1) @ F.normalize(b, dim=1).T for a, b in directions.values()]
        log_probabilities = torch.log_softmax(similarities[0] / self.temperature, dim=1)
        entropies = torch.special.entr(log_probabilities.exp()).sum(1)  # [pairs]
        return {
            "temperature": self.temperature,
            "loss": float(sum(losses) / len(losses)),
            "accuracy": sum(share_right(s) for s in similarities) / len(similarities),
            "effective_negatives": float(entropies.exp().mean()),
        }

    def to_html(self, path: str | os.PathLike) -> Path:
        """Write a page of its own: no kernel, no network, everything alive. The folder is made if it is missing."""
        state = {name: getattr(self, name) for name in ("pairs", "captions", "temperature", "direction")}
        state |= {name: base64.b64encode(getattr(self, name)).decode() for name in ("features", "thumbnails")}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".unfinished")
        try:
            unfinished.write_text(page(state), encoding="utf-8")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return path

    def __repr__(self) -> str:
        """What a reader sees where no widget can be shown, in the 110 characters that a notebook keeps."""
        shown = ", ".join(f"{name}={value:.4g}" for name, value in self.numbers().items())
        return f"TemperatureExplorer({self.pairs} pairs, {shown})"


def share_right(similarities: Tensor) -> float:
    """Share of the rows of ``[pairs, pairs]`` whose diagonal beats every other entry by more than 1e-6."""
    others = similarities.clone().fill_diagonal_(-torch.inf).amax(1)
    return float((similarities.diagonal() > others + 1e-6).double().mean())


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
    size = 64 if len(images) <= 32 else 32
    across = next(n for n in range(1, MOST_PAIRS) if n * n >= len(images))
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


def page(state: dict) -> str:
    """A web page with script, style and state inside it. ``render`` is in reach, since all of it is one module."""
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
body {{ max-width: 980px; margin: 16px auto; padding: 0 12px; }}
{BROWSER_STYLE}</style>
</head>
<body>
<noscript>The temperature explorer needs JavaScript.</noscript>
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

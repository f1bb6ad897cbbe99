"""Lesson 00: a search by words with the model that comes with the course, with its figure."""

import matplotlib.pyplot as plt

from helpers.data import ImageTextDataset, read_captions
from helpers.evaluation import encode_images, encode_texts
from helpers.files import DATA
from helpers.runs import load_model
from helpers.scenes import fits, read_truth
from helpers.text import split_words
from helpers.widgets.figures import to_pixels


class ImageSearch:
    """Search in the 1,000 test drawings of the scenes. Calling it with a query shows the images that fit best."""

    def __init__(self) -> None:
        self.model, self.tokenizer = load_model()
        self.dataset = ImageTextDataset(*read_captions(DATA / "scenes", "test"), image_size=64)
        self.scenes = read_truth(DATA / "scenes", "test")
        self.image_features = encode_images(self.model, self.dataset)  # [images, dim]

    def __call__(self, query: str, top: int = 6) -> None:
        text_features = encode_texts(self.model, self.tokenizer, [query])  # [1, dim]
        similarities = self.image_features @ text_features[0]  # [images]
        best = similarities.argsort(descending=True, stable=True)[:top].tolist()
        figure, axes = plt.subplots(1, top, figsize=(1.5 * top, 2.1), facecolor="white", layout="constrained")
        for axis, row in zip(axes, best, strict=True):
            axis.imshow(to_pixels(self.dataset.decode(row)))
            axis.set(xticks=[], yticks=[], xlabel=f"{similarities[row]:.2f}")
        figure.suptitle(query + self.note(query))
        plt.show()

    def note(self, query: str) -> str:
        """Words that the model does not know, or how many drawings the query is true of, if it reads like a caption."""
        unknown = [word for word in split_words(query) if word not in self.tokenizer.id_of]
        if unknown:
            return f"   (unknown: {', '.join(unknown)})"
        try:
            fitting = sum(fits(query, scene) for scene in self.scenes)
        except ValueError:  # known words in an order that no caption has
            return ""
        return f"   (true of {fitting} of {len(self.scenes):,} drawings)"

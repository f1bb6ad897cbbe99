"""Encoders: an image and a text each become one feature vector, and also features at several scales and of parts."""

import random
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.augmentation import LEAST_SHARE, resize, sample_box

GRID = 4  # an image ends as GRID x GRID regions, whatever its size
SMALLEST = 32  # pixels


class ConvBlock(nn.Sequential):
    """Convolution, group norm, ReLU.

    Group norm, not batch norm: an image's features then do not depend on which images it shares a batch with, and there
    are no running averages to lag behind weights that move fast.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        padding = 1 if kernel == 3 else 0
        convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        super().__init__(convolution, nn.GroupNorm(8, channels_out), nn.ReLU())


class ImageEncoder(nn.Module):
    """A small convolutional network for images of any size from 32 pixels up.

    The map of regions is flattened, not averaged, before the last projection: an average would forget where things are.

    With ``patch_dropout`` above 0 each patch of 4 x 4 pixels is blank with that chance, in training only (Li et al.,
    2023, "Scaling Language-Image Pre-training via Masking", FLIP, which masks half of them). There a transformer never
    computes what is masked, so it is faster; a convolution computes it all the same, and only the noise is left.
    """

    def __init__(self, dim: int = 128, patch_dropout: float = 0.0) -> None:
        super().__init__()
        self.patch_dropout = patch_dropout
        self.stem = ConvBlock(3, 32, kernel=4, stride=4)
        self.down1 = ConvBlock(32, 64, kernel=3, stride=2)
        self.residual = ConvBlock(64, 64, kernel=3)
        self.down2 = ConvBlock(64, 128, kernel=3, stride=2)
        # One projection a scale: the mean of the whole image, 2 x 2 regions, and all 4 x 4 regions.
        self.grids = (1, 2, GRID)
        self.projections = nn.ModuleList(nn.Linear(128 * grid * grid, dim) for grid in self.grids)

    def region_map(self, images: Tensor) -> Tensor:
        """Images ``[batch, 3, height, width]`` to regions ``[batch, 128, GRID, GRID]``."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST:
            raise ValueError(
                f"images must be [batch, 3, height, width] from {SMALLEST} pixels up, not {list(images.shape)}"
            )
        x = self.stem(images)  # [batch, 32, height/4, width/4], a place a patch
        if self.training and self.patch_dropout > 0:
            x = x * (torch.rand_like(x[:, :1]) >= self.patch_dropout)
        x = self.down1(x)  # [batch, 64, height/8, width/8]
        x = x + self.residual(x)
        x = self.down2(x)  # [batch, 128, height/16, width/16]
        return F.adaptive_avg_pool2d(x, GRID)  # [batch, 128, GRID, GRID]

    def forward(self, images: Tensor) -> Tensor:
        """Image features ``[batch, dim]``: the finest of :meth:`scales`."""
        return self.whole(self.region_map(images))

    def scales(self, images: Tensor) -> list[Tensor]:
        """Features ``[batch, dim]`` at each scale, coarse (the mean of all regions) to fine (each region by itself)."""
        region_map = self.region_map(images)
        return [*self.coarse_scales(region_map), self.whole(region_map)]

    def whole(self, region_map: Tensor) -> Tensor:
        """A region map to image features ``[batch, dim]``."""
        return self.projections[-1](region_map.flatten(1))

    def coarse_scales(self, region_map: Tensor) -> list[Tensor]:
        """A region map to features ``[batch, dim]`` at each scale but the finest, coarse to fine."""
        maps = [F.adaptive_avg_pool2d(region_map, grid).flatten(1) for grid in self.grids[:-1]]
        return [projection(x) for projection, x in zip(self.projections, maps, strict=False)]

    def regions(self, region_map: Tensor) -> Tensor:
        """A region map to one feature vector a region, ``[batch, GRID * GRID, dim]``, in reading order.

        The projection is that of the coarsest scale, which is their mean.
        """
        return self.projections[0](region_map.flatten(2).mT)


class TextEncoder(nn.Module):
    """A small text encoder that knows the order of its words.

    The embeddings of all words are put side by side and go through a small network, so that "a circle left of a square"
    and "a square left of a circle" differ. Dropout, where above 0, acts on the word embeddings and the hidden layer.

    With ``word_dropout`` above 0 each word is left out with that chance, in training only, its place staying empty
    (Iyyer et al., 2015, "Deep Unordered Composition Rivals Syntactic Methods for Text Classification", section 3).
    """

    def __init__(
        self, words: int, max_length: int, dim: int = 128, dropout: float = 0.0, word_dropout: float = 0.0
    ) -> None:
        super().__init__()
        width = 64
        self.max_length = max_length
        self.word_dropout = word_dropout
        self.embedding = nn.Embedding(words, width)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(max_length * width, 256)
        self.sentence_projection = nn.Linear(256, dim)
        self.phrase_projection = nn.Linear(3 * width, dim)
        self.word_projection = nn.Linear(width, dim)

    def words(self, token_ids: Tensor, padding: Tensor) -> Tensor:
        """Word features ``[batch, length, width]``, zero at padding.

        Args:
            token_ids: int64 ``[batch, length]``, at most ``max_length`` long.
            padding: bool ``[batch, length]``, True where no word is.
        """
        if token_ids.shape != padding.shape or token_ids.ndim != 2 or token_ids.shape[1] > self.max_length:
            raise ValueError(
                f"token_ids and padding must both be [batch, length] with length up to {self.max_length}, "
                f"not {list(token_ids.shape)} and {list(padding.shape)}"
            )
        return self.dropout(self.embedding(token_ids)).masked_fill(padding[:, :, None], 0.0)

    def drop_words(self, padding: Tensor) -> Tensor:
        """Padding bool ``[batch, length]`` in which words are left out too, as ``word_dropout`` says.

        A text of which no word would stay is left whole.
        """
        if not self.training or self.word_dropout == 0:
            return padding
        dropped = padding | (torch.rand(padding.shape, device=padding.device) < self.word_dropout)
        return torch.where(dropped.all(1, keepdim=True), padding, dropped)

    def sentence(self, words: Tensor) -> Tensor:
        """Words ``[batch, length, width]`` in their order to sentence features ``[batch, dim]``."""
        missing = self.max_length - words.shape[1]
        side_by_side = F.pad(words, (0, 0, 0, missing)).flatten(1)  # [batch, max_length * width]
        return self.sentence_projection(self.dropout(F.relu(self.hidden(side_by_side))))

    def phrases(self, words: Tensor, padding: Tensor) -> Tensor:
        """Words ``[batch, length, width]`` to phrases ``[batch, length, dim]``, zero at padding.

        The phrase of a word is the one before it, the word, and the one after it.
        """
        around = F.pad(words, (0, 0, 1, 1))  # a place before and after, so that every word is the middle of a phrase
        phrases = torch.cat([around[:, :-2], around[:, 1:-1], around[:, 2:]], dim=2)  # [batch, length, 3 * width]
        return F.relu(self.phrase_projection(phrases)).masked_fill(padding[:, :, None], 0.0)

    def forward(self, token_ids: Tensor, padding: Tensor) -> Tensor:
        """Text features ``[batch, dim]``: the finest of :meth:`scales`."""
        return self.sentence(self.words(token_ids, self.drop_words(padding)))

    def scales(self, token_ids: Tensor, padding: Tensor) -> list[Tensor]:
        """Features ``[batch, dim]`` of the bag of words, of the phrases (three words in a row), and of the sentence."""
        padding = self.drop_words(padding)
        words = self.words(token_ids, padding)  # [batch, length, width]
        return [*self.coarse_scales(words, self.phrases(words, padding), padding), self.sentence(words)]

    def coarse_scales(self, words: Tensor, phrases: Tensor, padding: Tensor) -> list[Tensor]:
        """Words ``[batch, length, width]`` and phrases ``[batch, length, dim]`` to the features of their means."""
        counts = (~padding).sum(1, keepdim=True)  # [batch, 1]
        return [self.word_projection(words.sum(1) / counts), phrases.sum(1) / counts]


class DualEncoder(nn.Module):
    """An image encoder and a text encoder into one embedding space; their features are not yet normalised."""

    def __init__(
        self,
        words: int,
        max_length: int,
        dim: int = 128,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        patch_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(dim, patch_dropout)
        self.text_encoder = TextEncoder(words, max_length, dim, dropout, word_dropout)

    def forward(self, images: Tensor, token_ids: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Image features and text features, each ``[batch, dim]``."""
        return self.image_encoder(images), self.text_encoder(token_ids, padding)

    def scales(self, images: Tensor, token_ids: Tensor, padding: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Image features and text features at each scale, coarse to fine; the last are those of :meth:`forward`."""
        return self.image_encoder.scales(images), self.text_encoder.scales(token_ids, padding)

    def views(self, images: Tensor, token_ids: Tensor, padding: Tensor) -> "BatchViews":
        """All that a loss or a regularizer may ask for of a batch; nothing is computed yet."""
        return BatchViews(self, images, token_ids, padding)


class BatchViews:
    """What a :class:`DualEncoder` can give of one batch: each is computed when first asked for, and only once.

    So a loss pays for what it asks for and no more. Words that word dropout leaves out count as padding in all of them.
    In training, where something is drawn at random, it is drawn in the order of asking.
    """

    def __init__(self, model: "DualEncoder | BatchViews", images: Tensor, token_ids: Tensor, padding: Tensor) -> None:
        self.image_encoder, self.text_encoder = model.image_encoder, model.text_encoder
        self.images, self.token_ids = images, token_ids
        self._given_padding = padding

    def with_texts(self, token_ids: Tensor, padding: Tensor) -> "BatchViews":
        """The same images with other texts; of the images, what is computed already stays."""
        other = BatchViews(self, self.images, token_ids, padding)
        kept = ("region_map", "image_features", "image_scales", "regions", "local_features")
        other.__dict__ |= {name: self.__dict__[name] for name in kept if name in self.__dict__}
        return other

    @cached_property
    def region_map(self) -> Tensor:
        """``[batch, 128, GRID, GRID]``."""
        return self.image_encoder.region_map(self.images)

    @cached_property
    def image_features(self) -> Tensor:
        """``[batch, dim]``."""
        return self.image_encoder.whole(self.region_map)

    @cached_property
    def image_scales(self) -> list[Tensor]:
        """``[batch, dim]`` at each scale, coarse to fine; the last are the image features."""
        return [*self.image_encoder.coarse_scales(self.region_map), self.image_features]

    @cached_property
    def regions(self) -> Tensor:
        """``[batch, GRID * GRID, dim]``, in reading order."""
        return self.image_encoder.regions(self.region_map)

    @cached_property
    def local_features(self) -> Tensor:
        """``[batch, dim]`` of a part of each image, half of its area or more, seen in half as many pixels a side.

        The part is one box for the whole batch, from :func:`helpers.augmentation.sample_box`. So few pixels take a
        third of the time of a whole image.
        """
        height, width = self.images.shape[2:]
        generator = random.Random(int(torch.randint(2**31, ())))  # so that torch's seed fixes the box
        top, left, box_height, box_width = sample_box(generator, height, width, LEAST_SHARE)
        box = self.images[:, :, top : top + box_height, left : left + box_width]
        return self.image_encoder(resize(box, max(SMALLEST, min(height, width) // 2)))

    @cached_property
    def padding(self) -> Tensor:
        """bool ``[batch, length]``, True where no word is."""
        return self.text_encoder.drop_words(self._given_padding)

    @cached_property
    def word_embeddings(self) -> Tensor:
        """``[batch, length, width]``, zero at padding."""
        return self.text_encoder.words(self.token_ids, self.padding)

    @cached_property
    def text_features(self) -> Tensor:
        """``[batch, dim]``."""
        return self.text_encoder.sentence(self.word_embeddings)

    @cached_property
    def text_scales(self) -> list[Tensor]:
        """``[batch, dim]`` of words, phrases and sentence; the last are the text features."""
        coarse = self.text_encoder.coarse_scales(self.word_embeddings, self.phrases, self.padding)
        return [*coarse, self.text_features]

    @cached_property
    def words(self) -> Tensor:
        """``[batch, length, dim]``, each word by itself, whatever stands beside it."""
        return self.text_encoder.word_projection(self.word_embeddings)

    @cached_property
    def phrases(self) -> Tensor:
        """``[batch, length, dim]``, each word with its neighbours."""
        return self.text_encoder.phrases(self.word_embeddings, self.padding)

    @cached_property
    def short_text_features(self) -> Tensor:
        """``[batch, dim]`` of each text shortened to half of its words, in one run that begins at a random word."""
        counts = (~self.padding).sum(1, keepdim=True)  # [batch, 1]
        kept = (counts + 1) // 2
        start = (torch.rand(counts.shape, device=counts.device) * (counts - kept + 1)).long()
        number = (~self.padding).cumsum(1) - 1  # [batch, length], of each word within its text
        left_out = self.padding | (number < start) | (number >= start + kept)
        return self.text_encoder.sentence(self.text_encoder.words(self.token_ids, left_out))

"""Encoders: an image and a text each become one feature vector, and also features at several scales."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID = 4  # an image ends as GRID x GRID regions, whatever its size


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
    """

    def __init__(self, dim: int = 128) -> None:
        super().__init__()
        self.stem = ConvBlock(3, 32, kernel=4, stride=4)
        self.down1 = ConvBlock(32, 64, kernel=3, stride=2)
        self.residual = ConvBlock(64, 64, kernel=3)
        self.down2 = ConvBlock(64, 128, kernel=3, stride=2)
        # One projection a scale: the mean of the whole image, 2 x 2 regions, and all 4 x 4 regions.
        self.grids = (1, 2, GRID)
        self.projections = nn.ModuleList(nn.Linear(128 * grid * grid, dim) for grid in self.grids)

    def region_map(self, images: Tensor) -> Tensor:
        """Images ``[batch, 3, height, width]`` to regions ``[batch, 128, GRID, GRID]``."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 32:
            raise ValueError(f"images must be [batch, 3, height, width] from 32 pixels up, not {list(images.shape)}")
        x = self.stem(images)  # [batch, 32, height/4, width/4]
        x = self.down1(x)  # [batch, 64, height/8, width/8]
        x = x + self.residual(x)
        x = self.down2(x)  # [batch, 128, height/16, width/16]
        return F.adaptive_avg_pool2d(x, GRID)  # [batch, 128, GRID, GRID]

    def forward(self, images: Tensor) -> Tensor:
        """Image features ``[batch, dim]``: the finest of :meth:`scales`."""
        return self.projections[-1](self.region_map(images).flatten(1))

    def scales(self, images: Tensor) -> list[Tensor]:
        """Features ``[batch, dim]`` at each scale, coarse (the mean of all regions) to fine (each region by itself)."""
        regions = self.region_map(images)
        pooled = [F.adaptive_avg_pool2d(regions, grid).flatten(1) for grid in self.grids]
        return [projection(x) for projection, x in zip(self.projections, pooled, strict=True)]


class TextEncoder(nn.Module):
    """A small text encoder that knows the order of its words.

    The embeddings of all words are put side by side and go through a small network, so that "a circle left of a square"
    and "a square left of a circle" differ. Dropout, where above 0, acts on the word embeddings and the hidden layer.
    """

    def __init__(self, words: int, max_length: int, dim: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        width = 64
        self.max_length = max_length
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

    def sentence(self, words: Tensor) -> Tensor:
        """Words ``[batch, length, width]`` in their order to sentence features ``[batch, dim]``."""
        missing = self.max_length - words.shape[1]
        side_by_side = F.pad(words, (0, 0, 0, missing)).flatten(1)  # [batch, max_length * width]
        return self.sentence_projection(self.dropout(F.relu(self.hidden(side_by_side))))

    def forward(self, token_ids: Tensor, padding: Tensor) -> Tensor:
        """Text features ``[batch, dim]``: the finest of :meth:`scales`."""
        return self.sentence(self.words(token_ids, padding))

    def scales(self, token_ids: Tensor, padding: Tensor) -> list[Tensor]:
        """Features ``[batch, dim]`` of the bag of words, of the phrases (three words in a row), and of the sentence."""
        words = self.words(token_ids, padding)  # [batch, length, width]
        counts = (~padding).sum(1, keepdim=True)  # [batch, 1]
        around = F.pad(words, (0, 0, 1, 1))  # a place before and after, so that every word is the middle of a phrase
        phrases = torch.cat([around[:, :-2], around[:, 1:-1], around[:, 2:]], dim=2)  # [batch, length, 3 * width]
        phrases = F.relu(self.phrase_projection(phrases)).masked_fill(padding[:, :, None], 0.0)  # [batch, length, dim]
        return [self.word_projection(words.sum(1) / counts), phrases.sum(1) / counts, self.sentence(words)]


class DualEncoder(nn.Module):
    """An image encoder and a text encoder into one embedding space; their features are not yet normalised."""

    def __init__(self, words: int, max_length: int, dim: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(dim)
        self.text_encoder = TextEncoder(words, max_length, dim, dropout)

    def forward(self, images: Tensor, token_ids: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Image features and text features, each ``[batch, dim]``."""
        return self.image_encoder(images), self.text_encoder(token_ids, padding)

    def scales(self, images: Tensor, token_ids: Tensor, padding: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Image features and text features at each scale, coarse to fine; the last are those of :meth:`forward`."""
        return self.image_encoder.scales(images), self.text_encoder.scales(token_ids, padding)

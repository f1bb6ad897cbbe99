"""Encoders: turn an image and a text into one feature vector each, and into features of scales and of parts."""

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

GRID = 4  # an image of any size becomes GRID x GRID regions


class ConvBlock(nn.Sequential):
    """Convolution, group norm, ReLU. With batch norm, an image's features would depend on the rest of its batch."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=int(kernel == 3), bias=False)
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
        self.grids = (1, 2, GRID)  # the scales: the mean of the whole image, 2 x 2 regions, and all 4 x 4 regions
        self.projections = nn.ModuleList(nn.Linear(128 * grid * grid, dim) for grid in self.grids)

    def region_map(self, images: Tensor) -> Tensor:
        """Return the regions ``[batch, 128, GRID, GRID]`` of images ``[batch, 3, height, width]``."""
        if min(images.shape[2:]) < 32:
            raise ValueError(f"images must have at least 32 pixels per side, not {list(images.shape)}")
        x = self.stem(images)  # [batch, 32, height/4, width/4], one position per patch
        x = self.down1(x)  # [batch, 64, height/8, width/8]
        x = x + self.residual(x)
        x = self.down2(x)  # [batch, 128, height/16, width/16]
        return F.adaptive_avg_pool2d(x, GRID)  # [batch, 128, GRID, GRID]

    def forward(self, images: Tensor) -> Tensor:
        """Return the image features ``[batch, dim]``, which are the finest of :meth:`scales`."""
        return self.projections[-1](self.region_map(images).flatten(1))

    def scales(self, images: Tensor) -> list[Tensor]:
        """Return features ``[batch, dim]`` at each scale, coarse (the mean of all regions) to fine (every region)."""
        return ImageViews(self, images).image_scales


class TextEncoder(nn.Module):
    """A small text encoder that uses the order of the words.

    The embeddings of all words are concatenated and go through a small network, so that "a circle left of a square"
    and "a square left of a circle" differ. ``dropout`` acts on the word embeddings and the hidden layer.
    """

    def __init__(self, words: int, max_length: int, dim: int = 128, dropout: float = 0.0, width: int = 64) -> None:
        super().__init__()
        self.max_length = max_length
        self.embedding = nn.Embedding(words, width)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(max_length * width, 256)
        self.sentence_projection = nn.Linear(256, dim)
        self.phrase_projection = nn.Linear(3 * width, dim)
        self.word_projection = nn.Linear(width, dim)

    def words(self, token_ids: Tensor, padding: Tensor) -> Tensor:
        """Return the embeddings ``[batch, length, width]`` of tokens ``[batch, length]``, zero at padding."""
        if token_ids.shape[1] > self.max_length:
            raise ValueError(f"texts must have at most {self.max_length} words, not {token_ids.shape[1]}")
        return self.dropout(self.embedding(token_ids)).masked_fill(padding[:, :, None], 0.0)

    def sentence(self, words: Tensor) -> Tensor:
        """Return sentence features ``[batch, dim]`` of word embeddings ``[batch, length, width]``."""
        missing = self.max_length - words.shape[1]
        concatenated = F.pad(words, (0, 0, 0, missing)).flatten(1)  # [batch, max_length * width]
        return self.sentence_projection(self.dropout(F.relu(self.hidden(concatenated))))

    def forward(self, token_ids: Tensor, padding: Tensor) -> Tensor:
        """Return the text features ``[batch, dim]``, which are the finest of :meth:`scales`."""
        return self.sentence(self.words(token_ids, padding))

    def scales(self, token_ids: Tensor, padding: Tensor) -> list[Tensor]:
        """Return features ``[batch, dim]`` of the bag of words, of the phrases and of the sentence."""
        return TextViews(self, token_ids, padding).text_scales


class BagOfWords(TextEncoder):
    """A text encoder that ignores the order of the words: the mean of their embeddings, and one linear layer."""

    def __init__(self, words: int, max_length: int, dim: int, dropout: float = 0.0) -> None:
        super().__init__(words, max_length, dim, dropout, width=300)
        self.hidden = nn.Identity()
        self.sentence_projection = nn.Linear(300, dim)

    def states(self, words: Tensor, used: Tensor) -> Tensor:
        """Return what is averaged, zero at padding; ``used`` ``[batch, length, 1]`` is False at padding."""
        return words

    def sentence(self, words: Tensor) -> Tensor:
        used = words.any(2, keepdim=True)  # [batch, length, 1]
        mean = self.states(words, used).sum(1) / used.sum(1)  # [batch, states]
        return self.sentence_projection(self.dropout(mean))


class GRUTextEncoder(BagOfWords):
    """A recurrent network reads the words in both directions; the mean of its states goes through one linear layer.

    Source: Faghri et al., 2018, "VSE++", section 4.1, with one direction and the last state.
    """

    def __init__(self, words: int, max_length: int, dim: int, dropout: float = 0.0) -> None:
        super().__init__(words, max_length, dim, dropout)
        self.hidden = nn.GRU(300, 512, batch_first=True, bidirectional=True)
        self.sentence_projection = nn.Linear(2 * 512, dim)

    def states(self, words: Tensor, used: Tensor) -> Tensor:
        position = torch.arange(1, words.shape[1] + 1, device=words.device)
        lengths = (used[:, :, 0] * position).amax(1)  # [batch], up to the last word; the rest must not be read
        packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.hidden(packed)[0], batch_first=True, total_length=words.shape[1])
        return states * used  # [batch, length, 2 * 512]


TEXT_ENCODERS = {"mlp": TextEncoder, "gru": GRUTextEncoder, "bag": BagOfWords}


class FeatureHead(nn.Module):
    """A linear layer on top of a frozen image encoder, for the features of several crops of each image.

    In training it uses one crop at random, an augmentation at no cost; otherwise the mean of all crops.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, dim)

    def forward(self, features: Tensor) -> Tensor:
        """Return the image features ``[batch, dim]`` of frozen features ``[batch, crops, width]``."""
        if not self.training:
            return self.projection(features.mean(1))
        images, crops = features.shape[:2]
        crop = torch.randint(crops, (images,), device=features.device)
        return self.projection(features[torch.arange(images, device=features.device), crop])


class DualEncoder(nn.Module):
    """An image encoder and a text encoder with one embedding space; the features are not normalised.

    ``text`` is one of ``TEXT_ENCODERS``. With ``width`` the image encoder is a head on frozen features of that width.
    """

    def __init__(
        self, words: int, max_length: int, dim: int = 128, dropout: float = 0.0, text: str = "mlp", width: int = 0
    ) -> None:
        super().__init__()
        self.image_encoder = FeatureHead(width, dim) if width else ImageEncoder(dim)
        self.text_encoder = TEXT_ENCODERS[text](words, max_length, dim, dropout)

    def forward(self, images: Tensor, token_ids: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """Return image features and text features, each ``[batch, dim]``."""
        return self.image_encoder(images), self.text_encoder(token_ids, padding)

    def views(self, images: Tensor, token_ids: Tensor, padding: Tensor) -> "BatchViews":
        """Return all features of a batch that a loss or a regularizer may use, each computed on first use.

        So training computes only what its terms use. Evaluation calls the encoders directly.
        """
        kind = FeatureViews if isinstance(self.image_encoder, FeatureHead) else ImageViews
        return BatchViews(kind(self.image_encoder, images), TextViews(self.text_encoder, token_ids, padding))


class ImageViews:
    """All features of a batch of images that a loss may use (not augmented copies); each is computed on first use."""

    def __init__(self, encoder: ImageEncoder, images: Tensor) -> None:
        self.encoder, self.images = encoder, images

    @cached_property
    def region_map(self) -> Tensor:  # [batch, 128, GRID, GRID]
        return self.encoder.region_map(self.images)

    @cached_property
    def image_features(self) -> Tensor:  # [batch, dim]
        return self.encoder.projections[-1](self.region_map.flatten(1))

    @cached_property
    def image_scales(self) -> list[Tensor]:  # [batch, dim] each, coarse to fine; the last are the image features
        pooled = [F.adaptive_avg_pool2d(self.region_map, grid).flatten(1) for grid in self.encoder.grids[:-1]]
        coarse = [projection(x) for projection, x in zip(self.encoder.projections, pooled, strict=False)]
        return [*coarse, self.image_features]

    @cached_property
    def regions(self) -> Tensor:  # [batch, GRID * GRID, dim], in reading order; the coarsest scale is their mean
        return self.encoder.projections[0](self.region_map.flatten(2).mT)


class FeatureViews(ImageViews):
    """The views of frozen features ``[batch, crops, width]``: crops take the place of regions."""

    @cached_property
    def image_features(self) -> Tensor:  # [batch, dim]
        return self.encoder(self.images)

    @cached_property
    def image_scales(self) -> list[Tensor]:  # [batch, dim] each: the mean of the crops, the whole image, one crop
        return [self.regions.mean(1), self.regions[:, 0], self.image_features]

    @cached_property
    def regions(self) -> Tensor:  # [batch, crops, dim]
        return self.encoder.projection(self.images)


class TextViews:
    """All features of a batch of texts that a loss may use, and their ``padding``, True after the last word."""

    def __init__(self, encoder: TextEncoder, token_ids: Tensor, padding: Tensor) -> None:
        self.encoder, self.token_ids, self.padding = encoder, token_ids, padding

    @cached_property
    def word_embeddings(self) -> Tensor:  # [batch, length, width], zero at padding
        return self.encoder.words(self.token_ids, self.padding)

    @cached_property
    def text_features(self) -> Tensor:  # [batch, dim]
        return self.encoder.sentence(self.word_embeddings)

    @cached_property
    def text_scales(self) -> list[Tensor]:  # [batch, dim] each: bag of words, phrases, and the text features
        counts = (~self.padding).sum(1, keepdim=True)  # [batch, 1]
        bag_of_words = self.encoder.word_projection(self.word_embeddings.sum(1) / counts)
        return [bag_of_words, self.phrases.sum(1) / counts, self.text_features]

    @cached_property
    def words(self) -> Tensor:  # [batch, length, dim], each word by itself
        return self.encoder.word_projection(self.word_embeddings)

    @cached_property
    def phrases(self) -> Tensor:  # [batch, length, dim], each word with both neighbours; zero at padding
        around = F.pad(self.word_embeddings, (0, 0, 1, 1))  # one more at each end, so that every word has neighbours
        phrases = torch.cat([around[:, :-2], around[:, 1:-1], around[:, 2:]], dim=2)  # [batch, length, 3 * width]
        return F.relu(self.encoder.phrase_projection(phrases)).masked_fill(self.padding[:, :, None], 0.0)


class BatchViews:
    """The views of a batch of pairs, with all properties of its :class:`ImageViews` and :class:`TextViews`."""

    def __init__(self, image_views: ImageViews, text_views: TextViews) -> None:
        self.image_views, self.text_views = image_views, text_views

    def __getattr__(self, name: str) -> Tensor | list[Tensor]:
        return getattr(self.image_views if hasattr(ImageViews, name) else self.text_views, name)

    def with_texts(self, token_ids: Tensor, padding: Tensor) -> "BatchViews":
        """Return views of the same images, already computed features included, with other texts."""
        return BatchViews(self.image_views, TextViews(self.text_views.encoder, token_ids, padding))

"""Each term agrees with an independent reference: slow, pair by pair, and in float64."""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import VICRegLoss
from torch import Tensor

from helpers import regularizers
from helpers.encoders import DualEncoder
from helpers.files import InputError
from helpers.losses import contrastive_loss
from helpers.regularizer_report import MAIN, regularizer_report
from helpers.regularizers import (
    RATES,
    REGULARIZERS,
    cyclic_in_modal_regularization,
    decorrelation_regularization,
    feature_norm_penalty,
    label_smoothing_regularization,
    multi_scale_regularization,
    parse_regularizers,
    pooled_to_one_regularization,
    token_wise_regularization,
)
from helpers.text import WordTokenizer

TEMPERATURE = 0.2


def views(seed: int, batch: int = 5, dim: int = 64, length: int = 6, dtype=torch.float64) -> SimpleNamespace:
    """Random features of a batch of captions of different lengths, all leaves with a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def free(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    lengths = torch.randint(1, length + 1, (batch, 1), generator=generator)
    return SimpleNamespace(
        image_features=free(batch, dim),
        text_features=free(batch, dim),
        image_scales=[free(batch, dim) for _ in range(3)],
        text_scales=[free(batch, dim) for _ in range(3)],
        regions=free(batch, 16, dim),
        words=free(batch, length, dim),
        phrases=free(batch, length, dim),
        padding=torch.arange(length) >= lengths,
    )


def leaves(of: SimpleNamespace) -> list[Tensor]:
    flat = itertools.chain.from_iterable(v if isinstance(v, list) else [v] for v in vars(of).values())
    return [tensor for tensor in flat if tensor.requires_grad]


def value_and_gradients(term: Callable[..., Tensor], of: SimpleNamespace) -> list[Tensor | None]:
    value = term(of, TEMPERATURE)
    return [value.detach(), *torch.autograd.grad(value, leaves(of), allow_unused=True)]


def cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum() / ((x * x).sum() * (y * y).sum()).sqrt()


def table(score: Callable[[int, int], Tensor], batch: int) -> list[list[Tensor]]:
    return [[score(i, j) for j in range(batch)] for i in range(batch)]


def cosines(x: Tensor, y: Tensor) -> list[list[Tensor]]:
    return table(lambda i, j: cosine(x[i], y[j]), len(x))


def transposed(rows: list[list[Tensor]]) -> list[list[Tensor]]:
    return [list(column) for column in zip(*rows, strict=True)]


def probabilities(row: list[Tensor]) -> list[Tensor]:
    exponentials = [(score / TEMPERATURE).exp() for score in row]
    return [exponential / sum(exponentials) for exponential in exponentials]


def one_way(rows: list[list[Tensor]], targets: list[list[float]] | None = None) -> Tensor:
    """Mean cross entropy of rows of scores against the diagonal, or against the targets."""
    total = 0.0
    for i, row in enumerate(rows):
        for j, probability in enumerate(probabilities(row)):
            target = targets[i][j] if targets else float(i == j)
            total = total - target * probability.log()
    return total / len(rows)


def both_ways(rows: list[list[Tensor]], targets: list[list[float]] | None = None) -> Tensor:
    return (one_way(rows, targets) + one_way(transposed(rows), targets)) / 2


def slow_multi_scale(image_scales: list[Tensor], text_scales: list[Tensor], weights: list[float]) -> Tensor:
    terms = zip(weights, image_scales, text_scales, strict=True)
    return sum(weight * both_ways(cosines(x, y)) for weight, x, y in terms)


def slow_token_wise(regions: Tensor, words: Tensor, padding: Tensor) -> Tensor:
    def fit(i: int, j: int) -> tuple[Tensor, Tensor]:
        used = [word for word, padded in zip(words[j], padding[j], strict=True) if not padded]
        grid = [[cosine(region, word) for word in used] for region in regions[i]]
        of_regions = sum(max(row, key=Tensor.item) for row in grid) / len(grid)
        return of_regions, sum(max(column, key=Tensor.item) for column in zip(*grid, strict=True)) / len(used)

    fits = table(fit, len(regions))
    of_regions, of_words = ([[pair[side] for pair in row] for row in fits] for side in (0, 1))
    return (one_way(of_regions) + one_way(transposed(of_words))) / 2


def slow_pooled(x: Tensor, y: Tensor) -> Tensor:
    return one_way(table(lambda i, j: sum(x[i]) / len(x[i]) * sum(y[j]) / len(y[j]), len(x)))


def slow_feature_norm(side: Tensor) -> Tensor:
    return sum(((feature * feature).sum().sqrt() - 1) ** 2 for feature in side) / len(side)


def slow_uniformity(side: Tensor) -> Tensor:
    pairs = list(itertools.combinations(side, 2))
    return (sum((-2 * (2 - 2 * cosine(one, other))).exp() for one, other in pairs) / len(pairs)).log()


def slow_cyclic(one: list[list[Tensor]], other: list[list[Tensor]]) -> Tensor:
    return sum((one[j][k] - other[j][k]) ** 2 for j in range(len(one)) for k in range(len(one))) / len(one)


def slow_decorrelation(side: Tensor) -> Tensor:
    covariance = torch.cov(side.T)
    spread = sum(torch.relu(1 - (variance + 1e-4).sqrt()) for variance in covariance.diagonal())
    together = sum(covariance[d, e] ** 2 for d, e in itertools.permutations(range(len(covariance)), 2))
    return (spread + 0.04 * together) / len(covariance)


def slow_label_smoothing(x: Tensor, y: Tensor) -> Tensor:
    return both_ways(cosines(x, y), [[1 / len(x)] * len(x)] * len(x))


def features(v: SimpleNamespace) -> tuple[Tensor, Tensor]:
    return v.image_features, v.text_features


def mean_of_sides(term: Callable[[Tensor], Tensor]) -> Callable[[SimpleNamespace], Tensor]:
    return lambda v: sum(map(term, features(v))) / 2


REFERENCES: dict[str, Callable[[SimpleNamespace], Tensor]] = {
    "multi_scale": lambda v: slow_multi_scale(v.image_scales[:2], v.text_scales[:2], [1, 1]),
    "token_wise": lambda v: slow_token_wise(v.regions, v.phrases, v.padding),
    "pooled_to_one": lambda v: slow_pooled(*features(v)),
    "feature_norm": mean_of_sides(slow_feature_norm),
    "uniformity": mean_of_sides(slow_uniformity),
    "cyclic_cross_modal": lambda v: slow_cyclic(cosines(*features(v)), transposed(cosines(*features(v)))),
    "cyclic_in_modal": lambda v: slow_cyclic(*(cosines(side, side) for side in features(v))),
    "decorrelation": mean_of_sides(slow_decorrelation),
    "label_smoothing": lambda v: slow_label_smoothing(*features(v)),
}
SHAPES = [{"batch": 2, "length": 1}, {"batch": 5, "dim": 65, "length": 7}, {"batch": 3, "dim": 66, "length": 4}]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_terms_agree_with_their_references_in_value_and_gradient(name: str, shape: dict[str, int]) -> None:
    of = views(len(str(shape)), **shape)
    expected = value_and_gradients(lambda v, _: REFERENCES[name](v), of)
    torch.testing.assert_close(value_and_gradients(REGULARIZERS[name].loss, of), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_terms_agree_with_their_references_in_float32(name: str) -> None:
    expected = REFERENCES[name](views(0)).float()
    value = REGULARIZERS[name].loss(views(0, dtype=torch.float32), TEMPERATURE)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    of = views(1, batch=2, length=3)
    gradients = value_and_gradients(REGULARIZERS[name].loss, of)[1:]
    used = [leaf for leaf, gradient in zip(leaves(of), gradients, strict=True) if gradient is not None]
    assert torch.autograd.gradcheck(lambda *_: REGULARIZERS[name].loss(of, TEMPERATURE), used, fast_mode=True)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_the_order_of_the_batch_changes_nothing(name: str) -> None:
    of = views(2, batch=7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    moved = {key: [x[order] for x in v] if isinstance(v, list) else v[order] for key, v in vars(of).items()}
    value, of_moved = (REGULARIZERS[name].loss(v, TEMPERATURE) for v in (of, SimpleNamespace(**moved)))
    torch.testing.assert_close(of_moved, value)


def test_values_at_padding_change_nothing() -> None:
    of, wider = views(3), views(3)
    expected = value_and_gradients(REGULARIZERS["token_wise"].loss, of)
    for side in ("words", "phrases"):
        garbage = torch.full_like(getattr(of, side), 7.0)
        changed = getattr(of, side).detach().where(~of.padding[:, :, None], garbage)
        setattr(wider, side, torch.cat([changed, garbage], dim=1).requires_grad_())
    wider.padding = torch.cat([of.padding, torch.ones_like(of.padding)], dim=1)
    for result, wanted in zip(value_and_gradients(REGULARIZERS["token_wise"].loss, wider), expected, strict=True):
        if wanted is not None and wanted.shape[1:2] == (6,):  # the gradient of words or phrases
            assert not result[:, 6:].any()
            result = result[:, :6]
        torch.testing.assert_close(result, wanted)


def test_parts_are_compared_within_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    of = views(4, batch=8)
    monkeypatch.setattr(regularizers, "GROUP", 3)
    groups = [range(0, 3), range(3, 6), range(6, 8)]
    parts = [SimpleNamespace(**{k: v[list(g)] for k, v in vars(of).items() if not isinstance(v, list)}) for g in groups]
    expected = sum(len(g) * REFERENCES["token_wise"](part) for g, part in zip(groups, parts, strict=True)) / 8
    torch.testing.assert_close(REGULARIZERS["token_wise"].loss(of, TEMPERATURE), expected)


# The loss of a term, made of the cross entropies of the rows and of the columns of its similarity matrices.
FROM_SIMILARITIES = {
    "multi_scale": lambda rows, columns: (sum(rows) + sum(columns)) / 2,
    "token_wise": lambda rows, columns: (rows[0] + columns[1]) / 2,
    "pooled_to_one": lambda rows, columns: rows[0],
}


@pytest.mark.parametrize("name", FROM_SIMILARITIES)
def test_a_term_is_the_cross_entropy_of_its_similarities(name: str) -> None:
    of, labels = views(8), torch.arange(5)
    logits = [matrix / TEMPERATURE for matrix in REGULARIZERS[name].similarities(of)]
    rows, columns = ([F.cross_entropy(m, labels) for m in way] for way in (logits, [m.T for m in logits]))
    torch.testing.assert_close(REGULARIZERS[name].loss(of, TEMPERATURE), FROM_SIMILARITIES[name](rows, columns))


def test_decorrelation_agrees_with_another_library() -> None:
    of = views(5, batch=9)
    vicreg = VICRegLoss(invariance_lambda=0, variance_mu=25, covariance_v=0.5)  # it adds the covariances of both sides
    theirs = vicreg(of.image_features, ref_emb=of.text_features)
    ours = 25 * decorrelation_regularization(of.image_features, of.text_features)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    expected = torch.autograd.grad(theirs, of.image_features)
    torch.testing.assert_close(torch.autograd.grad(ours, of.image_features), expected, rtol=1e-5, atol=1e-9)


def test_multi_scale_is_the_weighted_sum() -> None:
    images, texts = views(0).image_scales, views(1).image_scales
    for given, weights in (([[1, 0, 0.5]], [1, 0, 0.5]), ([], [1, 1, 1])):
        value = multi_scale_regularization(images, texts, TEMPERATURE, *given)
        torch.testing.assert_close(value, slow_multi_scale(images, texts, weights))


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_label_smoothing_added_is_label_smoothing(weight: float) -> None:
    x, y = views(6).image_features, views(6).text_features
    added = contrastive_loss(x, y, TEMPERATURE) + weight * label_smoothing_regularization(x, y, TEMPERATURE)
    logits, labels = F.normalize(x) @ F.normalize(y).T / TEMPERATURE, torch.arange(len(x))
    smoothing = weight / (1 + weight)
    both = [F.cross_entropy(side, labels, label_smoothing=smoothing) for side in (logits, logits.T)]
    torch.testing.assert_close(added, (1 + weight) * sum(both) / 2)


def test_values_known_exactly() -> None:
    x = torch.eye(8, dtype=torch.float64)
    assert feature_norm_penalty(3 * x, x).item() == pytest.approx(2)
    assert cyclic_in_modal_regularization(x, x.roll(1, dims=1)) == 0  # the texts are the images after a rotation


@pytest.mark.parametrize("name", ["label_smoothing", *list(FROM_SIMILARITIES)[1:]])
def test_equal_features_give_chance(name: str) -> None:
    equal = {key: torch.ones_like(v) for key, v in vars(views(0, batch=8)).items() if not isinstance(v, list)}
    of = SimpleNamespace(**equal | {"padding": torch.zeros(8, 6, dtype=torch.bool)})
    assert REGULARIZERS[name].loss(of, TEMPERATURE).item() == pytest.approx(math.log(8), rel=1e-5)


def test_each_word_looks_for_its_own_region() -> None:
    parts = torch.eye(4)  # red circle, blue square, red square, blue circle
    regions = torch.stack([parts[[0, 1]], parts[[2, 3]]])
    words = torch.stack([parts[[1, 0]], parts[[3, 2]]])
    no_padding = torch.zeros(2, 2, dtype=torch.bool)
    assert contrastive_loss(regions.mean(1), words.mean(1), 0.05) < 1e-6
    assert token_wise_regularization(regions, words, no_padding, 0.05) < 1e-6
    assert token_wise_regularization(regions, words.flip(0), no_padding, 0.05) > 19


@pytest.mark.parametrize("batch", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("dim", [128, 192, 256, 512])
def test_the_pooled_term_is_blind(batch: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(batch * dim)
    images, texts = (torch.randn(batch, dim, generator=generator).requires_grad_() for _ in range(2))
    unit_images, unit_texts = F.normalize(images), F.normalize(texts)
    logits = unit_images.mean(1, keepdim=True) @ unit_texts.mean(1, keepdim=True).T / 0.07  # [image, text]
    assert torch.linalg.matrix_rank(logits) == 1
    for best in (logits.argmax(1), logits.argmax(0)):
        assert (best == torch.arange(batch)).float().mean() <= 2 / batch
    blind, main = (
        torch.cat(torch.autograd.grad(loss(unit_images, unit_texts, 0.07), [images, texts], retain_graph=True)).norm()
        for loss in (pooled_to_one_regularization, contrastive_loss)
    )
    assert blind < 1e-3 * main


@pytest.fixture(scope="module")
def batch() -> tuple[DualEncoder, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    texts = [f"a {colour} {shape}" for colour in ("red", "blue", "green", "pink") for shape in ("circle", "star", "x")]
    tokenizer = WordTokenizer.build([*texts, "a small green star at the top of two circles"])
    model = DualEncoder(len(tokenizer), tokenizer.max_length).eval()
    return model, torch.randn(len(texts), 3, 32, 32), *tokenizer(texts)


@pytest.fixture(scope="module")
def report(batch: tuple) -> dict[str, dict]:
    return {row["name"]: row for row in regularizer_report(list(REGULARIZERS), *batch, steps=60)}


def test_every_term_has_a_gradient(report: dict[str, dict]) -> None:
    for name in REGULARIZERS:
        assert 0 < report[name]["gradient"] < math.inf, name


def test_the_report_exposes_the_blind_term(report: dict[str, dict]) -> None:
    pooled, main = report["pooled_to_one"], report[MAIN]
    assert pooled["ranks"] == [1]
    assert pooled["alone_recall"] <= 100 * 2 / 12
    assert main["ranks"] == [12]
    assert main["alone_recall"] == 100
    assert main["gradient"] == 1
    assert report["token_wise"]["alone_recall"] == 100
    assert min(report["token_wise"]["ranks"]) >= 6
    assert report["uniformity"]["ranks"] is None


def test_a_report_is_the_same_again(batch: tuple, report: dict) -> None:
    state = torch.get_rng_state()
    rows = regularizer_report(["token_wise", "pooled_to_one"], *batch, steps=60)
    assert torch.equal(torch.get_rng_state(), state)
    assert rows == [report[MAIN], report["token_wise"], report["pooled_to_one"]]
    assert all(parameter.grad is None for parameter in batch[0].parameters())


def test_names_and_weights() -> None:
    assert parse_regularizers([]) == ({}, {})
    weights, rates = parse_regularizers(["token_wise:2", "text_dropout:0.3", "uniformity"])
    assert (weights, rates) == ({"token_wise": 2.0, "uniformity": 1.0}, {"dropout": 0.3})
    assert not REGULARIZERS.keys() & RATES.keys()


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (multi_scale_regularization, ([torch.eye(2)] * 2, [torch.eye(2)]), "shorter"),
        (pooled_to_one_regularization, (torch.ones(3, 4), torch.ones(3, 5)), "same dim"),
        (
            parse_regularizers,
            [["token-wise"]],
            "no regularizer 'token-wise'; choose from multi_scale, token_wise",
        ),
        (parse_regularizers, [["multi_scale:x"]], "needs a weight of 0 or above"),
        (parse_regularizers, [["multi_scale:-1"]], "needs a weight of 0 or above"),
        (parse_regularizers, [["text_dropout"]], "needs a rate of at least 0 and below 1, such as text_dropout:0.1"),
        (parse_regularizers, [["token_wise", "uniformity", "token_wise:2"]], "token_wise is given twice"),
    ],
)
def test_bad_input_is_refused(function: Callable, arguments: Sequence, words: str) -> None:
    with pytest.raises(InputError if function is parse_regularizers else ValueError, match=re.escape(words)):
        function(*arguments)

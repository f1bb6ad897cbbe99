"""Each term beside a reference that is written another way: slow, pair by pair, and in float64."""

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from pytorch_metric_learning.losses import VICRegLoss
from torch import Tensor

from helpers import regularizers
from helpers.diagnostics import modality_gap
from helpers.encoders import DualEncoder
from helpers.losses import contrastive_loss, label_smoothed_contrastive_loss
from helpers.regularizer_report import MAIN, print_report, regularizer_report
from helpers.regularizers import (
    RATES,
    REGULARIZERS,
    crop_regularization,
    cyclic_in_modal_regularization,
    decorrelation_regularization,
    feature_norm_penalty,
    label_smoothing_regularization,
    multi_scale_regularization,
    nested_prefix_regularization,
    parse_regularizer,
    parse_regularizers,
    pool_regions,
    pooled_to_one_regularization,
    pyramid_regularization,
    remove_mean,
    soft_target_regularization,
    token_wise_regularization,
    uniformity_regularization,
)
from helpers.text import WordTokenizer

TEMPERATURE = 0.2
TEXTS = [
    "a red circle left of a blue square",
    "a blue square",
    "a star",
    "a small green star at the top",
    "two circles",
]


def views(
    seed: int, batch: int = 5, dim: int = 64, length: int = 6, dtype: torch.dtype = torch.float64
) -> SimpleNamespace:
    """Random features of a batch of ragged captions, all free to have a gradient."""
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
        local_features=free(batch, dim),
        short_text_features=free(batch, dim),
    )


def leaves(of: SimpleNamespace) -> list[Tensor]:
    flat = itertools.chain.from_iterable(v if isinstance(v, list) else [v] for v in vars(of).values())
    return [tensor for tensor in flat if tensor.requires_grad]


def value_and_gradients(term: Callable[..., Tensor], of: SimpleNamespace) -> list[Tensor | None]:
    value = term(of, TEMPERATURE)
    return [value.detach(), *torch.autograd.grad(value, leaves(of), allow_unused=True)]


# The references: scalars, one after another.


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


def both_ways(rows: list[list[Tensor]]) -> Tensor:
    return (one_way(rows) + one_way(transposed(rows))) / 2


def slow_multi_scale(image_scales: list[Tensor], text_scales: list[Tensor], weights: list[float]) -> Tensor:
    terms = zip(weights, image_scales, text_scales, strict=True)
    return sum(weight * both_ways(cosines(x, y)) for weight, x, y in terms)


def slow_token_wise(regions: Tensor, words: Tensor, padding: Tensor) -> Tensor:
    def fit(i: int, j: int) -> tuple[Tensor, Tensor]:
        spoken = [word for word, padded in zip(words[j], padding[j], strict=True) if not padded]
        grid = [[cosine(region, word) for word in spoken] for region in regions[i]]
        of_regions = sum(max(row, key=Tensor.item) for row in grid) / len(grid)
        return of_regions, sum(max(column, key=Tensor.item) for column in zip(*grid, strict=True)) / len(spoken)

    fits = table(fit, len(regions))
    of_regions, of_words = ([[pair[side] for pair in row] for row in fits] for side in (0, 1))
    return (one_way(of_regions) + one_way(transposed(of_words))) / 2


def slow_pyramid(v: SimpleNamespace) -> Tensor:
    quarters = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    pooled = torch.stack([sum(v.regions[:, place] for place in quarter) / 4 for quarter in quarters], dim=1)
    whole = sum(v.regions[:, place] for place in range(16)) / 16
    first = both_ways(cosines(whole, v.text_features))
    second = slow_token_wise(pooled, v.phrases, v.padding)
    return (first + second + slow_token_wise(v.regions, v.words, v.padding)) / 3


def slow_pooled(x: Tensor, y: Tensor) -> Tensor:
    return one_way(table(lambda i, j: sum(x[i]) / len(x[i]) * sum(y[j]) / len(y[j]), len(x)))


def slow_feature_norm(x: Tensor, y: Tensor) -> Tensor:
    return sum(((feature * feature).sum().sqrt() - 1) ** 2 for feature in (*x, *y)) / (2 * len(x))


def slow_uniformity(x: Tensor, y: Tensor) -> Tensor:
    def of_one(side: Tensor) -> Tensor:
        pairs = list(itertools.combinations(side, 2))
        return (sum((-2 * (2 - 2 * cosine(one, other))).exp() for one, other in pairs) / len(pairs)).log()

    return (of_one(x) + of_one(y)) / 2


def slow_cyclic(one: list[list[Tensor]], other: list[list[Tensor]]) -> Tensor:
    return sum((one[j][k] - other[j][k]) ** 2 for j in range(len(one)) for k in range(len(one))) / len(one)


def slow_decorrelation(x: Tensor, y: Tensor) -> Tensor:
    def of_one(side: Tensor) -> Tensor:
        covariance = torch.cov(side.T)
        spread = sum(torch.relu(1 - (variance + 1e-4).sqrt()) for variance in covariance.diagonal())
        together = sum(covariance[d, e] ** 2 for d in range(len(covariance)) for e in range(len(covariance)) if d != e)
        return (spread + 0.04 * together) / len(covariance)

    return (of_one(x) + of_one(y)) / 2


def slow_label_smoothing(x: Tensor, y: Tensor) -> Tensor:
    even = [[1 / len(x)] * len(x)] * len(x)
    rows = cosines(x, y)
    return (one_way(rows, even) + one_way(transposed(rows), even)) / 2


def slow_soft_targets(x: Tensor, y: Tensor) -> Tensor:
    alike = table(lambda i, j: (cosine(x[i], x[j]) + cosine(y[i], y[j])) / 2, len(x))
    targets = [[share.item() for share in probabilities(row)] for row in alike]
    rows = cosines(x, y)
    return (one_way(rows, targets) + one_way(transposed(rows), targets)) / 2


REFERENCES: dict[str, Callable[[SimpleNamespace], Tensor]] = {
    "multi_scale": lambda v: slow_multi_scale(v.image_scales[:2], v.text_scales[:2], [1, 1]),
    "pyramid": slow_pyramid,
    "token_wise": lambda v: slow_token_wise(v.regions, v.phrases, v.padding),
    "nested_prefixes": lambda v: slow_multi_scale(
        *([side[:, :k] for k in (8, 16, 32, 64)] for side in (v.image_features, v.text_features)), [0.25] * 4
    ),
    "crops": lambda v: slow_multi_scale(
        [v.image_features, v.local_features], [v.short_text_features, v.text_features], [0.5, 0.5]
    ),
    "pooled_to_one": lambda v: slow_pooled(v.image_features, v.text_features),
    "feature_norm": lambda v: slow_feature_norm(v.image_features, v.text_features),
    "uniformity": lambda v: slow_uniformity(v.image_features, v.text_features),
    "cyclic_cross_modal": lambda v: slow_cyclic(
        cosines(v.image_features, v.text_features), transposed(cosines(v.image_features, v.text_features))
    ),
    "cyclic_in_modal": lambda v: slow_cyclic(
        cosines(v.image_features, v.image_features), cosines(v.text_features, v.text_features)
    ),
    "decorrelation": lambda v: slow_decorrelation(v.image_features, v.text_features),
    "label_smoothing": lambda v: slow_label_smoothing(v.image_features, v.text_features),
    "soft_targets": lambda v: slow_soft_targets(v.image_features, v.text_features),
}
SHAPES = [{"batch": 2, "length": 1}, {"batch": 5, "dim": 65, "length": 7}, {"batch": 3, "dim": 66, "length": 4}]


def test_every_term_has_a_reference() -> None:
    assert REFERENCES.keys() == REGULARIZERS.keys()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_terms_agree_with_their_references_in_value_and_gradient(name: str, shape: dict[str, int]) -> None:
    of = views(len(str(shape)), **shape)
    expected = value_and_gradients(lambda v, _: REFERENCES[name](v), of)
    torch.testing.assert_close(value_and_gradients(REGULARIZERS[name], of), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_terms_agree_with_their_references_in_float32_and_less(name: str) -> None:
    expected = REFERENCES[name](views(0)).float()
    torch.testing.assert_close(
        REGULARIZERS[name](views(0, dtype=torch.float32), TEMPERATURE), expected, rtol=1e-5, atol=1e-6
    )
    for dtype in (torch.float16, torch.bfloat16):
        value = REGULARIZERS[name](views(0, dtype=dtype), TEMPERATURE)
        assert value.dtype == torch.float32 or name == "pooled_to_one"
        torch.testing.assert_close(value.float(), expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("name", sorted(REGULARIZERS.keys() - {"soft_targets"}))  # its gradient leaves the targets out
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    of = views(1, batch=2, length=3)

    def term(*_: Tensor) -> Tensor:
        return REGULARIZERS[name](of, TEMPERATURE)

    used = [
        leaf
        for leaf, g in zip(leaves(of), value_and_gradients(REGULARIZERS[name], of)[1:], strict=True)
        if g is not None
    ]
    assert torch.autograd.gradcheck(term, used, fast_mode=True)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_the_order_of_the_batch_changes_nothing(name: str) -> None:
    of = views(2, batch=7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    moved = {key: [x[order] for x in v] if isinstance(v, list) else v[order] for key, v in vars(of).items()}
    torch.testing.assert_close(
        REGULARIZERS[name](SimpleNamespace(**moved), TEMPERATURE), REGULARIZERS[name](of, TEMPERATURE)
    )


@pytest.mark.parametrize("name", ["token_wise", "pyramid"])
def test_what_stands_at_padding_changes_nothing(name: str) -> None:
    of, wider = views(3), views(3)
    expected = value_and_gradients(REGULARIZERS[name], of)
    for side in ("words", "phrases"):
        garbage = torch.full_like(getattr(of, side), 7.0)
        changed = getattr(of, side).detach().where(~of.padding[:, :, None], garbage)
        setattr(wider, side, torch.cat([changed, garbage], dim=1).requires_grad_())
    wider.padding = torch.cat([of.padding, torch.ones_like(of.padding)], dim=1)
    found = value_and_gradients(REGULARIZERS[name], wider)
    length = of.padding.shape[1]
    for one, other in zip(found, expected, strict=True):
        if other is not None and other.shape[1:2] == (length,):
            assert not one[:, length:].any()
            one = one[:, :length]
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["token_wise", "pyramid"])
def test_parts_are_compared_within_groups(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of = views(4, batch=8)
    monkeypatch.setattr(regularizers, "GROUP", 3)
    groups = [range(0, 3), range(3, 6), range(6, 8)]
    parts = [SimpleNamespace(**{k: v[list(g)] for k, v in vars(of).items() if not isinstance(v, list)}) for g in groups]
    expected = sum(len(g) * REFERENCES[name](part) for g, part in zip(groups, parts, strict=True)) / 8
    torch.testing.assert_close(REGULARIZERS[name](of, TEMPERATURE), expected)


def test_decorrelation_is_that_of_another_library() -> None:
    of = views(5, batch=9)
    theirs = VICRegLoss(invariance_lambda=0, variance_mu=25, covariance_v=1)(
        of.image_features, ref_emb=of.text_features
    )
    ours = decorrelation_regularization(of.image_features, of.text_features, variance=25, covariance=2)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    expected = torch.autograd.grad(theirs, of.image_features)
    torch.testing.assert_close(torch.autograd.grad(ours, of.image_features), expected, rtol=1e-5, atol=1e-9)


def test_multi_scale_is_the_weighted_sum() -> None:
    images, texts = views(0).image_scales, views(1).image_scales
    weighted = multi_scale_regularization(images, texts, TEMPERATURE, [1, 0, 0.5])
    torch.testing.assert_close(weighted, slow_multi_scale(images, texts, [1, 0, 0.5]))
    torch.testing.assert_close(
        multi_scale_regularization(images, texts, TEMPERATURE), slow_multi_scale(images, texts, [1, 1, 1])
    )


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_label_smoothing_added_is_label_smoothing(weight: float) -> None:
    x, y = views(6).image_features, views(6).text_features
    added = contrastive_loss(x, y, TEMPERATURE) + weight * label_smoothing_regularization(x, y, TEMPERATURE)
    smoothed = label_smoothed_contrastive_loss(x, y, weight / (1 + weight), TEMPERATURE)
    torch.testing.assert_close(added, (1 + weight) * smoothed)


def test_what_is_known_of_the_values() -> None:
    x = torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(feature_norm_penalty(3 * x, x), torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(uniformity_regularization(x, x), torch.tensor(-4.0, dtype=torch.float64))
    turned = x.roll(1, dims=1)
    assert cyclic_in_modal_regularization(x, turned) == 0
    equal = torch.ones(8, 64)
    for term in (label_smoothing_regularization, soft_target_regularization, nested_prefix_regularization):
        assert term(equal, equal).item() == pytest.approx(math.log(8), rel=1e-5)
    no_padding = torch.zeros(8, 3, dtype=torch.bool)
    parts = equal[:, None, :].expand(-1, 3, -1)
    assert token_wise_regularization(parts, parts, no_padding).item() == pytest.approx(math.log(8), rel=1e-5)


def test_each_word_seeks_its_own_region() -> None:
    """Two scenes with the same parts: only the words that go together tell them apart."""
    parts = torch.eye(4)  # red circle, blue square, red square, blue circle
    regions = torch.stack([parts[[0, 1]], parts[[2, 3]]])
    words = torch.stack([parts[[1, 0]], parts[[3, 2]]])
    assert token_wise_regularization(regions, words, torch.zeros(2, 2, dtype=torch.bool), 0.05) < 1e-6
    assert contrastive_loss(regions.mean(1), words.mean(1), 0.05) < 1e-6
    exchanged = words.flip(0)
    assert token_wise_regularization(regions, exchanged, torch.zeros(2, 2, dtype=torch.bool), 0.05) > 19


def test_blocks_of_regions() -> None:
    regions = torch.arange(16.0).view(1, 16, 1)
    assert pool_regions(regions, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_regions(regions, 1).flatten().tolist() == [7.5]
    assert torch.equal(pool_regions(regions, 4), regions)


def test_means_removed_close_the_gap() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(600, 16, generator=generator)
    images = shared + 0.3 * torch.randn(600, 16, generator=generator) + 2
    texts = shared + 0.3 * torch.randn(600, 16, generator=generator) - 2
    means = [torch.nn.functional.normalize(side[:300]).mean(0) for side in (images, texts)]
    closed = remove_mean(images[300:], texts[300:], *means)
    assert modality_gap(images[300:], texts[300:]) > 1
    assert modality_gap(*closed) < 0.15
    torch.testing.assert_close(closed[0].norm(dim=1), torch.ones(300))
    by_hand = images[300] / images[300].norm() - means[0]
    torch.testing.assert_close(closed[0][0], by_hand / by_hand.norm())


# The pooled form is no scale.

POOLED_SHAPES = [(batch, dim) for batch in (8, 16, 32, 64, 128) for dim in (128, 192, 256, 512)]


@pytest.mark.parametrize(("batch", "dim"), POOLED_SHAPES)
def test_the_pooled_term_is_blind(batch: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(batch * dim)
    images, texts = (torch.randn(batch, dim, generator=generator).requires_grad_() for _ in range(2))
    unit_images, unit_texts = (torch.nn.functional.normalize(side) for side in (images, texts))
    logits = unit_images.mean(1, keepdim=True) @ unit_texts.mean(1, keepdim=True).T / 0.07  # [image, text]
    assert torch.linalg.matrix_rank(logits) == 1
    assert (logits.argmax(1) == torch.arange(batch)).float().mean() <= 2 / batch
    assert (logits.argmax(0) == torch.arange(batch)).float().mean() <= 2 / batch
    norms = [
        torch.cat(torch.autograd.grad(loss(unit_images, unit_texts, 0.07), [images, texts], retain_graph=True)).norm()
        for loss in (pooled_to_one_regularization, contrastive_loss)
    ]
    assert norms[0] < 1e-3 * norms[1]


# Every term with real encoders, and its report.


@pytest.fixture(scope="module")
def batch() -> tuple[DualEncoder, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    texts = [
        f"a {colour} {shape}" for colour in ("red", "blue", "green", "pink") for shape in ("circle", "star", "cross")
    ]
    tokenizer = WordTokenizer.build(texts + TEXTS)
    model = DualEncoder(len(tokenizer), tokenizer.max_length).eval()
    return model, torch.randn(len(texts), 3, 32, 32), *tokenizer(texts)


@pytest.fixture(scope="module")
def report(batch: tuple) -> dict[str, dict]:
    rows = regularizer_report(list(REGULARIZERS), *batch, steps=60)
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_gradient_reaches_both_encoders(report: dict[str, dict], name: str) -> None:
    row = report[name]
    for side in ("gradient", "image_gradient", "text_gradient"):
        assert 0 < row[side] < math.inf
    assert row["layers"]["image_encoder.stem"] > 0
    assert row["layers"]["text_encoder.embedding"] > 0


def test_the_report_exposes_the_blind_term(report: dict[str, dict]) -> None:
    pooled, main = report["pooled_to_one"], report[MAIN]
    assert pooled["ranks"] == [1]
    assert pooled["alone_recall"] <= 100 * 2 / 12
    assert main["ranks"] == [12]
    assert main["alone_recall"] == 100
    assert main["gradient"] == main["text_gradient"] == main["layers"]["image_encoder.down1"] == 1
    for name in ("token_wise", "nested_prefixes", "crops", "soft_targets"):
        assert report[name]["alone_recall"] == 100, name
        assert min(report[name]["ranks"]) >= 6, name
    assert report["label_smoothing"]["alone"] == pytest.approx(math.log(12), abs=1e-2)
    assert report["uniformity"]["ranks"] is None


def test_a_report_is_the_same_again_and_prints(batch: tuple, report: dict, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.get_rng_state()
    rows = regularizer_report(["crops", "pooled_to_one"], *batch, steps=60)
    assert torch.equal(torch.get_rng_state(), state)
    assert rows == [report[MAIN], report["crops"], report["pooled_to_one"]]
    assert all(parameter.grad is None for parameter in batch[0].parameters())
    print_report(rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["main", "crops", "pooled_to_one"]
    assert len({len(line) for line in lines}) == 1


def test_a_rate_has_no_report(batch: tuple) -> None:
    with pytest.raises(ValueError, match="no regularizer 'word_dropout'"):
        regularizer_report(["word_dropout"], *batch)


# Bad input, and the command line.

X, Y = views(0).image_features.detach(), views(1).image_features.detach()
REGIONS, WORDS, PADDING = views(0).regions.detach(), views(0).words.detach(), views(0).padding
NAN = X.clone().fill_(math.nan)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: multi_scale_regularization([], []), "at least one: got 0 and 0"),
        (lambda: multi_scale_regularization([X, X], [Y]), "got 2 and 1"),
        (lambda: multi_scale_regularization([X, X], [Y, Y], 0.1, [1.0]), "1 weights for 2 scales"),
        (lambda: multi_scale_regularization([X, X], [Y, Y], 0.1, [1.0, -1.0]), "0 or above"),
        (lambda: multi_scale_regularization([X], [Y], 0.1, [math.nan]), "finite"),
        (lambda: multi_scale_regularization([X], [Y[:3]]), "5 images and 3 texts"),
        (lambda: nested_prefix_regularization(X, Y, (8, 65)), "from 1 to the 64 components there are, not (8, 65)"),
        (lambda: nested_prefix_regularization(X, Y, (0,)), "from 1 to the 64"),
        (lambda: nested_prefix_regularization(X, Y, ()), "from 1 to the 64"),
        (lambda: token_wise_regularization(REGIONS, WORDS, PADDING | True), "text 0 is nothing but padding"),
        (lambda: token_wise_regularization(REGIONS, WORDS, PADDING[:, :2]), "one a word"),
        (lambda: token_wise_regularization(REGIONS, WORDS, PADDING.int()), "padding must be bool [5, 6]"),
        (lambda: token_wise_regularization(REGIONS[:3], WORDS, PADDING), "got 3 images and 5 texts"),
        (lambda: token_wise_regularization(X, WORDS, PADDING), "regions must have the shape [batch, regions, dim]"),
        (lambda: token_wise_regularization(REGIONS, WORDS[:, :, :8], PADDING), "same dim: got 64 and 8"),
        (lambda: token_wise_regularization(REGIONS * math.nan, WORDS, PADDING), "regions holds NaN"),
        (lambda: token_wise_regularization(REGIONS, WORDS, PADDING, 0), "temperature must be"),
        (lambda: pyramid_regularization(REGIONS[:, :15], X, WORDS, WORDS, PADDING), "15 regions are no square"),
        (lambda: pyramid_regularization(REGIONS[:, :9], X, WORDS, WORDS, PADDING), "9 regions are no square"),
        (lambda: crop_regularization(X, Y, X[:2], Y), "2 images and 5 texts"),
        (lambda: pooled_to_one_regularization(X[0], Y[0]), "[batch, dim]"),
        (lambda: feature_norm_penalty(X, NAN), "text_features holds NaN"),
        (lambda: uniformity_regularization(NAN, Y), "image_features holds NaN"),
        (lambda: decorrelation_regularization(X[:1], Y[:1]), "two pairs or more"),
        (lambda: soft_target_regularization(X, Y, -1), "temperature must be"),
        (lambda: label_smoothing_regularization(X, Y, math.nan), "temperature must be"),
        (lambda: remove_mean(X, Y, X.mean(0), Y), "text_mean must be finite and have the shape [dim], here [64]"),
        (lambda: remove_mean(X, Y, NAN.mean(0), Y.mean(0)), "image_mean must be finite"),
    ],
)
def test_bad_input_is_refused_in_words(call: Callable, words: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011, the words are looked for below
        call()
    assert words in str(error.value)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_no_term_takes_nan(name: str) -> None:
    asked = value_and_gradients(REGULARIZERS[name], views(0))[1:]
    for leaf, gradient in enumerate(asked):
        if gradient is not None:
            of = views(0)
            leaves(of)[leaf].data.fill_(math.nan)
            with pytest.raises(ValueError, match="NaN"):
                REGULARIZERS[name](of, TEMPERATURE)


def test_names_and_weights() -> None:
    assert parse_regularizer("multi_scale") == ("multi_scale", 1.0)
    assert parse_regularizer("pooled_to_one:0.5") == ("pooled_to_one", 0.5)
    assert parse_regularizer("word_dropout:0.1") == ("word_dropout", 0.1)
    assert parse_regularizers(["crops:2", "text_dropout:0.3", "uniformity"]) == (
        {"crops": 2.0, "uniformity": 1.0},
        {"dropout": 0.3},
    )
    assert not REGULARIZERS.keys() & RATES.keys()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["nope"], "no regularizer 'nope'; there are: multi_scale, pyramid"),
        (["token-wise"], "no regularizer 'token-wise'; did you mean 'token_wise'? there are: multi_scale"),
        (["word_droput:0.1"], "did you mean 'word_dropout'?"),
        (["multi_scale:x"], "the weight in 'multi_scale:x' is no number; write for example multi_scale:0.5"),
        (["multi_scale:-1"], "must be finite and 0 or above"),
        (["multi_scale:inf"], "must be finite and 0 or above"),
        (["word_dropout"], "needs its share; write for example word_dropout:0.1"),
        (["word_dropout:1"], "from 0 to below 1"),
        (["patch_dropout:nan"], "from 0 to below 1"),
        (["crops", "uniformity", "crops:2"], "crops is given twice"),
    ],
)
def test_bad_names_and_weights_are_refused_in_words(texts: list[str], words: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011, the words are looked for below
        parse_regularizers(texts)
    assert words in str(error.value)

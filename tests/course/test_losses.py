"""Each loss against independent references, at its edges, and by the properties that the lessons teach.

The references are the losses of open_clip and pytorch-metric-learning, where they exist, and a formula in float64 for
each loss, written here row by row from its definition. Gradients are compared by their largest element.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import open_clip.loss
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch import Tensor

from helpers.losses import (
    contrastive_loss,
    cosine_similarities,
    dot_product_contrastive_loss,
    masked_contrastive_loss,
    multi_positive_contrastive_loss,
    one_way_contrastive_loss,
    sigmoid_loss,
)
from helpers.scale.blockwise import blockwise_contrastive_loss


@dataclass(frozen=True)
class Case:
    """A batch: features ``[batch, dim]``, one image id per pair, a temperature, and a number from 0 to 1 that sets the
    bias, smoothing, hardness or margin of a loss."""

    images: Tensor
    texts: Tensor
    ids: Tensor
    temperature: float
    strength: float

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "Case":
        return replace(self, images=change(self.images), texts=change(self.texts))

    def exchanged(self) -> "Case":
        return replace(self, images=self.texts, texts=self.images)

    def permuted(self, order: Tensor) -> "Case":
        return replace(self, images=self.images[order], texts=self.texts[order], ids=self.ids[order])


def random_case(number: int, largest: int = 24) -> Case:
    """Sample a batch: at least one pair, temperature from 0.02 to 1, rows of length 0.5 to 3.5; odd numbers match."""
    generator = torch.Generator().manual_seed(number)
    batch, dim = (int(torch.randint(1, largest + 1, (1,), generator=generator)) for _ in range(2))
    images, texts = (torch.randn(batch, dim, generator=generator) for _ in range(2))
    if number % 2:
        texts = images + 0.5 * texts
    images, texts = (F.normalize(x) * (0.5 + 3 * torch.rand(batch, 1, generator=generator)) for x in (images, texts))
    exponent, strength = torch.rand(2, generator=generator).tolist()
    ids = torch.randint(0, batch, (batch,), generator=generator)
    return Case(images, texts, ids, 0.02 * 50**exponent, strength)


CASES = [random_case(number).mapped(Tensor.double) for number in range(30)]
LOSSES: dict[str, Callable[[Case], Tensor]] = {
    "contrastive": lambda c: contrastive_loss(c.images, c.texts, c.temperature),
    "blockwise": lambda c: blockwise_contrastive_loss(c.images, c.texts, c.temperature),
    "one way": lambda c: one_way_contrastive_loss(c.images, c.texts, c.temperature, normalize=True),
    "one way raw": lambda c: one_way_contrastive_loss(c.images, c.texts, c.temperature),
    "masked": lambda c: masked_contrastive_loss(c.images, c.texts, c.ids, c.temperature),
    "multi-positive": lambda c: multi_positive_contrastive_loss(c.images, c.texts, c.ids, c.temperature),
    "sigmoid": lambda c: sigmoid_loss(c.images, c.texts, -10 * c.strength, c.temperature),
}
SYMMETRIC = [name for name in LOSSES if not name.startswith("one way")]
SOFTMAX = [name for name in SYMMETRIC if name != "sigmoid"]


def log_sum_exp(values: Tensor) -> Tensor:
    return values.max() + (values - values.max()).exp().sum().log()


def others(row: Tensor, i: int) -> Tensor:
    return torch.cat([row[:i], row[i + 1 :]])


def sigmoid_row(row: Tensor, i: int, case: Case) -> Tensor:
    logits = row - 10 * case.strength
    return (1 + torch.exp(-logits[i])).log() + (1 + others(logits, i).exp()).log().sum()


ROWS: dict[str, Callable[[Tensor, int, Case], Tensor]] = {  # the loss of image i, from its row of logits
    **dict.fromkeys(
        ("contrastive", "blockwise", "one way", "one way raw"), lambda row, i, case: log_sum_exp(row) - row[i]
    ),
    "masked": lambda row, i, case: log_sum_exp(torch.cat([row[case.ids != case.ids[i]], row[i : i + 1]])) - row[i],
    "multi-positive": lambda row, i, case: log_sum_exp(row) - row[case.ids == case.ids[i]].mean(),
    "sigmoid": sigmoid_row,
}


def row_by_row(name: str, case: Case) -> Tensor:
    """The loss from the formula for one row: the mean over the rows and, unless it is one way, over the columns."""
    if name != "one way raw":
        case = case.mapped(lambda side: side / side.pow(2).sum(1, keepdim=True).sqrt())
    logits = torch.einsum("id,td->it", case.images, case.texts) / case.temperature
    ways = (logits,) if name.startswith("one way") else (logits, logits.T)
    rows = [ROWS[name](matrix[i], i, case) for matrix in ways for i in range(len(logits))]
    return sum(rows) / len(rows)


def clip_loss(case: Case) -> Tensor:
    unit = case.mapped(F.normalize)
    return open_clip.loss.ClipLoss()(unit.images, unit.texts, 1 / case.temperature)


def siglip_loss(case: Case) -> Tensor:
    unit = case.mapped(F.normalize)
    return open_clip.loss.SigLipLoss()(unit.images, unit.texts, 1 / case.temperature, -10 * case.strength)


def nt_xent_one_way(case: Case) -> Tensor:
    labels = torch.arange(len(case.images))
    loss = NTXentLoss(case.temperature, reducer=MeanReducer())
    return loss(case.images, labels, ref_emb=case.texts, ref_labels=labels.clone())


def nt_xent_masked(case: Case) -> Tensor:
    """Given by its triplets: each pair is a positive, and the pairs of other images are negatives."""
    anchors, negatives = torch.where(case.ids[:, None] != case.ids)
    labels = torch.arange(len(case.images))
    loss = NTXentLoss(case.temperature, reducer=MeanReducer())
    triplets = (labels, labels, anchors, negatives)
    ways = (case, case.exchanged())
    return sum(loss(c.images, indices_tuple=triplets, ref_emb=c.texts, ref_labels=labels) for c in ways) / 2


def sup_con_both_ways(case: Case) -> Tensor:
    if len(case.ids.unique()) == 1:
        return row_by_row("multi-positive", case)  # SupConLoss gives 0 where there is no negative at all
    loss = SupConLoss(case.temperature, reducer=MeanReducer())
    ways = (case, case.exchanged())
    return sum(loss(c.images, c.ids, ref_emb=c.texts, ref_labels=c.ids.clone()) for c in ways) / 2


REFERENCES: list[tuple[str, Callable[[Case], Tensor]]] = [
    *((name, partial(row_by_row, name)) for name in ROWS),
    ("one way", nt_xent_one_way),
    ("contrastive", clip_loss),
    ("blockwise", clip_loss),
    ("masked", nt_xent_masked),
    ("multi-positive", sup_con_both_ways),
    ("sigmoid", siglip_loss),
]


def with_gradients(loss: Callable[[Case], Tensor], case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its gradients with respect to images and texts."""
    case = case.mapped(lambda side: side.clone().requires_grad_())
    value = loss(case)
    return value.detach(), *torch.autograd.grad(value, (case.images, case.texts), materialize_grads=True)


@pytest.mark.parametrize(("name", "reference"), REFERENCES)
def test_value_and_gradients_agree_with_a_float64_reference(name: str, reference) -> None:
    for number in range(200):
        case = random_case(number, largest=64 if number % 20 == 0 else 12)
        expected, *expected_gradients = with_gradients(reference, case.mapped(Tensor.double))
        value, *gradients = with_gradients(LOSSES[name], case)
        assert abs(value - expected) <= 2e-6 * max(1, abs(expected)), f"case {number}: {value}, {expected}"
        for side, gradient, theirs in zip(("images", "texts"), gradients, expected_gradients, strict=True):
            difference = (gradient - theirs).abs().max()
            assert difference <= 1e-5 * max(1, theirs.abs().max()), f"case {number}: {side} differ by {difference}"


def test_contrastive_loss_on_large_batches_at_the_lowest_temperature() -> None:
    for number in range(30):
        generator = torch.Generator().manual_seed(number)
        images, texts = torch.randn(2, 256, 512, generator=generator)
        texts = texts if number % 2 else images + 0.3 * texts
        case = Case(images, texts, torch.arange(256), 0.01, 0.0)
        expected = float(clip_loss(case.mapped(Tensor.double)))
        assert abs(float(contrastive_loss(images, texts, 0.01)) - expected) <= 2e-6 * max(1, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_pass_gradcheck(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([4, 1, 4, 0, 2])
    strength = torch.tensor([0.3], dtype=torch.float64, requires_grad=True) if name == "sigmoid" else 0.3

    def loss(images: Tensor, texts: Tensor, temperature: Tensor, strength: Tensor | float) -> Tensor:
        return LOSSES[name](Case(images, texts, ids, temperature, strength))

    assert torch.autograd.gradcheck(loss, (images, texts, temperature, strength))


@pytest.mark.parametrize("name", LOSSES)
def test_temperature_and_bias_may_be_tensors_with_one_element(name: str) -> None:
    for case in (random_case(5), random_case(12, largest=1)):
        for shape in ((), (1,)):
            strength = torch.full(shape, case.strength) if name == "sigmoid" else case.strength
            of_tensors = replace(case, temperature=torch.full(shape, case.temperature), strength=strength)
            torch.testing.assert_close(LOSSES[name](of_tensors), LOSSES[name](case))


EDGES = {
    "one pair": (torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, -0.5]])),
    "two pairs": (torch.tensor([[1.0, 2.0], [0.3, -1.0]]), torch.tensor([[2.0, -0.5], [1.0, 1.0]])),
    "one dimension": (torch.tensor([[1.0], [-2.0], [0.5]]), torch.tensor([[0.5], [3.0], [-1.0]])),
    "one pair in one dimension": (torch.tensor([[2.0]]), torch.tensor([[-1.0]])),
    "all duplicates": (torch.ones(6, 4), torch.ones(6, 4)),
}


@pytest.mark.parametrize("same_image", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("name", LOSSES)
def test_edge_cases_give_finite_values_and_gradients(name: str, edge: str, dtype: torch.dtype, same_image) -> None:
    images, texts = (side.to(dtype) for side in EDGES[edge])
    ids = torch.zeros(len(images), dtype=torch.int64) if same_image else torch.arange(len(images))
    for temperature in (0.01, 10.0):
        value, *gradients = with_gradients(LOSSES[name], Case(images, texts, ids, temperature, 0.5))
        assert torch.isfinite(value)
        assert value.shape == ()
        assert value.dtype == dtype
        for gradient in gradients:
            assert torch.isfinite(gradient).all()
            assert gradient.dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
def test_one_pair_and_equal_features_have_known_values(name: str) -> None:
    one_pair = {"sigmoid": math.log1p(math.exp(5))}.get(name, 0)
    images, texts = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])  # at right angles: similarity 0
    case = Case(images, texts, torch.arange(1), 0.1, 0.5)
    assert float(LOSSES[name](case)) == pytest.approx(one_pair, abs=1e-6)
    if name not in ("sigmoid", "one way raw"):
        case = Case(torch.ones(6, 4), torch.ones(6, 4), torch.arange(6), 0.1, 0.5)
        assert float(LOSSES[name](case)) == pytest.approx(math.log(6), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_zero_vector_counts_as_orthogonal_to_all_vectors(name: str) -> None:
    images, texts = torch.eye(3), torch.eye(3)
    images[1] = 0
    value = LOSSES[name](Case(images, texts, torch.arange(3), 0.1, 0.5))
    orthogonal = torch.eye(4)[[0, 3, 2]]  # the same similarities, the second image in a dimension of its own
    expected = LOSSES[name](Case(orthogonal, torch.eye(4)[:3], torch.arange(3), 0.1, 0.5))
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_order_of_the_pairs_does_not_matter(name: str) -> None:
    for number, case in enumerate(CASES):
        order = torch.randperm(len(case.images), generator=torch.Generator().manual_seed(number))
        value, *gradients = with_gradients(LOSSES[name], case)
        permuted, *permuted_gradients = with_gradients(LOSSES[name], case.permuted(order))
        torch.testing.assert_close(permuted, value)
        for gradient, permuted_gradient in zip(gradients, permuted_gradients, strict=True):
            torch.testing.assert_close(permuted_gradient, gradient[order])


@pytest.mark.parametrize("name", SYMMETRIC)
def test_images_and_texts_can_be_exchanged(name: str) -> None:
    for case in CASES:
        torch.testing.assert_close(LOSSES[name](case.exchanged()), LOSSES[name](case))


def test_contrastive_loss_is_the_mean_of_two_different_one_way_losses() -> None:
    for case in CASES:
        images_to_texts, texts_to_images = LOSSES["one way"](case), LOSSES["one way"](case.exchanged())
        if len(case.images) > 2 and case.images.shape[1] > 1:
            assert abs(images_to_texts - texts_to_images) > 1e-9
        torch.testing.assert_close((images_to_texts + texts_to_images) / 2, LOSSES["contrastive"](case))


def test_dot_product_loss_is_the_mean_of_both_raw_one_way_losses() -> None:
    for case in CASES:
        both = (LOSSES["one way raw"](case) + LOSSES["one way raw"](case.exchanged())) / 2
        torch.testing.assert_close(dot_product_contrastive_loss(case.images, case.texts, case.temperature), both)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "one way raw"])
def test_length_of_a_feature_does_not_matter(name: str) -> None:
    for number, case in enumerate(CASES):
        lengths = 0.1 + 5 * torch.rand(2, len(case.images), 1, generator=torch.Generator().manual_seed(number))
        longer = replace(case, images=case.images * lengths[0], texts=case.texts * lengths[1])
        torch.testing.assert_close(LOSSES[name](longer), LOSSES[name](case))


@pytest.mark.parametrize("factor", [2.0, 0.5, 7.0])
def test_length_of_raw_features_is_a_hidden_temperature(factor: float) -> None:
    for case in CASES:
        longer = one_way_contrastive_loss(factor * case.images, case.texts, factor * case.temperature)
        torch.testing.assert_close(longer, LOSSES["one way raw"](case))


def test_one_way_loss_ignores_an_offset_added_to_a_row() -> None:
    noticed = 0
    for number, case in enumerate(CASES):
        offsets = torch.randn(len(case.images), 1, generator=torch.Generator().manual_seed(number)).double()
        images = torch.cat([case.images, offsets], dim=1)  # times 1 in the texts: an offset for the row of each image
        texts = torch.cat([case.texts, torch.ones(len(case.texts), 1)], dim=1)
        moved, loss = replace(case, images=images, texts=texts), LOSSES["one way raw"]
        torch.testing.assert_close(loss(moved), loss(case))
        noticed += abs(loss(moved.exchanged()) - loss(case.exchanged())) > 0.01
    assert noticed > 20  # the loss of the other direction changes


def with_a_common_direction(case: Case, share: float) -> Case:
    """Change every cosine c to ``(1 - share) * c + share`` and the temperature to ``(1 - share) * temperature``.

    This adds the same ``share / ((1 - share) * temperature)`` to all logits.
    """
    moved = case.mapped(lambda side: F.pad(math.sqrt(1 - share) * F.normalize(side), (0, 1), value=math.sqrt(share)))
    return replace(moved, temperature=(1 - share) * case.temperature)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_only_the_sigmoid_loss_notices_a_constant_added_to_all_similarities_and_its_bias_undoes_it(name: str) -> None:
    changed = 0
    for case in CASES:
        moved = with_a_common_direction(case, 0.3)
        if name == "sigmoid":
            changed += abs(LOSSES[name](moved) - LOSSES[name](case)) > 0.01
            moved = replace(moved, strength=case.strength + 0.03 / moved.temperature)  # the bias is -10 * strength
        torch.testing.assert_close(LOSSES[name](moved), LOSSES[name](case))
    assert changed > 20 or name != "sigmoid"


def mean_of_both_ways(rows: Callable[[Tensor, Tensor], Tensor], case: Case) -> Tensor:
    """The mean of ``rows(similarities, ids)`` over the rows and over the columns."""
    similarities = cosine_similarities(case.images, case.texts)
    return (rows(similarities, case.ids).mean() + rows(similarities.T, case.ids).mean()) / 2


def best(similarities: Tensor, allowed: Tensor) -> Tensor:
    return similarities.masked_fill(~allowed, -torch.inf).amax(1)


COLD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # temperature * loss as the temperature goes to 0, per row
    **dict.fromkeys(("contrastive", "blockwise"), lambda s, ids: s.amax(1) - s.diagonal()),
    "masked": lambda s, ids: best(s, (ids[:, None] != ids) | torch.eye(len(s)).bool()) - s.diagonal(),
    "multi-positive": lambda s, ids: (
        s.amax(1) - torch.stack([row[ids == i].mean() for row, i in zip(s, ids, strict=True)])
    ),
    "sigmoid": lambda s, ids: s.clamp_min(0).sum(1) - s.diagonal(),  # relu(-d) for the match, relu(s) for the others
}


@pytest.mark.parametrize("name", COLD)
def test_temperature_near_0_leaves_only_the_hardest_negative(name: str) -> None:
    for number, case in enumerate(CASES):
        case = replace(case, temperature=1e-5, strength=0.4)
        if len(case.images) > 1:
            limit = mean_of_both_ways(COLD[name], case)
            assert float(1e-5 * LOSSES[name](case) - limit) == pytest.approx(0, abs=1e-3), f"case {number}"


@pytest.mark.parametrize("name", [*SOFTMAX, "one way", "one way raw"])
def test_loss_at_a_very_high_temperature_is_chance(name: str) -> None:
    for number, case in enumerate(CASES):
        batch = len(case.images)
        chance = math.log(batch)
        if name == "masked":
            kept = batch + 1 - (case.ids[:, None] == case.ids).sum(1)
            chance = float(kept.double().log().mean())
        loss = float(LOSSES[name](replace(case, temperature=1e7)))
        assert loss == pytest.approx(chance, abs=1e-5), f"case {number}"


def soft_hinge(similarities: Tensor, margin: float, temperature: float) -> Tensor:
    """``temperature * ln(1 + sum(exp((margin + negative - match) / temperature)))``, averaged over the rows."""
    violations = (margin + similarities - similarities.diagonal()[:, None]) / temperature
    violations = violations.masked_fill(torch.eye(len(similarities)).bool(), -torch.inf)
    return temperature * torch.cat([violations, torch.zeros(len(similarities), 1)], dim=1).logsumexp(1).mean()


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_m_copies_raise_the_minimum_to_ln_m_and_masking_lowers_it_to_0(copies: int) -> None:
    distinct = torch.eye(8, dtype=torch.float64).repeat_interleave(copies, dim=0)  # [8 * copies, 8]
    case = Case(distinct, distinct, torch.arange(8).repeat_interleave(copies), 0.01, 0.5)
    floors = dict.fromkeys(("contrastive", "multi-positive"), math.log(copies)) | {"masked": 0}
    for name, floor in floors.items():
        assert float(LOSSES[name](case)) == pytest.approx(floor, abs=1e-9), name
    for case in CASES[:20]:  # no other features fall below the floor
        copied = case.permuted(torch.arange(len(case.images)).repeat_interleave(copies))
        assert float(LOSSES["contrastive"](copied)) >= math.log(copies) - 1e-12


def test_minimum_of_the_multi_positive_loss_is_the_mean_entropy_of_its_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(30):
        copies = torch.randint(1, 5, (6,), generator=generator)  # pairs of each of six images
        ids = torch.arange(6).repeat_interleave(copies)
        floor = float(copies[ids].double().log().mean())
        perfect = torch.eye(6, dtype=torch.float64)[ids]
        assert float(multi_positive_contrastive_loss(perfect, perfect, ids, 0.01)) == pytest.approx(floor, abs=1e-9)
        sides = torch.randn(2, len(ids), 4, generator=generator, dtype=torch.float64)
        assert multi_positive_contrastive_loss(*sides, ids, 0.01 + number / 30) > floor


def test_variants_without_their_effect_equal_the_contrastive_loss() -> None:
    for number, case in enumerate(CASES):
        plain = LOSSES["contrastive"](case)
        distinct = torch.randperm(1000, generator=torch.Generator().manual_seed(number))[: len(case.images)]
        for name in ("masked", "multi-positive"):
            torch.testing.assert_close(LOSSES[name](replace(case, ids=distinct)), plain)


@pytest.mark.parametrize(("bias", "loss", "share"), [(0.0, 367, 0.002), (-10.0, 10.0, 0.975)])
def test_negative_bias_of_the_sigmoid_loss_gives_the_first_gradient_to_the_matches(bias, loss, share) -> None:
    images, texts = torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(0))
    similarities = cosine_similarities(images, texts)
    pull = torch.sigmoid(-similarities.diagonal() / 0.1 - bias).sum()
    push = torch.sigmoid(similarities / 0.1 + bias).fill_diagonal_(0).sum()
    assert float(sigmoid_loss(images, texts, bias, 0.1)) == pytest.approx(loss, rel=3e-3)
    assert float(pull / (pull + push)) == pytest.approx(share, abs=5e-4)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": torch.ones(2, 4)}, "3 images and 2 texts"),
        ({"texts": torch.ones(3, 5)}, "same dim: got 4 and 5"),
        ({"images": torch.ones(3)}, r"\[batch, dim\], got \[3\]"),
        *(({"temperature": value}, "finite number above 0") for value in (0.0, -0.1, math.nan, math.inf)),
        ({"temperature": torch.tensor([0.1, 0.2])}, r"one element, got a tensor of shape \[2\]"),
        ({"ids": torch.arange(2)}, r"image_ids must have the shape \[3\], one id per row"),
    ],
)
def test_invalid_arguments_are_rejected(name: str, change: dict[str, Tensor | float], message: str) -> None:
    case = Case(torch.ones(3, 4), torch.ones(3, 4), torch.arange(3), 0.1, 0.5)
    unused = {"ids"} if name not in ("masked", "multi-positive") else set()
    if not change.keys() & unused:
        with pytest.raises(ValueError, match=message):
            LOSSES[name](replace(case, **change))

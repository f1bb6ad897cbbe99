import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.utils import accuracy_calculator
from scipy import stats

from helpers import evaluation
from helpers.evaluation import (
    Cosines,
    classify_single_things,
    evaluate_split,
    in_blocks,
    intervals,
    metrics_in_folds,
    metrics_with_truth,
    minimal_pair_accuracy,
    precisions,
    retrieval_metrics,
    retrieval_ranks,
    table,
)
from helpers.files import InputError
from helpers.runs import load_checkpoint
from helpers.scenes.render import COLOURS, LEVELS, SHAPES, Thing, ceiling, draw_scene_at_random, fits
from helpers.text import WordTokenizer


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores ``[images, captions]`` and the image of each caption: one to seven an image, in any order.

    Those of odd seeds have many ties.
    """
    generator = torch.Generator().manual_seed(seed)
    images = int(torch.randint(1, 12, (1,), generator=generator))
    counts = torch.randint(1, 8, (images,), generator=generator)
    image_of_caption = torch.arange(images).repeat_interleave(counts)
    image_of_caption = image_of_caption[torch.randperm(len(image_of_caption), generator=generator)]
    levels = 3 if seed % 2 else 1000
    return torch.randint(0, levels, (images, len(image_of_caption)), generator=generator) / levels, image_of_caption


def ranks_by_sorting(similarity: list[list[float]], image_of_caption: list[int]) -> dict[str, list[int]]:
    """The same ranks by sorting, a wrong answer before a right one of the same score."""
    images, captions = range(len(similarity)), range(len(image_of_caption))
    ranks = {"image_to_text": [], "text_to_image": []}
    for i in images:
        order = sorted(captions, key=lambda j: (-similarity[i][j], image_of_caption[j] == i))
        ranks["image_to_text"].append(1 + next(n for n, j in enumerate(order) if image_of_caption[j] == i))
    for j in captions:
        order = sorted(images, key=lambda i: (-similarity[i][j], image_of_caption[j] == i))
        ranks["text_to_image"].append(1 + order.index(image_of_caption[j]))
    return ranks


@pytest.mark.parametrize("seed", range(40))
def test_ranks_and_metrics_agree_with_sorting_even_with_ties(seed: int) -> None:
    similarity, image_of_caption = random_case(seed)
    expected = ranks_by_sorting(similarity.tolist(), image_of_caption.tolist())
    ranks = retrieval_ranks(similarity, image_of_caption)
    # A right answer that ties with another right one of the same image may take either place; the best counts.
    assert {direction: rank.tolist() for direction, rank in ranks.items()} == expected
    for direction, metrics in retrieval_metrics(similarity, image_of_caption).items():
        of_queries = np.array(expected[direction])
        recalls = {f"R@{k}": 100 * np.mean(of_queries <= k) for k in (1, 5, 10)}
        about_ranks = {"median_rank": np.median(of_queries), "mean_rank": np.mean(of_queries)}
        assert metrics == pytest.approx(recalls | about_ranks | {"chance": 100 / len(similarity)})


def whole_numbers(rows: int, seed: int) -> torch.Tensor:
    """Features whose products are exact, with many ties among them."""
    return torch.randint(-2, 3, (rows, 6), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("block", [1, 7, 100, 10_000])
def test_ranks_in_blocks_are_those_of_the_whole_matrix(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image_features, text_features = whole_numbers(23, 0), whole_numbers(70, 1)
    _, image_of_caption = random_case(0)
    image_of_caption = torch.arange(23).repeat(4)[:70]
    whole = image_features @ text_features.T
    relevant = whole_numbers(23, 2) @ whole_numbers(70, 3).T > 0
    relevant[:, 0] = True
    expected, expected_precisions = retrieval_ranks(whole, image_of_caption), precisions(whole, relevant)
    monkeypatch.setattr(evaluation, "BLOCK", block)
    cosines = Cosines(image_features, text_features)
    for similarity in (whole, cosines):
        ranks = retrieval_ranks(similarity, image_of_caption)
        assert all(torch.equal(rank, expected[direction]) for direction, rank in ranks.items())
        assert precisions(similarity, relevant) == pytest.approx(expected_precisions)
    sizes = [part.numel() for _, part in in_blocks(cosines)]
    assert sum(sizes) == whole.numel()
    assert max(sizes) <= max(block, 70)
    assert max(sizes) - min(sizes) <= 70  # no block much smaller than the others


def test_ranks_in_blocks_are_those_of_the_whole_matrix_with_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    images, captions = (F.normalize(torch.randn(rows, 64, generator=generator), dim=1) for rows in (301, 1505))
    captions[5:10] = captions[:5]  # two images with the same captions: ties
    image_of_caption = torch.arange(301).repeat_interleave(5)
    expected = retrieval_ranks(images @ captions.T, image_of_caption)
    monkeypatch.setattr(evaluation, "BLOCK", 10_000)
    for direction, rank in retrieval_ranks(Cosines(images, captions), image_of_caption).items():
        # Scores that differ by rounding alone may change places, where they are no ties.
        assert (rank - expected[direction]).abs().max() <= 1
        assert (rank != expected[direction]).double().mean() < 0.01


@pytest.mark.long
def test_a_hundred_thousand_captions_need_less_than_two_gigabytes() -> None:
    pytest.importorskip("resource", reason="asks the system how much memory was used")
    code = """
import resource, torch
from helpers.evaluation import Cosines, retrieval_metrics
captions, images = torch.randn(100_000, 128), torch.randn(20_000, 128)
print(retrieval_metrics(Cosines(images, captions), torch.arange(100_000) // 5)["image_to_text"]["mean_rank"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if __import__("sys").platform == "darwin" else 1024))
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    mean_rank, peak = map(float, printed.split())
    assert 15_000 < mean_rank < 18_500  # the best of five among 100,000 at random: 100,000 / 6, less the own ones
    assert peak < 2e9


def test_perfect_scores_give_100_and_constant_ones_0() -> None:
    image_of_caption = torch.arange(20).repeat_interleave(5)
    perfect = (image_of_caption == torch.arange(20)[:, None]).float()
    best = {"R@1": 100, "R@5": 100, "R@10": 100, "median_rank": 1, "mean_rank": 1}
    for direction in retrieval_metrics(perfect, image_of_caption).values():
        assert direction == best | {"chance": 5}
    for direction in metrics_in_folds(torch.eye(20), torch.eye(20)[image_of_caption], image_of_caption, 4).values():
        assert direction == best | {"chance": 20}
    for bounds in intervals(retrieval_ranks(perfect, image_of_caption), image_of_caption).values():
        assert bounds == {"R@1": [100, 100], "R@5": [100, 100], "R@10": [100, 100], "mean_rank": [1, 1]}
    for similarity in (perfect, perfect.T):
        assert precisions(similarity, similarity > 0) == {"R-precision": 100, "mAP@R": 100}
    constant = torch.ones(20, 100)
    for direction in retrieval_metrics(constant, image_of_caption).values():
        assert direction["R@10"] == 0
    assert precisions(constant, perfect > 0) == {"R-precision": 0, "mAP@R": 0}


@pytest.mark.parametrize("folds", [1, 3, 4])
def test_folds_are_searched_each_by_itself(folds: int) -> None:
    generator = torch.Generator().manual_seed(folds)
    image_of_caption = torch.arange(13).repeat_interleave(torch.arange(13) % 3 + 1)
    image_of_caption = image_of_caption[torch.randperm(len(image_of_caption), generator=generator)]
    images, captions = (torch.randn(rows, 4, generator=generator) for rows in (13, len(image_of_caption)))
    similarity = images @ captions.T
    edges = {1: [0, 13], 3: [0, 4, 8, 13], 4: [0, 3, 6, 9, 13]}[folds]
    expected = []
    for first, end in itertools.pairwise(edges):
        inside = [column for column, image in enumerate(image_of_caption.tolist()) if first <= image < end]
        part = similarity[first:end, inside]
        expected.append(retrieval_metrics(part, image_of_caption[inside] - first))
    found = metrics_in_folds(images, captions, image_of_caption, folds)
    for direction, metrics in found.items():
        for name, value in metrics.items():
            assert value == pytest.approx(np.mean([fold[direction][name] for fold in expected])), name
    for wrong in (0, 14):
        with pytest.raises(InputError, match="1 to 13 folds of 13 images"):
            metrics_in_folds(images, captions, image_of_caption, wrong)


def precisions_by_sorting(similarity: list[list[float]], relevant: list[list[bool]]) -> dict[str, float]:
    """R-precision and mAP@R from their definitions, a wrong answer before a right one of the same score."""
    at_r, averages = [], []
    for scores, right in zip(similarity, relevant, strict=True):
        order = sorted(range(len(scores)), key=lambda j: (-scores[j], right[j]))
        first = [right[j] for j in order[: sum(right)]]
        at_r.append(sum(first) / len(first))
        up_to = [sum(first[: i + 1]) / (i + 1) if hit else 0 for i, hit in enumerate(first)]
        averages.append(sum(up_to) / len(first))
    return {"R-precision": 100 * sum(at_r) / len(at_r), "mAP@R": 100 * sum(averages) / len(averages)}


@pytest.mark.parametrize("seed", range(20))
def test_precisions_agree_with_their_definitions_even_with_ties(seed: int) -> None:
    similarity, _ = random_case(seed)
    relevant = torch.rand(similarity.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    relevant[:, -1] |= ~relevant.any(1)
    expected = precisions_by_sorting(similarity.tolist(), relevant.tolist())
    assert precisions(similarity, relevant) == pytest.approx(expected)


def test_precisions_agree_with_pytorch_metric_learning() -> None:
    generator = torch.Generator().manual_seed(0)
    labels_of_rows, labels_of_columns = torch.arange(40) % 9, torch.randint(0, 9, (90,), generator=generator)
    similarity = torch.rand(40, 90, generator=generator)  # without ties, which are broken by chance there
    order = similarity.argsort(dim=1, descending=True)
    counts = torch.unique(labels_of_columns, return_counts=True)
    given = (labels_of_columns[order], labels_of_rows[:, None], False, counts, False, False, torch.eq)
    assert precisions(similarity, labels_of_rows[:, None] == labels_of_columns) == {
        "R-precision": pytest.approx(100 * accuracy_calculator.r_precision(*given)),
        "mAP@R": pytest.approx(100 * accuracy_calculator.mean_average_precision(*given, at_r=True)),
    }


@pytest.fixture(scope="module")
def torchmetrics_retrieval() -> ModuleType:
    from torchmetrics.functional import retrieval  # not above, for it takes seconds to load

    return retrieval


def wrong_ones_first(similarity: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Scores of :func:`random_case` in the same order, but without ties between right and wrong, and all above 0."""
    return similarity + 1 - 1e-4 * right


@pytest.mark.parametrize("seed", range(20))
def test_metrics_agree_with_torchmetrics(torchmetrics_retrieval: ModuleType, seed: int) -> None:
    """Of torchmetrics 1.9, which has traps; the test after the next one steps into each.

    - Its ``retrieval_recall`` is the share of the right answers that are found, so five captions give a perfect R@1 of
      0.2. Recall as this field means it, one of them found, is its ``retrieval_hit_rate``.
    - Its recall and reciprocal rank take a right answer with a score of 0 or less as not found. Cosines may be.
    - Of equal scores it takes those first that its sort happens to place there. Ours counts every tie as lost.
    """
    similarity, image_of_caption = random_case(seed)
    own = image_of_caption == torch.arange(len(similarity))[:, None]  # [images, captions]
    scores = wrong_ones_first(similarity, own)
    metrics = retrieval_metrics(similarity, image_of_caption)
    for way, queries in (("image_to_text", [scores, own]), ("text_to_image", [scores.T, own.T])):
        rows = list(zip(*queries, strict=True))
        ranks = [1 / float(torchmetrics_retrieval.retrieval_reciprocal_rank(*row)) for row in rows]
        expected = {
            f"R@{k}": 100 * np.mean([float(torchmetrics_retrieval.retrieval_hit_rate(*row, top_k=k)) for row in rows])
            for k in (1, 5, 10)
        }
        expected |= {"median_rank": np.median(ranks), "mean_rank": np.mean(ranks)}
        assert {name: metrics[way][name] for name in expected} == pytest.approx(expected), way


@pytest.mark.parametrize("seed", range(20))
def test_r_precision_agrees_with_torchmetrics(torchmetrics_retrieval: ModuleType, seed: int) -> None:
    """It has no mAP@R: its average precision divides by the right answers found, not by all there are."""
    similarity, _ = random_case(seed)
    relevant = torch.rand(similarity.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    relevant[:, -1] |= ~relevant.any(1)
    rows = zip(wrong_ones_first(similarity, relevant), relevant, strict=True)
    expected = np.mean([float(torchmetrics_retrieval.retrieval_r_precision(*row)) for row in rows])
    assert precisions(similarity, relevant)["R-precision"] == pytest.approx(100 * expected)


def test_the_traps_of_torchmetrics_are_not_ours(torchmetrics_retrieval: ModuleType) -> None:
    image_of_caption = torch.arange(4).repeat_interleave(5)
    right = image_of_caption == torch.arange(4)[:, None]
    first_row = right[0].float(), right[0]
    assert float(torchmetrics_retrieval.retrieval_recall(*first_row, top_k=1)) == pytest.approx(0.2)
    assert float(torchmetrics_retrieval.retrieval_hit_rate(*first_row, top_k=1)) == 1
    below_0 = right[0].float() - 1.01, right[0]
    assert float(torchmetrics_retrieval.retrieval_recall(*below_0, top_k=1)) == 0
    assert float(torchmetrics_retrieval.retrieval_reciprocal_rank(*below_0)) == 0
    for scores in (right.float(), right.float() - 1.01):
        assert retrieval_metrics(scores, image_of_caption)["image_to_text"]["R@1"] == 100
    of_places = [torchmetrics_retrieval.retrieval_hit_rate(torch.ones(20), place, top_k=1) for place in torch.eye(20)]
    assert sum(map(float, of_places)) == 1  # one place among equals is first by luck
    assert retrieval_metrics(torch.ones(20, 20), torch.arange(20))["text_to_image"]["R@1"] == 0


def test_precisions_refuse_what_has_none() -> None:
    with pytest.raises(ValueError, match="row 1 of relevant has no right answer"):
        precisions(torch.eye(2), torch.tensor([[True, False], [False, False]]))
    with pytest.raises(ValueError, match="which differ"):
        precisions(torch.eye(2), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="NaN"):
        precisions(torch.full((1, 1), torch.nan), torch.ones(1, 1, dtype=torch.bool))


def test_intervals_agree_with_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 6, 200)
    image_of_caption = np.repeat(np.arange(200), counts)
    ranks = {"image_to_text": generator.geometric(0.3, 200), "text_to_image": generator.geometric(0.2, counts.sum())}
    found = intervals({way: torch.tensor(rank) for way, rank in ranks.items()}, torch.tensor(image_of_caption))
    assert found == intervals({way: torch.tensor(rank) for way, rank in ranks.items()}, torch.tensor(image_of_caption))
    for way, of_query, of_image in (
        ("image_to_text", np.arange(200), np.ones(200)),
        ("text_to_image", image_of_caption, counts),
    ):
        values = {f"R@{k}": 100 * (ranks[way] <= k) for k in (1, 5, 10)} | {"mean_rank": ranks[way]}
        for name, value in values.items():
            expected = stats.bootstrap(
                (np.bincount(of_query, value), of_image),
                lambda total, count, axis: total.sum(axis) / count.sum(axis),
                paired=True,
                method="percentile",
                n_resamples=2000,
                rng=generator,
            )
            width = expected.confidence_interval.high - expected.confidence_interval.low
            assert found[way][name] == pytest.approx(list(expected.confidence_interval), abs=0.12 * width), (way, name)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """The captions of an image are found or missed together, which an interval over single captions would not know."""
    generator = torch.Generator().manual_seed(0)
    image_of_caption = torch.arange(80).repeat_interleave(5)
    held = []
    for repetition in range(200):
        of_image = 1 + (torch.rand(80, generator=generator) < 0.4).long()  # 60 % are found
        ranks = {"image_to_text": of_image, "text_to_image": of_image[image_of_caption]}
        found = intervals(ranks, image_of_caption, draws=200, seed=repetition)
        held.append([low <= 60 <= high for low, high in (bounds["R@1"] for bounds in found.values())])
    for share in np.mean(held, axis=0):
        assert 0.89 < share < 0.985  # 0.95, give or take what 200 repetitions leave to chance


def test_chance_is_what_random_scores_get() -> None:
    image_of_caption = torch.arange(100).repeat_interleave(torch.arange(100) % 5 + 1)
    generator = torch.Generator().manual_seed(0)
    runs = [
        retrieval_metrics(torch.rand(100, len(image_of_caption), generator=generator), image_of_caption)
        for _ in range(100)
    ]
    for direction in ("image_to_text", "text_to_image"):
        mean = sum(run[direction]["R@1"] for run in runs) / len(runs)
        assert mean == pytest.approx(runs[0][direction]["chance"], abs=0.35)


def test_what_has_no_rank_is_refused() -> None:
    for similarity, image_of_caption, words in (
        (torch.ones(2, 3), torch.tensor([0, 0, 0]), "image 1 has no caption"),
        (torch.ones(2, 3), torch.tensor([0, 1]), "image_of_caption"),
        (torch.full((2, 2), torch.nan), torch.tensor([0, 1]), "NaN"),
        (torch.ones(2, 3), torch.tensor([0, 1, 2]), "names image 2, and there are images 0 to 1"),
        (torch.ones(2, 3), torch.tensor([0, 1, -1]), "names image -1"),
        (torch.ones(0, 0), torch.tensor([], dtype=torch.long), "at least one each"),
    ):
        with pytest.raises(ValueError, match=words):
            retrieval_ranks(similarity, image_of_caption)


def test_minimal_pairs_are_counted_one_by_one() -> None:
    similarity = torch.rand(12, 12, generator=torch.Generator().manual_seed(0))
    similarity[4, 5] = similarity[4, 4]  # a tie, which is no choice
    image_hits = [similarity[i, i] > similarity[i, i ^ 1] for i in range(12)]
    caption_hits = [similarity[i, i] > similarity[i ^ 1, i] for i in range(12)]
    accuracy = minimal_pair_accuracy(similarity)
    assert image_hits != caption_hits
    assert accuracy == {
        "image_to_text": pytest.approx(100 * sum(image_hits) / 12),
        "text_to_image": pytest.approx(100 * sum(caption_hits) / 12),
        "chance": 50,
        "pairs": 6,
    }


def test_the_first_answer_may_be_true_without_being_the_own_one() -> None:
    red, blue = (Thing("circle", colour, "small", "top") for colour in ("red", "blue"))
    scenes = [(red,), (red, blue._replace(place="left")), (blue,)]
    captions = [["a red circle"], ["a circle"], ["a blue circle"]]
    similarity = torch.tensor([[0.1, 0.9, 0.0], [0.9, 0.1, 0.0], [0.1, 0.0, 0.9]])  # the first two exchanged
    metrics = metrics_with_truth(similarity, scenes, captions)
    for direction, values in metrics.items():
        assert values["R@1"] == pytest.approx(100 / 3)
        assert values["fits"] == 100
        assert values["ceiling"] == ceiling(scenes, captions)[direction]
    # True of images 0, 1 and 2 are two captions, three and two. Image 0 has both first, image 1 has all, image 2 has
    # first a true one, "a blue circle", and then a false one, "a red circle".
    assert metrics["image_to_text"]["R-precision"] == pytest.approx(100 * (1 + 1 + 1 / 2) / 3)
    # "a red circle" is true of two images, "a circle" of all three, "a blue circle" of two.
    assert metrics["text_to_image"]["truth_oracle"] == pytest.approx(100 * (1 / 2 + 1 / 3 + 1 / 2) / 3)
    worst = metrics_with_truth(torch.tensor([[0.0, 0, 1], [0, 0, 1], [1, 0, 0]]), scenes, captions)
    assert worst["text_to_image"]["fits"] == pytest.approx(100 * 1 / 3)  # only "a circle" fits what is first, image 0


def test_what_fits_is_counted_as_by_hand_on_random_scores() -> None:
    generator = random.Random(0)
    scenes = [draw_scene_at_random(generator) for _ in range(30)]
    captions = [
        [f"a {scene[0].shape}", f"a {scene[-1].colour} {scene[-1].shape}".replace("a o", "an o")] for scene in scenes
    ]
    flat = list(itertools.chain(*captions))
    similarity = torch.rand(30, 60, generator=torch.Generator().manual_seed(1))
    metrics = metrics_with_truth(similarity, scenes, captions)
    by_image = [fits(flat[int(row.argmax())], scene) for row, scene in zip(similarity, scenes, strict=True)]
    by_caption = [fits(text, scenes[int(column.argmax())]) for text, column in zip(flat, similarity.T, strict=True)]
    assert metrics["image_to_text"]["fits"] == pytest.approx(100 * sum(by_image) / 30)
    assert metrics["text_to_image"]["fits"] == pytest.approx(100 * sum(by_caption) / 60)
    true = torch.tensor([[fits(text, scene) for text in flat] for scene in scenes])
    for way, scores, right in (("image_to_text", similarity, true), ("text_to_image", similarity.T, true.T)):
        for name, value in precisions_by_sorting(scores.tolist(), right.tolist()).items():
            assert metrics[way][name] == pytest.approx(value), (way, name)


def test_the_table_names_every_number() -> None:
    metrics = retrieval_metrics(torch.eye(4), torch.arange(4))
    accuracy = minimal_pair_accuracy(torch.eye(4))
    truth = {"ceiling": 99.9, "truth_oracle": 88.8, "fits": 77.7, "R-precision": 22.2, "mAP@R": 11.1}
    known = {name: {**values, **truth} for name, values in metrics.items()}
    known["intervals"] = {name: {"R@1": [12.3, 45.6]} for name in metrics}
    held_out = {"image_to_text": 66.6, "text_to_image": 55.5, "images": 3}
    zero_shot = {"accuracy": 87.6, "chance": 2.1, "images": 1}
    folds = {"folds": 5, **metrics}
    rest = {"held_out": held_out, "minimal_pairs": {"colours": accuracy}, "zero_shot": zero_shot, "folds": folds}
    text = table({**metrics, "exact": known, **rest})
    for number in ("99.9", "88.8", "77.7", "22.2", "11.1", "12.3-45.6"):
        assert text.count(number) == 2
    for words in ("3 images", "66.6", "55.5", "2 minimal pairs, colours exchanged", "1 image of one thing", "87.6"):
        assert words in text
    assert text.count("5 folds") == 2
    assert len({len(line) for line in text.splitlines()[:7]}) == 1  # the columns stand below each other
    assert len(text.splitlines()) == 10
    assert len(table(metrics).splitlines()) == 3
    assert "ceiling" not in table(metrics)
    known = table({**metrics, "known_words": {"text_to_image": 44.4, "share": 33.3}}).splitlines()[-1]
    assert "33.3 %" in known
    assert "44.4" in known


def test_a_split_of_scenes_has_every_metric(sixty_scenes: Path, untrained_run: Path) -> None:
    result = evaluate_split(load_checkpoint(untrained_run / "last.pt"), sixty_scenes, "test", folds=3)
    recalls = {"R@1", "R@5", "R@10", "median_rank", "mean_rank", "chance"}
    for part, names in (
        (result, {"fits", "ceiling", "truth_oracle", "R-precision", "mAP@R"}),
        (result["folds"], set()),
    ):
        for way in evaluation.DIRECTIONS:
            assert set(part[way]) == recalls | names
    assert result["folds"]["text_to_image"]["chance"] == 100 / 20
    for part in (result, result["exact"]):
        for way, bounds in part["intervals"].items():
            assert all(low <= part[way][name] <= high for name, (low, high) in bounds.items())
    assert set(result["minimal_pairs"]) == {"colours", "sides"}


def test_single_things_are_classified_by_their_colour_and_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, list[str]] = {}
    monkeypatch.setattr(evaluation, "encode_classes", lambda *given: asked.update(given[2]) or torch.eye(48))
    tokenizer = WordTokenizer.build([f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES])
    star, cross = Thing("star", "orange", "large", "top"), Thing("cross", "pink", "small", "left")
    scenes = [(star,), (star, cross), (cross,), (cross,), (cross,)]
    classify_single_things(None, tokenizer, torch.zeros(5, 48), scenes)
    assert asked["orange star"] == ["an orange star", "there is an orange star", "a star that is orange"]
    as_star, as_cross = (torch.eye(48)[list(asked).index(name)] for name in ("orange star", "pink cross"))
    # Of the single things two are told right; one is taken for a star, and a cross comes next; one is no choice.
    features = torch.stack([as_star, as_cross, as_cross, 2 * as_star + as_cross, as_star + as_cross])
    found = classify_single_things(None, tokenizer, features, scenes)
    assert found == {"accuracy": 50, "chance": 100 / 48, "images": 4}
    assert classify_single_things(None, tokenizer, features[1:2], scenes[1:2]) is None
    assert classify_single_things(None, WordTokenizer.build(["a red star"]), features, scenes) is None


def test_a_split_without_truth_has_intervals_and_known_words(
    sixty_scenes: Path, untrained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads((sixty_scenes / "annotations" / "captions_test.json").read_text())
    content["images"] = [{"id": image["id"], "file_name": image["file_name"]} for image in content["images"]]
    content["annotations"][0]["caption"] = "a zebra"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_test.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(sixty_scenes / "images")
    of_captions = torch.eye(60).repeat_interleave(len(LEVELS), dim=0)
    of_captions[0] = 0  # all are found but the one with the unknown word
    monkeypatch.setattr(evaluation, "encode_images", lambda *_: torch.eye(60))
    monkeypatch.setattr(evaluation, "encode_texts", lambda *_: of_captions)
    result = evaluate_split(load_checkpoint(untrained_run / "last.pt"), tmp_path, "test")
    assert set(result) == {"image_to_text", "text_to_image", "intervals", "known_words"}
    share = pytest.approx(100 * (1 - 1 / (60 * len(LEVELS))))
    assert result["known_words"] == {"text_to_image": 100, "share": share}
    assert result["text_to_image"]["R@1"] == share


def test_json_alone_is_one_object_and_the_same(
    sixty_scenes: Path, untrained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--checkpoint", str(untrained_run), "--data", str(sixty_scenes)]
    assert evaluation.main([*given, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert evaluation.main(given) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == alone
    assert "\n".join(lines) == table(alone)
    assert alone == evaluate_split(load_checkpoint(untrained_run / "last.pt"), sixty_scenes, "test")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--folds", "61"], "1 to 60 folds of 60 images, not 61"),
        (["--folds", "0"], "1 to 60 folds"),
        (["--index", "features.npz"], "say what to look for with --query"),
        (["--folds", "5", "--query", "a circle"], "leave it out with --query"),
        (["--split", "none"], "there is no split 'none'"),
    ],
)
def test_what_cannot_be_asked_is_said(
    sixty_scenes: Path, untrained_run: Path, capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    assert evaluation.main(["--checkpoint", str(untrained_run), "--data", str(sixty_scenes), *given]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert words in printed.err

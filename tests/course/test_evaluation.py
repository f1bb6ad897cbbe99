import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness import write_without_truth
from scipy import stats
from torch import Tensor

from helpers.data import ImageTextDataset
from helpers.evaluation import (
    DIRECTIONS,
    in_batch_accuracy,
    intervals,
    linear_probe,
    metrics_with_truth,
    minimal_pair_accuracy,
    retrieval_metrics,
    retrieval_ranks,
)
from helpers.files import InputError
from helpers.report import evaluate_split, search_images, table
from helpers.runs import load_checkpoint, restore_model
from helpers.scenes import Thing, ceiling, write_scenes
from helpers.scenes.render import Difficulty
from helpers.sources import read_captions


def random_case(seed: int) -> tuple[Tensor, Tensor]:
    """Scores ``[images, captions]`` and the image of each caption, in any order; odd seeds give many ties."""
    generator = torch.Generator().manual_seed(seed)
    images = int(torch.randint(1, 12, (1,), generator=generator))
    counts = torch.randint(1, 8, (images,), generator=generator)
    image_of_caption = torch.arange(images).repeat_interleave(counts)
    image_of_caption = image_of_caption[torch.randperm(len(image_of_caption), generator=generator)]
    levels = 3 if seed % 2 else 1000
    return torch.randint(0, levels, (images, len(image_of_caption)), generator=generator) / levels, image_of_caption


def ranks_by_sorting(similarity: list[list[float]], image_of_caption: list[int]) -> dict[str, list[int]]:
    """The ranks by sorting, with a wrong answer before a right one of the same score."""
    images, captions = range(len(similarity)), range(len(image_of_caption))
    ranks = {"image_to_text": [], "text_to_image": []}
    for i in images:
        order = sorted(captions, key=lambda j: (-similarity[i][j], image_of_caption[j] == i))
        ranks["image_to_text"].append(1 + next(n for n, j in enumerate(order) if image_of_caption[j] == i))
    for j in captions:
        order = sorted(images, key=lambda i: (-similarity[i][j], image_of_caption[j] == i))
        ranks["text_to_image"].append(1 + order.index(image_of_caption[j]))
    return ranks


@pytest.fixture(scope="module")
def torchmetrics_retrieval() -> ModuleType:
    from torchmetrics.functional import retrieval  # imported here because it takes seconds

    return retrieval


def wrong_ones_first(similarity: Tensor, right: Tensor) -> Tensor:
    """The same order of scores, but without ties between right and wrong answers, and all above 0."""
    return similarity + 1 - 1e-4 * right


@pytest.mark.parametrize("seed", range(40))
def test_ranks_and_metrics_agree_with_sorting_and_with_torchmetrics(
    torchmetrics_retrieval: ModuleType, seed: int
) -> None:
    similarity, image_of_caption = random_case(seed)
    expected = ranks_by_sorting(similarity.tolist(), image_of_caption.tolist())
    ranks = retrieval_ranks(similarity, image_of_caption)
    assert {direction: rank.tolist() for direction, rank in ranks.items()} == expected
    own = image_of_caption == torch.arange(len(similarity))[:, None]  # [images, captions]
    scores = wrong_ones_first(similarity, own)
    metrics = retrieval_metrics(similarity, image_of_caption)
    for way, queries in (("image_to_text", [scores, own]), ("text_to_image", [scores.T, own.T])):
        of_queries = np.array(expected[way])
        recalls = {f"R@{k}": 100 * np.mean(of_queries <= k) for k in (1, 5, 10)}
        others = {"median_rank": np.median(of_queries), "chance": 100 / len(similarity)}
        assert metrics[way] == pytest.approx(recalls | others)
        rows = list(zip(*queries, strict=True))
        reciprocal_ranks = [float(torchmetrics_retrieval.retrieval_reciprocal_rank(*row)) for row in rows]
        assert reciprocal_ranks == pytest.approx((1 / ranks[way]).tolist()), way
        for k in (1, 5, 10):
            hits = [float(torchmetrics_retrieval.retrieval_hit_rate(*row, top_k=k)) for row in rows]
            assert metrics[way][f"R@{k}"] == pytest.approx(100 * np.mean(hits)), (way, k)


def test_perfect_scores_give_100_and_constant_ones_0() -> None:
    image_of_caption = torch.arange(20).repeat_interleave(5)
    perfect = (image_of_caption == torch.arange(20)[:, None]).float()
    best = {"R@1": 100, "R@5": 100, "R@10": 100, "median_rank": 1}
    for direction in retrieval_metrics(perfect, image_of_caption).values():
        assert direction == best | {"chance": 5}
    for bounds in intervals(retrieval_ranks(perfect, image_of_caption), image_of_caption).values():
        assert bounds == [100, 100]
    for direction in retrieval_metrics(torch.ones(20, 100), image_of_caption).values():
        assert direction["R@10"] == 0


def test_our_metrics_do_not_have_the_traps_of_torchmetrics(torchmetrics_retrieval: ModuleType) -> None:
    """torchmetrics 1.9 has three traps.

    - Its ``retrieval_recall`` is the share of the right answers that are found, so a perfect R@1 with five captions is
      0.2. The field's recall, one of them found, is its ``retrieval_hit_rate``.
    - Its recall and reciprocal rank treat a right answer with a score of 0 or less as not found. Cosines can be.
    - It breaks ties by the order of its sort. Ours counts every tie as wrong.
    """
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
    ties = [torchmetrics_retrieval.retrieval_hit_rate(torch.ones(20), right, top_k=1) for right in torch.eye(20)]
    assert sum(map(float, ties)) == 1  # one of the equal scores comes first by luck
    assert retrieval_metrics(torch.ones(20, 20), torch.arange(20))["text_to_image"]["R@1"] == 0


def test_intervals_agree_with_scipy() -> None:
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 6, 200)
    image_of_caption = np.repeat(np.arange(200), counts)
    ranks = {"image_to_text": generator.geometric(0.3, 200), "text_to_image": generator.geometric(0.2, counts.sum())}
    given = {way: torch.tensor(rank) for way, rank in ranks.items()}, torch.tensor(image_of_caption)
    found = intervals(*given)
    assert found == intervals(*given)  # the same seed
    for way, of_query in (("image_to_text", np.arange(200)), ("text_to_image", image_of_caption)):
        low, high = stats.bootstrap(
            (np.bincount(of_query, 100 * (ranks[way] == 1)), np.bincount(of_query)),
            lambda total, count, axis: total.sum(axis) / count.sum(axis),
            paired=True,
            method="percentile",
            n_resamples=2000,
            rng=generator,
        ).confidence_interval
        assert found[way] == pytest.approx([low, high], abs=0.12 * (high - low)), way


def test_95_percent_of_intervals_hold_the_truth() -> None:
    """The captions of an image succeed or fail together; an interval over single captions would be too narrow."""
    generator = torch.Generator().manual_seed(0)
    image_of_caption = torch.arange(80).repeat_interleave(5)
    held = []
    for repetition in range(200):
        of_image = 1 + (torch.rand(80, generator=generator) < 0.4).long()  # 60 % are found
        ranks = {"image_to_text": of_image, "text_to_image": of_image[image_of_caption]}
        found = intervals(ranks, image_of_caption, samples=200, seed=repetition)
        held.append([low <= 60 <= high for low, high in found.values()])
    for share in np.mean(held, axis=0):
        assert 0.89 < share < 0.985  # 0.95, within the error of 200 repetitions


def test_chance_is_the_recall_of_random_scores() -> None:
    image_of_caption = torch.arange(100).repeat_interleave(torch.arange(100) % 5 + 1)
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(100, 100, len(image_of_caption), generator=generator)
    runs = [retrieval_metrics(similarity, image_of_caption) for similarity in scores]
    for direction in DIRECTIONS:
        mean = np.mean([run[direction]["R@1"] for run in runs])
        assert mean == pytest.approx(runs[0][direction]["chance"], abs=0.35)


@pytest.mark.parametrize("image_of_caption", [[0, 0, 0], [0, 1], [0, 1, 2], [0, 1, -1]])
def test_each_caption_needs_an_image_and_each_image_a_caption(image_of_caption: list[int]) -> None:
    with pytest.raises(ValueError, match="image_of_caption must have 3 entries and use every image from 0 to 1"):
        retrieval_ranks(torch.ones(2, 3), torch.tensor(image_of_caption))


def test_nan_has_no_rank() -> None:
    with pytest.raises(ValueError, match="NaN"):
        retrieval_ranks(torch.full((2, 2), torch.nan), torch.tensor([0, 1]))


def test_minimal_pair_accuracy_agrees_with_counting() -> None:
    similarity = torch.rand(12, 12, generator=torch.Generator().manual_seed(0))
    similarity[4, 5] = similarity[4, 4]  # a tie counts as wrong
    image_hits = [similarity[i, i] > similarity[i, i ^ 1] for i in range(12)]
    caption_hits = [similarity[i, i] > similarity[i ^ 1, i] for i in range(12)]
    assert image_hits != caption_hits
    assert minimal_pair_accuracy(similarity) == {
        "image_to_text": pytest.approx(100 * sum(image_hits) / 12),
        "text_to_image": pytest.approx(100 * sum(caption_hits) / 12),
        "pairs": 6,
    }


def test_metrics_with_truth_by_hand() -> None:
    red, blue = (Thing("circle", colour, "small", "top") for colour in ("red", "blue"))
    scenes = [(red,), (red, blue._replace(place="left")), (blue,)]
    captions = [["a red circle"], ["a circle"], ["a blue circle"]]
    similarity = torch.tensor([[0.1, 0.9, 0.0], [0.9, 0.1, 0.0], [0.1, 0.0, 0.9]])  # the first two are exchanged
    metrics = metrics_with_truth(similarity, scenes, captions)
    for direction, values in metrics.items():
        assert values["R@1"] == pytest.approx(100 / 3)
        assert values["ceiling"] == ceiling(scenes, captions)[direction]


def test_the_table_shows_every_number() -> None:
    metrics = retrieval_metrics(torch.eye(4), torch.arange(4))
    shown = {direction: {**values, "ceiling": 99.9} for direction, values in metrics.items()}
    shown["intervals"] = {direction: [12.3, 45.6] for direction in metrics}
    text = table(shown | {"exact": shown, "minimal_pairs": {"colours": minimal_pair_accuracy(torch.eye(4))}})
    lines = text.splitlines()
    assert len({len(line) for line in lines[:5]}) == 1  # the columns are aligned
    for number in ("99.9", "12.3-45.6"):
        assert text.count(number) == 4
    assert lines[5].startswith("2 minimal pairs, colours exchanged")
    assert [line.split() for line in table(shown).splitlines()] == [line.split() for line in lines[:3]]


@pytest.fixture(scope="module")
def checkpoint(untrained_run: Path) -> dict:
    return load_checkpoint(untrained_run / "last.pt")


def test_a_split_of_scenes_has_every_metric(sixty_scenes: Path, checkpoint: dict) -> None:
    result = evaluate_split(checkpoint, sixty_scenes, "test")
    recalls = {"R@1", "R@5", "R@10", "median_rank", "chance"}
    for part in (result, result["exact"]):
        for way, (low, high) in part["intervals"].items():
            assert set(part[way]) == recalls | {"ceiling"}
            assert low <= part[way]["R@1"] <= high
    assert set(result["minimal_pairs"]) == {"colours", "sides"}
    assert json.loads(json.dumps(result)) == result


def test_without_truth_there_are_recalls_and_intervals(sixty_scenes: Path, checkpoint: dict, tmp_path: Path) -> None:
    plain = write_without_truth(sixty_scenes, tmp_path / "plain")
    result, with_truth = (evaluate_split(checkpoint, data, "test") for data in (plain, sixty_scenes))
    assert set(result) == {"image_to_text", "text_to_image", "intervals"}
    for way in DIRECTIONS:
        assert result[way].items() <= with_truth[way].items()


def test_training_captions_that_are_wrong_on_purpose_are_not_evaluated(checkpoint: dict, tmp_path: Path) -> None:
    write_scenes(tmp_path / "noisy", {"train": 40, "val": 5, "test": 5}, difficulty=Difficulty(wrong=0.5))
    with pytest.raises(InputError, match="wrong on purpose"):
        evaluate_split(checkpoint, tmp_path / "noisy", "train")


def test_search_ranks_all_images_by_their_cosine(checkpoint: dict, sixty_scenes: Path) -> None:
    dataset = ImageTextDataset(*read_captions(sixty_scenes, "test"), image_size=64)
    model, tokenizer = restore_model(checkpoint)
    with torch.no_grad():
        query = F.normalize(model.text_encoder(*tokenizer(["a red circle"])), dim=1)[0]
        images = F.normalize(model.image_encoder(torch.stack([item["image"] for item in dataset])), dim=1)
    expected = {path: float(image @ query) for path, image in zip(dataset.image_paths, images, strict=True)}
    found = search_images(checkpoint, sixty_scenes, "test", "a red circle", top=100)
    assert dict(found) == pytest.approx(expected, abs=1e-5)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert search_images(checkpoint, sixty_scenes, "test", "a red circle", top=3) == found[:3]


@pytest.mark.parametrize(
    ("query", "top", "words"), [("zebra", 5, "knows no word"), (" ... ", 5, "knows no word"), ("a star", 0, "not 0")]
)
def test_a_query_needs_a_known_word(checkpoint: dict, sixty_scenes: Path, query: str, top: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        search_images(checkpoint, sixty_scenes, "test", query, top)


def test_unknown_words_of_a_query_are_named(checkpoint: dict, sixty_scenes: Path, capsys) -> None:
    search_images(checkpoint, sixty_scenes, "test", "a red circle", top=1)
    assert capsys.readouterr().err == ""
    search_images(checkpoint, sixty_scenes, "test", "a red zebra", top=1)
    assert capsys.readouterr().err == "words that the model does not know: zebra\n"


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_linear_probe_reads_what_is_linear_and_nothing_else() -> None:
    features = normal(600, 10)
    linear, product = features[:, 0] > 0.3, features[:, 0] * features[:, 1] > 0
    for labels, low, high in ((torch.stack([linear, linear, ~linear], dim=1), 90, 100), (product[:, None], 35, 65)):
        assert low < linear_probe(features[:400], labels[:400], features[400:], labels[400:]) < high


def test_a_linear_probe_is_invariant_to_linear_maps_of_the_features() -> None:
    features, labels = normal(300, 6), normal(300, 4) > 0
    changed = features @ normal(6, 6) + 3
    accuracies = [linear_probe(x[:200], labels[:200], x[200:], labels[200:]) for x in (features, changed)]
    assert accuracies[0] == pytest.approx(accuracies[1])


@pytest.mark.parametrize("batch_size", [5, 10, 20, 64])
def test_in_batch_accuracy_agrees_with_loops(batch_size: int) -> None:
    images, texts = F.normalize(normal(4, 20, 8), dim=2).split([1, 3])  # [1 and 3, 20, 8]
    texts = F.normalize(texts + images, dim=2).transpose(0, 1)  # [20, 3, 8]
    right = []
    for shift in range(3):
        for start in range(0, 20, batch_size):
            rows = range(start, min(start + batch_size, 20))
            cosines = torch.stack([texts[i, (i + shift) % 3] for i in rows]) @ images[0, list(rows)].T
            own = torch.arange(len(rows))
            right += [cosines.argmax(0) == own, cosines.argmax(1) == own]
    assert in_batch_accuracy(images[0], texts, batch_size) == pytest.approx(100 * torch.cat(right).double().mean())


def test_in_batch_accuracy_of_unrelated_captions_is_chance() -> None:
    images, texts = F.normalize(normal(2, 2000, 16), dim=2)
    assert in_batch_accuracy(images, images[:, None], 50) == 100
    assert in_batch_accuracy(images, texts[:, None], 50) == pytest.approx(2, abs=1)

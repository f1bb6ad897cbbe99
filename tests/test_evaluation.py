import itertools
import random

import pytest
import torch

from helpers.evaluation import (
    metrics_with_truth,
    minimal_pair_accuracy,
    retrieval_metrics,
    retrieval_ranks,
    table,
)
from helpers.scenes import Thing, ceiling, draw_scene_at_random, fits


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
def test_ranks_agree_with_sorting_even_with_ties(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = int(torch.randint(1, 12, (1,), generator=generator))
    counts = torch.randint(1, 8, (images,), generator=generator)
    image_of_caption = torch.arange(images).repeat_interleave(counts)
    image_of_caption = image_of_caption[torch.randperm(len(image_of_caption), generator=generator)]
    levels = 3 if seed % 2 else 1000  # few levels make ties
    similarity = torch.randint(0, levels, (images, len(image_of_caption)), generator=generator) / levels
    expected = ranks_by_sorting(similarity.tolist(), image_of_caption.tolist())
    ranks = retrieval_ranks(similarity, image_of_caption)
    # A right answer that ties with another right one of the same image may take either place; the best counts.
    assert {direction: rank.tolist() for direction, rank in ranks.items()} == expected


def test_perfect_scores_give_100_and_constant_ones_0() -> None:
    image_of_caption = torch.arange(20).repeat_interleave(5)
    perfect = (image_of_caption == torch.arange(20)[:, None]).float()
    for direction in retrieval_metrics(perfect, image_of_caption).values():
        assert direction == {"R@1": 100, "R@5": 100, "R@10": 100, "median_rank": 1, "chance": 5}
    for direction in retrieval_metrics(torch.ones(20, 100), image_of_caption).values():
        assert direction["R@10"] == 0


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


def test_the_table_names_every_number() -> None:
    metrics = retrieval_metrics(torch.eye(4), torch.arange(4))
    accuracy = minimal_pair_accuracy(torch.eye(4))
    known = {name: {**values, "ceiling": 99.9, "truth_oracle": 88.8, "fits": 77.7} for name, values in metrics.items()}
    held_out = {"image_to_text": 66.6, "text_to_image": 55.5, "images": 3}
    text = table({**metrics, "exact": known, "held_out": held_out, "minimal_pairs": {"colours": accuracy}})
    for number in ("99.9", "88.8", "77.7"):
        assert text.count(number) == 2
    assert all(words in text for words in ("3 images", "66.6", "55.5", "2 minimal pairs, colours exchanged"))
    assert len(text.splitlines()) == 7
    assert len(table(metrics).splitlines()) == 3
    known = table({**metrics, "known_words": {"text_to_image": 44.4, "share": 33.3}}).splitlines()[-1]
    assert "33.3 %" in known
    assert "44.4" in known

import pytest
import torch

from helpers.evaluation import retrieval_metrics, retrieval_ranks, table


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


def test_the_table_names_every_number() -> None:
    metrics = retrieval_metrics(torch.eye(4), torch.arange(4))
    text = table({**metrics, "exact": {name: {**values, "ceiling": 99.9} for name, values in metrics.items()}})
    assert text.count("not known") == 2
    assert text.count("99.9") == 2
    assert len(text.splitlines()) == 5

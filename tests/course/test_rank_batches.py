"""Batches that several processes share."""

import itertools

import pytest

from helpers.data import EpochBatches, RankBatches
from helpers.files import InputError
from helpers.scale.distributed import World


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_parts_of_all_ranks_make_each_batch_again(size: int) -> None:
    whole = EpochBatches(50, 12, seed=4)
    parts = [RankBatches(EpochBatches(50, 12, seed=4), World(rank, size)) for rank in range(size)]
    for batches in (whole, *parts):
        batches.set_epoch(3, first_batch=1)
    assert all(len(batches) == len(whole) for batches in parts)
    again = [list(itertools.chain(*of_ranks)) for of_ranks in zip(*parts, strict=True)]
    assert again == list(whole)
    assert len(again) == 3


@pytest.mark.parametrize(("batch_size", "advice"), [(12, "such as 10"), (3, "such as 5")])
def test_a_batch_that_cannot_be_shared_is_refused_in_words(batch_size: int, advice: str) -> None:
    with pytest.raises(InputError, match=f"a batch of {batch_size} pairs cannot be shared equally by 5.*{advice}"):
        RankBatches(EpochBatches(50, batch_size), World(0, 5))

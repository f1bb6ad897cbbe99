"""Several processes against one: the same loss, the same gradients, the same weights after training."""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from helpers.data import EpochBatches
from helpers.encoders import DualEncoder
from helpers.files import InputError
from helpers.losses import contrastive_loss
from helpers.scale.distributed import (
    RankBatches,
    World,
    gather_features,
    local_contrastive_loss,
    process_group,
    rank_slice,
    world,
)
from helpers.temperature import LearnedTemperature

BATCH, STEPS = 8, 20
TEMPERATURES = (0.07, 0.2, 1.0)


def batch_of_features(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pairs that match a little. Where they match well, float32 itself is less exact than is asked for here."""
    images, texts = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return images.to(dtype), (texts + images / 3).to(dtype)


class Learner(nn.Module):
    """A dual encoder and a learned temperature, whose forward pass ends with the loss."""

    def __init__(self, loss) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = DualEncoder(words=20, max_length=6, dim=16)
        self.temperature = LearnedTemperature(0.1)
        self.loss = loss

    def forward(self, images: Tensor, token_ids: Tensor, padding: Tensor) -> Tensor:
        return self.loss(*self.model(images, token_ids, padding), self.temperature(0.0))


def train(learner: nn.Module, here: World) -> list[float]:
    """The loss of each step. By SGD: AdamW makes a whole step of a gradient that is nothing but rounding."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(4 * BATCH, 3, 32, 32, generator=generator)
    token_ids = torch.randint(2, 20, (4 * BATCH, 6), generator=generator)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.02, momentum=0.9)
    batches, losses = RankBatches(EpochBatches(4 * BATCH, BATCH, seed=1), here), []
    for step in range(STEPS):
        if step % len(batches) == 0:
            batches.set_epoch(step // len(batches))
            rows_of_epoch = list(batches)
        rows = rows_of_epoch[step % len(batches)]
        loss = learner(images[rows], token_ids[rows], torch.zeros(len(rows), 6, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def work(rank: int, size: int, folder: str) -> None:
    """What one of several processes does, and writes down."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": Path(folder, "port").read_text()}
    torch.set_num_threads(1)
    found: dict = {}
    with process_group() as here:
        for dtype in (torch.float32, torch.float64):
            for temperature in TEMPERATURES:
                images, texts = (
                    rank_slice(side, rank, size).clone().requires_grad_() for side in batch_of_features(dtype)
                )
                learned = torch.tensor(temperature, dtype=dtype, requires_grad=True)
                loss = local_contrastive_loss(images, texts, learned)
                loss.backward()
                found[dtype, temperature] = [loss.detach(), learned.grad, images.grad, texts.grad]
        mine = torch.full((2, 3), float(rank), requires_grad=True)
        gathered = gather_features(mine)
        (gathered * (rank + 1) * torch.arange(1.0, 2 * size + 1)[:, None]).sum().backward()
        found["gathered"], found["gradient of gathered"] = gathered.detach(), mine.grad
        learner = DistributedDataParallel(Learner(local_contrastive_loss), find_unused_parameters=True)
        found["losses"], found["weights"] = train(learner, here), learner.module.state_dict()
    torch.save(found, Path(folder, f"{rank}.pt"))


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.long)], ids=["two ranks", "four ranks"])
def found_by_ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of several processes has found."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "port").write_text(free_port())
    torch.multiprocessing.spawn(work, (request.param, str(folder)), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.fixture(scope="module")
def alone() -> tuple[list[float], dict[str, Tensor]]:
    """Losses and weights of the same training in one process, by the plain loss."""
    learner = Learner(contrastive_loss)
    return train(learner, World()), learner.state_dict()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_loss_and_gradients_are_those_of_one_process(found_by_ranks, dtype, tolerance, temperature) -> None:
    images, texts = (side.requires_grad_() for side in batch_of_features(torch.float64))
    learned = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    loss = contrastive_loss(images, texts, learned)
    loss.backward()
    losses, temperatures, *features = zip(*(found[dtype, temperature] for found in found_by_ranks), strict=True)
    size = len(found_by_ranks)
    averaged = [sum(losses) / size, sum(temperatures) / size, *(torch.cat(side) / size for side in features)]
    for ours, theirs in zip(averaged, (loss.detach(), learned.grad, images.grad, texts.grad), strict=True):
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < tolerance


def test_gathered_features_keep_the_order_of_ranks_and_every_ranks_gradient(found_by_ranks) -> None:
    size = len(found_by_ranks)
    for rank, found in enumerate(found_by_ranks):
        assert torch.equal(found["gathered"], torch.arange(float(size)).repeat_interleave(2)[:, None].expand(-1, 3))
        of_all_ranks = size * (size + 1) / 2  # each rank's loss is weighed by its number
        expected = of_all_ranks * torch.tensor([2.0 * rank + 1, 2.0 * rank + 2])[:, None].expand(-1, 3)
        assert torch.equal(found["gradient of gathered"], expected)


def test_after_training_the_weights_are_those_of_one_process(found_by_ranks, alone) -> None:
    losses, weights = alone
    assert losses[-1] < 0.8 * losses[0]
    for step, of_ranks in enumerate(zip(*(found["losses"] for found in found_by_ranks), strict=True)):
        assert sum(of_ranks) / len(of_ranks) == pytest.approx(losses[step], rel=1e-5)
    for found in found_by_ranks:
        for name, weight in weights.items():
            torch.testing.assert_close(found["weights"][name], weight, rtol=0, atol=1e-5)


def test_alone_nothing_is_joined_and_the_loss_is_the_plain_one() -> None:
    images, texts = batch_of_features(torch.float32)
    with process_group() as here:
        assert here == World(rank=0, size=1, local_rank=0)
        assert not torch.distributed.is_initialized()
        assert gather_features(images) is images
        torch.testing.assert_close(local_contrastive_loss(images, texts, 0.1), contrastive_loss(images, texts, 0.1))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_torchrun_says_who_is_who(environment) -> None:
    assert world() == World(0, 1, 0)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        environment.setenv(name, value)
    assert world() == World(rank=5, size=8, local_rank=1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2, WORLD_SIZE=2"),
        ({"RANK": "0"}, "says RANK=0, which is no process"),
        ({"WORLD_SIZE": "2"}, "start them with torchrun"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK=first"),
    ],
)
def test_an_environment_that_is_none_is_refused_in_words(environment, given: dict[str, str], words: str) -> None:
    for name, value in given.items():
        environment.setenv(name, value)
    with pytest.raises(InputError, match=words):
        world()


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


DYING = """
import os, sys, torch
from helpers.scale.distributed import local_contrastive_loss, process_group
with process_group() as here:
    for step in range(1000):
        if here.rank == 1 and step == 3:
            print("rank 1: the disk is full", file=sys.stderr, flush=True)
            os._exit(3)
        local_contrastive_loss(torch.randn(4, 8).requires_grad_(), torch.randn(4, 8).requires_grad_()).backward()
"""


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 4])
def test_a_rank_that_dies_ends_the_others_with_a_message(tmp_path: Path, size: int) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    ports = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(size)}
    ranks = [
        subprocess.Popen(
            [sys.executable, tmp_path / "dying.py"],
            env=os.environ | ports | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    said = [process.communicate(timeout=120)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [3 if rank == 1 else 1 for rank in range(size)], said
    assert "the disk is full" in said[1]
    for rank in set(range(size)) - {1}:
        assert f"rank {rank} of {size} stops: another process has ended" in said[rank]
        assert "Traceback" not in said[rank]


@pytest.mark.long
def test_torchrun_starts_it(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "import torch\n"
        "from helpers.scale.distributed import local_contrastive_loss, process_group\n"
        "with process_group() as here:\n"
        "    torch.manual_seed(here.rank)\n"
        "    print(here.size, float(local_contrastive_loss(torch.randn(4, 8), torch.randn(4, 8))))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run([*command, tmp_path / "two.py"], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert sorted(line[:2] for line in ran.stdout.splitlines()) == ["2 ", "2 "]

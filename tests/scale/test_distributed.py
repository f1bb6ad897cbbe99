"""Several processes against one: the same loss, the same gradients, the same weights after training."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from helpers.encoders import DualEncoder
from helpers.files import InputError
from helpers.losses import contrastive_loss
from helpers.scale.distributed import (
    World,
    broadcast,
    gather_features,
    local_contrastive_loss,
    mean_over_ranks,
    parse_device,
    process_group,
    rank_slice,
    world,
)
from helpers.temperature import LearnedTemperature

BATCH, STEPS = 8, 20
TEMPERATURES = (0.07, 0.2, 1.0)


def sample_features(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pairs that match a little. Where they match well, float32 itself is less exact than these tests require."""
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


def train(learner: nn.Module, ranks: World) -> list[float]:
    """The loss of each step, by SGD: AdamW would make a full step of a gradient that is only rounding."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(4 * BATCH, 3, 32, 32, generator=generator)
    token_ids = torch.randint(2, 20, (4 * BATCH, 6), generator=generator)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        batch = torch.randperm(4 * BATCH, generator=generator)[:BATCH].tolist()
        rows = rank_slice(batch, ranks.rank, ranks.size)
        loss = learner(images[rows], token_ids[rows], torch.zeros(len(rows), 6, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def run_rank(rank: int, size: int, folder: str) -> None:
    """Run one of several processes and save its results."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": Path(folder, "port").read_text()}
    torch.set_num_threads(1)
    result: dict = {}
    with process_group() as ranks:
        for dtype in (torch.float32, torch.float64):
            for temperature in TEMPERATURES:
                images, texts = (
                    rank_slice(side, rank, size).clone().requires_grad_() for side in sample_features(dtype)
                )
                learned = torch.tensor(temperature, dtype=dtype, requires_grad=True)
                loss = local_contrastive_loss(images, texts, learned)
                loss.backward()
                result[dtype, temperature] = [loss.detach(), learned.grad, images.grad, texts.grad]
        rows = torch.full((2, 3), float(rank), requires_grad=True)
        gathered = gather_features(rows)
        (gathered * (rank + 1) * torch.arange(1.0, 2 * size + 1)[:, None]).sum().backward()
        result["gathered"], result["gradient of gathered"] = gathered.detach(), rows.grad
        result["broadcast"] = broadcast({"from": rank})
        result["mean"] = mean_over_ranks({"rank": torch.tensor(float(rank)), "one": torch.tensor(1.0)})
        learner = DistributedDataParallel(Learner(local_contrastive_loss), find_unused_parameters=True)
        result["losses"], result["weights"] = train(learner, ranks), learner.module.state_dict()
    torch.save(result, Path(folder, f"{rank}.pt"))


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.long)], ids=["two ranks", "four ranks"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The results of each rank."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (folder / "port").write_text(str(free.getsockname()[1]))
    torch.multiprocessing.spawn(run_rank, (request.param, str(folder)), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.fixture(scope="module")
def one_process() -> tuple[list[float], dict[str, Tensor]]:
    """Losses and weights of the same training in one process, with the plain loss."""
    learner = Learner(contrastive_loss)
    return train(learner, World()), learner.state_dict()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_loss_and_gradients_equal_those_of_one_process(results, dtype, tolerance, temperature) -> None:
    images, texts = (side.requires_grad_() for side in sample_features(torch.float64))
    learned = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    loss = contrastive_loss(images, texts, learned)
    loss.backward()
    losses, temperatures, *features = zip(*(result[dtype, temperature] for result in results), strict=True)
    size = len(results)
    averaged = [sum(losses) / size, sum(temperatures) / size, *(torch.cat(side) / size for side in features)]
    for ours, expected in zip(averaged, (loss.detach(), learned.grad, images.grad, texts.grad), strict=True):
        assert float((ours - expected).abs().max() / expected.abs().max()) < tolerance


def test_gathered_features_are_in_rank_order_and_sum_the_gradients_of_all_ranks(results) -> None:
    size = len(results)
    for rank, result in enumerate(results):
        assert torch.equal(result["gathered"], torch.arange(float(size)).repeat_interleave(2)[:, None].expand(-1, 3))
        sum_of_weights = size * (size + 1) / 2  # rank r weighs its loss by r + 1
        expected = sum_of_weights * torch.tensor([2.0 * rank + 1, 2.0 * rank + 2])[:, None].expand(-1, 3)
        assert torch.equal(result["gradient of gathered"], expected)


def test_every_rank_gets_the_value_of_rank_0_and_the_mean(results) -> None:
    for result in results:
        assert result["broadcast"] == {"from": 0}
        assert result["mean"] == {"rank": (len(results) - 1) / 2, "one": 1.0}


def test_training_ends_with_the_weights_of_one_process(results, one_process) -> None:
    losses, weights = one_process
    assert losses[-1] < 0.8 * losses[0]
    for step, rank_losses in enumerate(zip(*(result["losses"] for result in results), strict=True)):
        assert sum(rank_losses) / len(rank_losses) == pytest.approx(losses[step], rel=1e-5)
    for result in results:
        for name, weight in weights.items():
            torch.testing.assert_close(result["weights"][name], weight, rtol=0, atol=1e-5)


def test_one_process_joins_nothing() -> None:
    images, texts = sample_features(torch.float32)
    with process_group() as ranks:
        assert ranks == World(rank=0, size=1, local_rank=0)
        assert not torch.distributed.is_initialized()
        assert gather_features(images) is images
        assert broadcast("value") == "value"
        assert mean_over_ranks({"loss": torch.tensor(2.0)}) == {"loss": 2.0}
        torch.testing.assert_close(local_contrastive_loss(images, texts, 0.1), contrastive_loss(images, texts, 0.1))


def test_a_rank_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert world() == World(rank=5, size=8, local_rank=1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse_device("cuda") == torch.device("cuda", 1)  # each process takes its own GPU


def test_a_device_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse_device("cpu") == torch.device("cpu")
    assert parse_device("cuda") == torch.device("cuda", 0)
    assert parse_device("cuda:1") == torch.device("cuda", 1)
    for name in ("tpu", "meta", "cuda:x", "cuda:", ""):
        with pytest.raises(InputError, match="choose cpu, cuda, or one of several GPUs"):
            parse_device(name)
    with pytest.raises(InputError, match="needs 3 GPUs, and PyTorch finds 2"):
        parse_device("cuda:2")


@pytest.mark.parametrize(("batch_size", "advice"), [(12, "such as 10"), (3, "such as 5")])
def test_a_batch_that_cannot_be_shared_equally_is_refused(batch_size: int, advice: str) -> None:
    with pytest.raises(InputError, match=f"a batch of {batch_size} pairs cannot be shared equally by 5.*{advice}"):
        rank_slice(range(batch_size), 0, 5)

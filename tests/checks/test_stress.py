"""Answers that never end, grow, print, patch or leave something changed get a sentence, and nothing else suffers."""

import builtins
import contextlib
import math
import random
import sys
import threading
import time
from collections.abc import Callable

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nbclient import NotebookClient
from torch import Tensor

from helpers.checks import guard
from helpers.checks.core import exercise


@exercise("double", lambda generator, case: (torch.randn(2, 3, generator=generator),), refused=((None,),))
def check_double(x: Tensor | None) -> tuple:
    return 2 * x, {}


def right(x: Tensor | None) -> Tensor:
    if x is None:
        raise ValueError("x is missing")
    return 2 * x


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 1)
    monkeypatch.setattr(guard, "SECONDS_WAITING", 3)
    monkeypatch.setattr(guard, "MEMORY", 2**27)


def loop(_: Tensor) -> None:
    while True:
        with contextlib.suppress(Exception):
            math.sqrt(-1)


def grow(_: Tensor) -> None:
    rows = []
    while True:
        rows.append([0.0] * 10_000)


def refused_memory(x: Tensor) -> Tensor:
    return 2 * x + torch.ones(2**33).sum()


def after(change: Callable) -> Callable:
    """An answer that is right, but changes something first."""

    def answer(x: Tensor | None) -> Tensor:
        change()
        return right(x)

    return answer


def patch(space: object, name: str) -> Callable:
    return after(lambda: setattr(space, name, lambda *_, **__: True))


CHANGES = {
    "torch.nn.functional.cross_entropy": patch(F, "cross_entropy"),
    "torch.allclose": patch(torch, "allclose"),
    "builtins.isinstance": patch(builtins, "isinstance"),
    "Tensor.softmax": patch(Tensor, "softmax"),
    "Tensor.backward": patch(Tensor, "backward"),
    "torch's default dtype": after(lambda: torch.set_default_dtype(torch.float64)),
    "whether torch records gradients": after(lambda: torch.set_grad_enabled(False)),
    "torch's random state": after(lambda: torch.manual_seed(0)),
    "NumPy's random state": after(lambda: np.random.seed(0)),  # noqa: NPY002
    "Python's random state": after(lambda: random.seed(0)),
}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (loop, "double takes too long; is there a loop that never ends?"),
        (lambda x: time.sleep(60), "double takes too long; is there a loop that never ends?"),
        (grow, "double takes too much memory"),
        (refused_memory, "double takes too much memory"),
        (lambda x: answer_itself(x), "double stopped with RecursionError"),
        (lambda x: sys.exit(1), "double stopped with SystemExit"),
        (lambda x: x.mul_(2), "double changes its input in place"),
        (lambda x: {"double": 2 * x}, "double: expected a tensor, got dict"),
        (lambda x: object(), "double: expected a tensor, got object"),
        (lambda x: (2 * x).to_sparse(), "double: expected a plain tensor on the cpu, got a torch.sparse.FloatTensor"),
        (lambda x: 2j * x, "double: expected a plain tensor on the cpu, got a torch.ComplexFloatTensor"),
        (lambda x: (2 * x).to("meta"), "double: expected a plain tensor on the cpu, got a torch.meta.FloatTensor"),
        (3, "double stopped with TypeError: 'int' object is not callable"),
        *[(answer, f"double changes {name} for the whole notebook") for name, answer in CHANGES.items()],
    ],
)
def test_each_gets_a_sentence(answer: Callable, message: str) -> None:
    state, used = torch.get_rng_state(), guard.data_bytes()
    with pytest.raises(AssertionError) as caught:
        check_double(answer)
    assert str(caught.value).startswith(message)
    del caught
    assert guard.data_bytes() - used < 2**28  # the memory is free again
    assert torch.equal(torch.get_rng_state(), state)
    check_double(right)  # everything has been set back


def answer_itself(x: Tensor) -> Tensor:
    return answer_itself(x)


def test_a_megabyte_of_output_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    check_double(after(lambda: print("x" * 2**20)))
    printed = capsys.readouterr().out
    assert printed.startswith("xxx")
    assert printed.endswith("Right: double agrees with the reference on 20 random cases.\n")
    assert len(printed) < 2000


def test_outside_the_main_thread_a_check_works_without_limits() -> None:
    thread = threading.Thread(target=check_double, args=(right,))
    thread.start()
    thread.join()
    with pytest.raises(AssertionError, match="takes too long"):
        check_double(loop)


def test_a_kernel_survives() -> None:
    endless = {
        "while True: pass": "takes too long",
        "rows = []\n    while True: rows.append([0.0] * 1000)": "takes too much memory",
        "return torch.ones(2**34)": "takes too much memory",
        "torch.allclose = lambda *_: True": "changes torch.allclose",
    }
    cells = ["import torch\nfrom helpers import checks"]
    cells += [f"def l2_normalize(x):\n    {code}\nchecks.check_l2_normalize(l2_normalize)" for code in endless]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in [*cells, "print('alive')"]])
    NotebookClient(notebook, timeout=120, allow_errors=True).execute()
    errors = [cell.outputs[-1]["evalue"] for cell in notebook.cells[1:-1]]
    assert all(message in error for message, error in zip(endless.values(), errors, strict=True)), errors
    assert (
        "".join(output["text"] for output in notebook.cells[-1].outputs) == "alive\n"
    )  # a kernel may send it in parts

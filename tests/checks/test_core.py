"""The messages of a check for answers that return the wrong type or shape, raise, or change their input."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.checks.core import Check, exercise


@exercise("double", lambda generator, case: (torch.randn(2, 3, generator=generator),))
def check_double(x: Tensor) -> tuple:
    return 2 * x, {"this is the square; take twice the number": x.square()}


@exercise("split", lambda generator, case: ([case, 1],))
def check_split(numbers: list[int]) -> tuple:
    return {"first": numbers[0], "rest": ["b"]}, {"the first is the last": {"first": numbers[-1]}}


def not_written(*_: object) -> None:
    raise NotImplementedError("Write your own code in place of this line, then run the check.")


@pytest.mark.parametrize(
    ("check", "answer", "message"),
    [
        (check_double, not_written, "double is not written yet: replace the stub with your code"),
        (check_double, lambda x: None, "double returned None; is a return missing?"),
        (check_double, lambda x: x @ x, "double stopped with RuntimeError: "),
        (check_double, lambda: None, "double stopped with TypeError: "),
        (check_double, lambda x: "2x", "double: expected a tensor, got str"),
        (check_double, lambda x: 2 * x[0], "double: expected the shape [2, 3], got [3]"),
        (check_double, lambda x: 2 * x + torch.eye(2, 3), "double: expected 3.082 at index [0, 0], got 4.082"),
        (check_double, lambda x: x.mul_(2), "double changes its input in place"),
        (check_double, lambda x: x**2 if x[0, 0] > 0 else 2 * x, "this is the square"),
        (check_double, lambda x: 2 * x / (x > 9), "double: expected 3.082 at index [0, 0], got inf"),
        (check_split, lambda numbers: numbers[0], "split must return a dictionary with the keys first, rest"),
        (check_split, lambda numbers: {"first": 0.5, "rest": ["b"]}, "split, first: expected torch.int64, got"),
        (check_split, lambda numbers: {"first": numbers[0], "rest": "b"}, "split, rest: expected a list, got str"),
        (
            check_split,
            lambda numbers: {"first": numbers[0], "rest": ["c"]},
            "split, rest: 'b' is missing; expected ['b'], got ['c']",
        ),
        (check_split, lambda numbers: {"first": 1, "rest": ["c"]}, "the first is the last"),
        (check_split, lambda numbers: {"first": numbers.pop(0), "rest": ["b"]}, "split changes its input in place"),
    ],
)
def test_the_message_says_what_is_wrong(check: Check, answer: Callable, message: str) -> None:
    with pytest.raises(AssertionError, match="^" + re.escape(message)):
        check(answer)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: 2 * x,
        lambda x: 2 * x.double(),
        lambda x: 2 * x.numpy(),
        lambda x: [[float(np.float64(2 * number)) for number in row] for row in x.tolist()],
        lambda x: (2 * x).requires_grad_(),
    ],
)
def test_arrays_lists_and_other_precisions_are_accepted(answer: Callable) -> None:
    check_double(answer)

"""A check for each exercise: it compares an answer with an independent reference, and names the mistake.

Every check prints one line when the answer is right, and raises ``AssertionError`` in words when it is wrong.
"""

import torch
from torch import Tensor

CASES = 20


def expect(right: bool, message: str) -> None:
    """Raise ``AssertionError`` with the message unless ``right``; unlike ``assert``, under ``python -O`` too."""
    if not right:
        raise AssertionError(message)


def same(answer: object, reference: Tensor) -> bool:
    """Whether an answer is a tensor of the reference's shape with the reference's numbers."""
    return (
        isinstance(answer, Tensor)
        and answer.shape == reference.shape
        and torch.allclose(answer.double(), reference.double(), atol=1e-5, rtol=1e-4)
    )


def passed(name: str) -> None:
    print(f"Right: {name} agrees with the reference on {CASES} random cases.")

"""How every check works: an answer is compared with the right one on random inputs, and a known mistake is named."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

CASES = 20

Values = tuple[object, dict[str, object]]  # the right value, and wrong ones, each under the sentence that names it


@dataclass(frozen=True)
class Check:
    """An exercise: random inputs, and what right and wrong functions make of them.

    Calling it with an answer prints one line if the answer is right, and raises ``AssertionError`` if it is wrong.
    """

    name: str
    inputs: Callable[[Generator, int], tuple]  # the arguments, from a generator and the number of the case
    values: Callable[..., Values]  # a right or wrong value of several parts is a dictionary; a wrong one can be partial
    as_tuple: bool = False  # whether the answer returns its parts as a tuple
    refused: tuple[tuple, ...] = ()  # arguments that must raise a ValueError

    def __call__(self, answer: Callable) -> None:
        expect(callable(answer), f"pass the function {self.name} itself, without calling it")
        failures, changed = [], False
        for inputs in self.cases():
            given = copy.deepcopy(inputs)
            result = self.attempt(answer, given)
            changed = changed or not unchanged(given, inputs)
            failures += self.first_failure(result, *self.values(*inputs))
        if failures:
            raise AssertionError(named_mistake(failures) or difference(*failures[0][:3]))
        expect(not changed, f"{self.name} changes its input in place; work on a copy or build a new value")
        for inputs in self.refused:
            expect(raises_value_error(answer, inputs), f"{self.name}{inputs} should raise a ValueError")
        print(f"Right: {self.name} agrees with the reference on {CASES} random cases.")

    def cases(self) -> Iterator[tuple]:
        """The same random inputs every time."""
        generator = torch.Generator().manual_seed(0)
        return (self.inputs(generator, case) for case in range(CASES))

    def attempt(self, answer: Callable, inputs: tuple) -> object:
        """What the answer returns; an exception becomes an ``AssertionError`` that a learner can read."""
        try:
            result = answer(*inputs)
        except NotImplementedError:
            raise AssertionError(f"{self.name} is not written yet: replace the stub with your code") from None
        except Exception as error:
            raise AssertionError(f"{self.name} stopped with {type(error).__name__}: {error}") from error
        expect(result is not None, f"{self.name} returned None; is a return missing?")
        return result

    def first_failure(self, result: object, right: object, mistakes: dict[str, object]) -> list[tuple]:
        """The first wrong part: its label, its value, the right one and what known mistakes give; empty if right."""
        if self.as_tuple:
            fits = isinstance(result, tuple | list) and len(result) == len(right)
            expect(fits, f"{self.name} must return a tuple: {', '.join(right)}")
            result = dict(zip(right, result, strict=True))
        elif isinstance(right, dict):
            fits = isinstance(result, dict) and result.keys() >= right.keys()
            expect(fits, f"{self.name} must return a dictionary with the keys {', '.join(right)}")
        else:
            result = {"": result}
        for part, reference in by_part(right).items():
            label = f"{self.name}, {part}" if part else self.name
            value, reference = comparable(label, result[part], reference)
            if not same(value, reference):
                return [(label, value, reference, {s: by_part(w).get(part) for s, w in mistakes.items()})]
        return []


def exercise(name: str, inputs: Callable[[Generator, int], tuple], **options: object) -> Callable[..., Check]:
    """Make a check of a function that gives the right value and the wrong ones for the same inputs as the answer."""
    return lambda values: Check(name, inputs, values, **options)


def expect(condition: bool, message: str) -> None:
    """Raise ``AssertionError`` unless the condition holds; unlike ``assert``, also under ``python -O``."""
    if not condition:
        raise AssertionError(message)


def raises_value_error(answer: Callable, inputs: tuple) -> bool:
    try:
        answer(*inputs)
    except Exception as error:
        return isinstance(error, ValueError)
    return False


def unchanged(given: object, inputs: object) -> bool:
    if isinstance(inputs, Tensor):
        return torch.equal(given, inputs)
    if isinstance(inputs, dict):
        return given.keys() == inputs.keys() and all(unchanged(given[key], inputs[key]) for key in inputs)
    if isinstance(inputs, list | tuple):
        return len(given) == len(inputs) and all(map(unchanged, given, inputs))
    return given == inputs


def by_part(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {"": value}


def comparable(label: str, value: object, right: object) -> tuple[object, object]:
    """Both values, with numbers, arrays and lists of numbers as float64 tensors; raises if the type does not fit."""
    if isinstance(right, str | list):
        kind = type(right)
        expect(isinstance(value, kind), f"{label}: expected a {kind.__name__}, got {type(value).__name__}")
        return value, right
    try:
        value, right = torch.as_tensor(value).detach(), torch.as_tensor(right)
    except (TypeError, ValueError, RuntimeError):
        raise AssertionError(f"{label}: expected a tensor, got {type(value).__name__}") from None
    fits = right.is_floating_point() or value.dtype == right.dtype
    expect(fits, f"{label}: expected {right.dtype}, got {value.dtype}")
    return value.double(), right.double()


def same(value: object, other: object) -> bool:
    if not isinstance(value, Tensor):
        return value == other
    other = torch.as_tensor(other).double()
    return value.shape == other.shape and torch.allclose(value, other, rtol=1e-4, atol=1e-5, equal_nan=True)


def both_break_down(value: object, other: object) -> bool:
    """Whether both have NaN or plus infinity, which the same mistake can leave in different entries."""
    return isinstance(value, Tensor) and not ((value < torch.inf).all() or (torch.as_tensor(other) < torch.inf).all())


def named_mistake(failures: list[tuple]) -> str | None:
    """The sentence of the first mistake that explains more than half of the failed cases."""
    for explains in (same, both_break_down):
        for sentence in failures[0][3]:
            pairs = [(value, mistakes[sentence]) for _, value, _, mistakes in failures]
            explained = sum(wrong is not None and explains(value, wrong) for value, wrong in pairs)
            if 2 * explained > len(failures):
                return sentence
    return None


def difference(label: str, value: object, right: object) -> str:
    """How a result differs from the right one, for a mistake that is not known."""
    if not isinstance(value, Tensor):
        return f"{label}: expected {right!r}, got {value!r}"
    if value.shape != right.shape:
        return f"{label}: expected the shape {list(right.shape)}, got {list(value.shape)}"
    index = tuple((~torch.isclose(value, right, rtol=1e-4, atol=1e-5)).nonzero()[0].tolist())
    place = f" at index {list(index)}" if index else ""
    return f"{label}: expected {right[index]:.4g}{place}, got {value[index]:.4g}"

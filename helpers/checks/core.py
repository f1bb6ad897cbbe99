"""How every check works: it compares an answer with the right one on random inputs and names a known mistake."""

import contextlib
import copy
import inspect
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from helpers.checks.guard import Stopped, limited, restored

CASES, PRINTED = 20, 1000  # random inputs; characters of the answer's own output that are shown

Values = tuple[object, dict[str, object]]  # the right value, and wrong values, each under the sentence that explains it


@dataclass(frozen=True)
class Check:
    """An exercise: random inputs, and the right and wrong values for them.

    Calling it with an answer prints one line if the answer is right and raises ``AssertionError`` if it is wrong.
    """

    name: str
    inputs: Callable[[Generator, int], tuple]  # the arguments, from a generator and the number of the case
    values: Callable[..., Values]  # a value of several parts is a dictionary; a wrong value may leave parts out
    as_tuple: bool = False  # whether the answer returns its parts as a tuple
    refused: tuple[tuple, ...] = ()  # arguments that must raise a ValueError
    trains: bool = False  # whether gradients must reach the features
    changes_input: bool = False  # whether the answer may change its input in place, as a training step does
    seed: int = 0

    def __call__(self, answer: Callable) -> None:
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                self.judge(answer)
        finally:
            print(printed.getvalue()[:PRINTED], end="")
        print(f"Right: {self.name} agrees with the reference on {CASES} random cases.")

    def judge(self, answer: Callable) -> None:
        failures, crashes, changed = [], [], False
        for inputs in self.cases():
            given = copy.deepcopy(inputs)
            try:
                result = self.attempt(answer, given)
            except AssertionError as stop:
                if not stop.__cause__:
                    raise
                crashes.append(stop)  # another case may show which mistake it is
                continue
            changed = changed or not same(given, inputs)
            failures += self.first_failure(self.call(inputs), result, *self.values(*inputs))
        named = failures and named_mistake(failures)
        assert not named, named
        if crashes:
            raise crashes[0]
        in_place = f"{self.name} changes its input in place; work on a copy or build a new value"
        assert self.changes_input or not changed, in_place
        if failures:
            raise AssertionError(self.unused_argument(answer) or explain(*failures[0][:3]))
        for inputs in self.refused:
            assert self.raises_value_error(answer, inputs), f"{self.name}{inputs} should raise a ValueError"
        if self.trains:
            self.check_gradients(answer)

    def check_gradients(self, answer: Callable) -> None:
        inputs = copy.deepcopy(next(self.cases()))
        values = [value for given in inputs for value in (given if isinstance(given, list) else [given])]
        features = [x.requires_grad_() for x in values if isinstance(x, Tensor) and x.is_floating_point()]
        result = self.attempt(answer, inputs)
        hint = "return a tensor, without .item(), .detach() or numpy"
        try:
            torch.autograd.grad(result.sum(), features)
        except Exception:  # a number, an array of numpy, or a tensor that one of the features does not reach
            message = f"no gradient reaches the features, so {self.name} cannot train a model; {hint}"
            raise AssertionError(message) from None

    def raises_value_error(self, answer: Callable, inputs: tuple) -> bool:
        try:
            self.attempt(answer, inputs)
        except AssertionError as error:
            return isinstance(error.__cause__, ValueError)
        return False

    def unused_argument(self, answer: Callable) -> str | None:
        """Name the numbers and tensors that change the right value, but never the value of the answer."""
        (first, *others), unused = self.cases(), []
        for i, name in enumerate(inspect.signature(self.values).parameters):
            size = getattr(first[i], "shape", type(first[i]))
            fitting = [other[i] for other in others if getattr(other[i], "shape", type(other[i])) == size][:6]
            changed = [first, *((*first[:i], value, *first[i + 1 :]) for value in fitting)]
            if isinstance(first[i], int | float | Tensor | list):
                with contextlib.suppress(Exception):
                    rights = [self.values(*inputs)[0] for inputs in changed]
                    if different(rights) and not different([self.attempt(answer, copy.deepcopy(i)) for i in changed]):
                        unused.append(name)
        return f"the result does not depend on {' and '.join(unused)}" if unused else None

    def cases(self) -> Iterator[tuple]:
        """Generate the same random inputs every time."""
        generator = torch.Generator().manual_seed(self.seed)
        return (self.inputs(generator, case) for case in range(CASES))

    def attempt(self, answer: Callable, inputs: tuple) -> object:
        """Call the answer and turn any exception into an ``AssertionError`` that a learner can read."""
        changed, problem = [], None
        try:
            with restored(changed), limited():
                result = answer(*inputs)
        except NotImplementedError:
            raise AssertionError(f"{self.name} is not written yet: replace the stub with your code") from None
        except Stopped as stopped:
            problem = str(stopped)
        except (Exception, SystemExit) as error:
            if not isinstance(error, MemoryError) and "allocate memory" not in str(error):
                raise AssertionError(f"{self.call(inputs)} stopped with {type(error).__name__}: {error}") from error
            problem = "takes too much memory"
        assert not problem, f"{self.name} {problem}"  # here, since an exception keeps the memory of what it interrupted
        assert not changed, f"{self.name} changes {', '.join(changed)} for the whole notebook; it was restored"
        assert result is not None, f"{self.name} returned None; is a return missing?"
        return result

    def call(self, inputs: tuple) -> str:
        """The name, and the arguments if one of them is a number; others are shown as dots."""
        shown = ["None" if x is None else f"{x:.4g}" if isinstance(x, int | float) else "..." for x in inputs]
        return f"{self.name}({', '.join(shown)})" if set(shown) - {"..."} else self.name

    def first_failure(self, call: str, result: object, right: object, mistakes: dict[str, object]) -> list[tuple]:
        """The first wrong part: its label, its value, the right value and the mistakes' values; [] if none is wrong."""
        if self.as_tuple:
            fits = isinstance(result, tuple | list) and len(result) == len(right)
            assert fits, f"{self.name} must return a tuple: {', '.join(right)}"
            assert all(isinstance(part, Tensor) for part in result), f"{self.name} must return tensors"
            result = dict(zip(right, result, strict=True))
        elif isinstance(right, dict):
            fits = isinstance(result, dict) and result.keys() >= right.keys()
            assert fits, f"{self.name} must return a dictionary with the keys {', '.join(right)}"
        else:
            result, right = {"": result}, {"": right}
            mistakes = {sentence: {"": wrong} for sentence, wrong in mistakes.items()}
        for part, reference in right.items():
            label = f"{call}, {part}" if part else call
            value, reference = comparable(label, result[part], reference)
            if not same(value, reference):
                return [(label, value, reference, {s: wrong.get(part) for s, wrong in mistakes.items()})]
        return []


class Choice:
    """A question with one right answer, such as ``"b"``, and a sentence about each answer, the right one included."""

    def __init__(self, name: str, right: str, **sentences: str) -> None:
        self.name, self.right, self.sentences = name, right, sentences

    def __call__(self, answer: str) -> None:
        letter = str(answer).strip().lower()
        assert letter in self.sentences, f"{self.name}: answer with one of {', '.join(self.sentences)}"
        assert letter == self.right, self.sentences[letter]
        print(f"Right: {self.sentences[letter]}")


@dataclass(frozen=True)
class Setting:
    """A value to find, such as a slider's position, with a sentence for values below and above the right range."""

    name: str
    low: float
    high: float
    too_low: str
    too_high: str
    right: str

    def __call__(self, answer: float) -> None:
        try:
            value = answer + 0.0
        except (TypeError, ValueError):
            raise AssertionError(f"{self.name}: answer with a number, not with {answer!r}") from None
        assert value >= self.low, self.too_low
        assert value <= self.high, self.too_high
        print(f"Right: {self.right}")


def exercise(name: str, inputs: Callable[[Generator, int], tuple], **options: object) -> Callable[..., Check]:
    """Make a check from a function that gives the right and the wrong values for the arguments of the answer."""
    return lambda values: Check(name, inputs, values, **options)


def comparable(label: str, value: object, right: object) -> tuple[object, object]:
    """Both values, with numbers, arrays and lists of numbers as float64 tensors."""
    if isinstance(right, str | list):
        kind = type(right)
        assert isinstance(value, kind), f"{label}: expected a {kind.__name__}, got {type(value).__name__}"
        return value, right
    try:
        value, right = torch.as_tensor(value).detach(), torch.as_tensor(right)
    except (TypeError, ValueError, RuntimeError):
        raise AssertionError(f"{label}: expected a tensor, got {type(value).__name__}") from None
    usual = value.device == right.device and value.layout == right.layout and not value.is_complex()
    assert usual, f"{label}: expected a plain tensor on the {right.device}, got a {value.type()}"
    whole = not value.is_floating_point() and (value.dtype == torch.bool) == (right.dtype == torch.bool)
    assert whole or right.is_floating_point(), f"{label}: expected {right.dtype}, got {value.dtype}"
    return value.double(), right.double()


def same(value: object, other: object) -> bool:
    """Whether two values are equal, tensors up to rounding."""
    if isinstance(value, Tensor):
        value, other = value.double(), torch.as_tensor(other).double()
        return value.shape == other.shape and torch.allclose(value, other, rtol=1e-4, atol=1e-5, equal_nan=True)
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(same(value[key], other[key]) for key in value)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(same, value, other))
    return value == other


def named_mistake(failures: list[tuple]) -> str | None:
    """The sentence of the first mistake that explains more than two thirds of the failed cases."""
    for sentence in failures[0][3]:
        pairs = [(value, mistakes[sentence]) for _, value, _, mistakes in failures]
        explained = sum(wrong is not None and same(value, wrong) for value, wrong in pairs)
        if 3 * explained > 2 * len(failures):
            return sentence
    return None


def different(values: list) -> bool:
    return not all(same(values[0], value) for value in values)


def explain(label: str, value: object, right: object) -> str:
    """Describe how a value differs from the right one."""
    if isinstance(value, list) and value != right:
        problems = [f"{x!r} is missing" for x in right if x not in value]
        problems += [f"{x!r} is extra" for x in value if x not in right]
        return f"{label}: {(problems or ['the order is wrong'])[0]}; expected {right!r}, got {value!r}"
    if not isinstance(value, Tensor):
        return f"{label}: expected {right!r}, got {value!r}"
    if value.shape != right.shape:
        return f"{label}: expected the shape {list(right.shape)}, got {list(value.shape)}"
    index = tuple((~torch.isclose(value, right, rtol=1e-4, atol=1e-5)).nonzero()[0].tolist())
    place = f" at index {list(index)}" if index else ""
    return f"{label}: expected {right[index]:.4g}{place}, got {value[index]:.4g}"

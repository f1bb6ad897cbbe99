"""A guard around a learner's function: it stops endless calls, and restores what was changed for all later cells."""

import builtins
import contextlib
import pickle
import random
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

SECONDS, SECONDS_WAITING = 5, 30  # for one call, of computing and of waiting
MEMORY = 2**30  # bytes that one call may add
GENERATOR = torch.default_generator
STATES = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "whether torch records gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's random state": (lambda: GENERATOR.get_state().numpy(), lambda s: GENERATOR.set_state(torch.tensor(s))),
    "NumPy's random state": (np.random.get_state, np.random.set_state),
    "Python's random state": (random.getstate, random.setstate),
}


class Stopped(BaseException):
    """A call takes too long or too much memory. ``except Exception`` in a learner's code does not catch it."""


def data_bytes() -> int:
    """The memory of this process without code and files, or 0 where there is no /proc."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * 4096
    return 0


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise ``Stopped`` if the block takes too long or too much memory; in the main thread, and not on Windows.

    A check every tenth of a second catches slow growth; the system refuses to allocate twice ``MEMORY`` at once.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    import resource

    memory, computing, waiting = data_bytes() + MEMORY, time.process_time() + SECONDS, time.time() + SECONDS_WAITING

    def look(*_: object) -> None:
        if time.process_time() > computing or time.time() > waiting:
            raise Stopped("takes too long; is there a loop that never ends?")
        if data_bytes() > memory:
            raise Stopped("takes too much memory; does something grow in a loop?")

    limits = resource.getrlimit(resource.RLIMIT_DATA)
    if data_bytes() and limits[1] == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_DATA, (memory + MEMORY, limits[1]))
    handler, timer = signal.signal(signal.SIGALRM, look), signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_DATA, limits)


@contextlib.contextmanager
def restored(changed: list[str]) -> Iterator[None]:
    """Restore global states and patched functions after the block, and add their names to ``changed``."""
    states = {name: pickle.dumps(get()) for name, (get, _) in STATES.items()}
    namespaces = [(space, dict(vars(space))) for space in (torch, F, torch.Tensor, builtins)]
    try:
        yield
    finally:
        for name in [name for name, (get, _) in STATES.items() if pickle.dumps(get()) != states[name]]:
            STATES[name][1](pickle.loads(states[name]))
            changed.append(name)
        for space, values in namespaces:
            now = vars(space)
            names = {*values, *now} if space is torch.Tensor else values  # a module may import more
            for name in [name for name in names if now.get(name) is not values.get(name)]:
                setattr(space, name, values[name]) if name in values else delattr(space, name)
                changed.append(f"{space.__name__}.{name}")

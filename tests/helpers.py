"""What several tests need: a tiny config on the bundled digits, the marks of the slow tier, waiting
for a condition."""

import pathlib
import socket
import time

import pytest

from aejax.config import base, part

PROGRAMS = pathlib.Path(__file__).parent / "programs"


def tiny(**changes):
    """A dense autoencoder of the digits that trains in a second; `changes` are dotted keys with
    __ for the dots."""
    from aejax.config import apply_overrides

    c = base()
    c.data.batch = 16
    c.model.latent = 4
    c.model.f_E = part("dense", hidden=(16,))
    c.model.f_D = part("dense", hidden=(16,))
    c.train.length = "20 steps"
    c.train.mode = "jit"
    c.train.devices = 1
    c.eval.examples = 32
    c.eval.pictures = 2
    c.checkpoint.every = "1000 steps"
    return apply_overrides(c, {k.replace("__", "."): v for k, v in changes.items()})


def others_slow(values, *fast):
    """Parameters of a test: those that are `fast`, or whose file ends so, are in the fast tier and
    all others in the slow one."""
    names = [v.as_posix() if hasattr(v, "as_posix") else v for v in values]
    assert all(any(name.endswith(f) for name in names) for f in fast), fast
    return [
        pytest.param(v, marks=() if name.endswith(fast) else pytest.mark.slow)
        for v, name in zip(values, names, strict=True)
    ]


def wait_for(condition, seconds=60.0, what="the condition"):
    """What `condition()` returns once it is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)
    return value


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

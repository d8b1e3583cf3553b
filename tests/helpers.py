"""What several tests need: a tiny config on the bundled digits, and the marks of the slow tier."""

import pytest

from aejax.config import base, part


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

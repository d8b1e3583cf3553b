"""A tiny network on the disk whose output is known in closed form: for the API and the commands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

KWARGS = {"width": 8, "blocks": 1, "told": "sometimes"}


def known(channels):
    """Variables of a ResidualDenoiser with y = x + (mean of the 2x2 cell) / 2 + sigma / 100."""
    from aejax.denoising.models import ResidualDenoiser

    model = ResidualDenoiser(**KWARGS)
    v = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, channels)), {"sigma": jnp.zeros(1)})
    p = jax.tree.map(lambda a: np.zeros_like(a), v["params"])
    n = 4 * channels
    head = np.zeros((3, 3, n + 1, 8), np.float32)
    tail = np.zeros((3, 3, 8, n), np.float32)
    for c in range(channels):
        for i in range(4):
            head[1, 1, i * channels + c, c] = 0.25  # channel c of h: the cell's mean
            tail[1, 1, c, i * channels + c] = 0.5
    head[1, 1, n, 7] = 1.0  # the level, where it is told
    tail[1, 1, 7, :] = 0.01
    p["head"]["kernel"], p["tail"]["kernel"] = head, tail
    return {"params": p}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """{1: path, 3: path} of weights for gray and colour: see `known`."""
    from aejax import weights

    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for channels in (1, 3):
        config = {
            "model": {"name": "aejax.denoising.models:ResidualDenoiser", "kwargs": KWARGS},
            "data": {"channels": channels},
        }
        path = folder / f"tiny{channels}.safetensors"
        weights.save(path, known(channels), weights.Metadata(config))
        found[channels] = str(path)
    return found

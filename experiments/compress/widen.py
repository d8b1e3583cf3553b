"""The codec's weights with their tables by quality stretched to another range of rates, as a start.

    python experiments/compress/widen.py codec-1 codec_wide.safetensors --rates 0.0002 0.6
    aejax train --config experiments/compress/codec.py:more --workdir runs/codec_wide \\
        --config.model.start=codec_wide.safetensors "--config.model.kwargs.rates=(0.0002,0.6)" \\
        "--config.train.length=30000 steps"

Each table has a row at nine qualities. A row of the new range is read off the old tables where
their lambda was the same; beyond their ends it is continued with 0.7 of the last slope. It takes
seconds; the training took 67 minutes of one core.
"""

import argparse

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import aejax
from aejax import weights
from aejax.codec.quality import KNOTS


def stretched(
    table: np.ndarray, old: tuple[float, float], new: tuple[float, float], beyond: float = 0.7
) -> np.ndarray:
    """A table [9, c] of the rates `old` as one of the rates `new`.

    Args:
      old, new: lambda at quality 0 and at 100, see `aejax.codec.quality.lagrangian`.
      beyond: share of the last slope with which the table goes on outside the old rates.
    """
    at = np.minimum(np.arange(KNOTS) * 32, 256) / 255
    log_lambda = np.log(new[0]) + at * np.log(new[1] / new[0])
    place = (log_lambda - np.log(old[0])) / np.log(old[1] / old[0]) * 255 / 32
    row = np.clip(np.floor(place).astype(int), 0, KNOTS - 2)
    share = (place - row)[:, None]
    share = np.where(
        share > 1, 1 + beyond * (share - 1), np.where(share < 0, beyond * share, share)
    )
    return (table[row] * (1 - share) + table[row + 1] * share).astype(table.dtype)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="a codec: a name, a file, a run")
    parser.add_argument("out", help="NAME.safetensors")
    parser.add_argument("--rates", type=float, nargs=2, default=(0.0002, 0.6), metavar="LAMBDA")
    args = parser.parse_args()
    trained = aejax.load(args.weights)
    values = flatten_dict(jax.tree.map(np.asarray, dict(trained.variables)))
    old, new = tuple(trained.model.rates), tuple(args.rates)
    for path, value in values.items():
        if value.ndim == 2 and len(value) == KNOTS:
            values[path] = stretched(value, old, new)
    weights.save(args.out, unflatten_dict(values), weights.load(args.weights)[1])


if __name__ == "__main__":
    main()

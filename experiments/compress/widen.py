"""Gives codec weights another range of rates, as initialisation of a training: interpolates their
tables by quality at the lambdas of the new range.

    python experiments/compress/widen.py codec-1 codec_wide.safetensors --rates 0.0002 0.6
    aejax train --config experiments/compress/codec.py:more --workdir runs/codec_wide \\
        --config.model.start=codec_wide.safetensors "--config.model.kwargs.rates=(0.0002,0.6)" \\
        "--config.train.length=30000 steps"

Each table has rows at nine qualities. A new row is interpolated from the old table at the same
lambda, and extrapolated beyond its ends with 0.7 of the last slope. Cost: seconds; the training
took 67 minutes on one core of an AMD EPYC with AVX-512 BF16. Results: README.md beside this file.
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
    """A table [9, c] for the rates `old` as a table for the rates `new`.

    Args:
      old, new: lambda at quality 0 and at 100, see `aejax.codec.quality.lagrangian`.
      beyond: fraction of the last slope that is used to extrapolate outside the old rates.
    """
    quality = np.minimum(np.arange(KNOTS) * 32, 256) / 255
    log_lambda = np.log(new[0]) + quality * np.log(new[1] / new[0])
    position = (log_lambda - np.log(old[0])) / np.log(old[1] / old[0]) * 255 / 32
    row = np.clip(np.floor(position).astype(int), 0, KNOTS - 2)
    t = (position - row)[:, None]
    t = np.where(t > 1, 1 + beyond * (t - 1), np.where(t < 0, beyond * t, t))
    return (table[row] * (1 - t) + table[row + 1] * t).astype(table.dtype)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "weights", help="a codec: a shipped name, a .safetensors file, a run's folder"
    )
    parser.add_argument("out", help="NAME.safetensors")
    parser.add_argument("--rates", type=float, nargs=2, default=(0.0002, 0.6), metavar="LAMBDA",
                        help="lambda at quality 0 and at quality 100")  # fmt: skip
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

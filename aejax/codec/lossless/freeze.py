"""Turns a training run into weights that can code files: int8 kernels, an exponent per channel.

python -m aejax.codec.lossless.freeze RUN -o aejax/weights/lossless.safetensors
"""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np

from aejax.codec import exact
from aejax.codec.freeze import EXPONENT
from aejax.codec.frozen import Params, flat, metadata_of_run, nested
from aejax.codec.lossless.runtime import Weights
from aejax.errors import UserError

FIELDS = ("width", "blocks", "hidden", "head")  # attributes of Lossless that are stored


def frozen_params(params: Params) -> Params:
    """Parameters with the values that a frozen model has: integers times powers of two, float32."""
    frozen = {}
    for path, value in flat(params).items():
        value = jnp.asarray(value, jnp.float32)
        kernel = path.endswith("kernel")
        value = exact.quantised(value) if kernel else exact.rounded(value, exact.BIAS_UNIT)
        frozen[path] = np.asarray(value)
    return nested(frozen)


def save(weights: Weights, path: str | pathlib.Path) -> None:
    """Writes PATH.safetensors and PATH.json."""
    from aejax.weights import save as write

    arrays = {}
    for name, value in flat(weights.params).items():
        if name.endswith("kernel"):
            arrays[name], arrays[name + EXPONENT] = exact.to_integers(value)
        else:
            arrays[name] = value.astype(np.float32)
    count = int(sum(v.size for v in flat(weights.params).values()))
    meta = dataclasses.replace(
        weights.meta, fields=weights.fields, id=weights.id.hex(), parameters=count
    )
    write(path, {"params": nested(arrays)}, meta)


def load(name: str | pathlib.Path) -> Weights:
    """Reads what `save` wrote, by path or by the name of shipped weights.

    Raises:
      UserError: there are no such weights, or they are damaged.
    """
    from aejax.weights import load as read

    variables, meta = read(name)
    arrays, params = flat(variables["params"]), {}
    for path, value in arrays.items():
        if path.endswith(EXPONENT):
            continue
        if path + EXPONENT in arrays:
            value = exact.from_integers(value, arrays[path + EXPONENT])
        params[path] = value.astype(np.float32)
    weights = Weights(nested(params), meta.fields, meta)
    if weights.id.hex() != meta.id:
        raise UserError(f"weights {name} are not the model {meta.id}; install them again")
    return weights


def from_run(workdir: str, which: str = "last") -> Weights:
    """Freezes a training run; which: "last", "best" or a step."""
    from aejax.loading import load as load_run

    trained = load_run(workdir, which)
    fields = {name: getattr(trained.model, name) for name in FIELDS}
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    meta = metadata_of_run(workdir, trained, trained.config.data.source)
    return Weights(frozen_params(trained.variables["params"]), fields, meta)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    import argparse

    parser = argparse.ArgumentParser(description="freeze a lossless training run")
    parser.add_argument("run", help="workdir of the training")
    parser.add_argument("-o", "--out", required=True, help="NAME.safetensors")
    parser.add_argument("--which", default="last", help="last, best or a step")
    args = parser.parse_args(argv)
    weights = from_run(args.run, args.which)
    save(weights, args.out)
    print(f"{args.out}: model {weights.id.hex()}, step {weights.meta.step}")


if __name__ == "__main__":
    main()

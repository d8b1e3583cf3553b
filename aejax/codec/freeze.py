"""Turns a training run into weights that can code files: quantised parameters, fitted tables, in
one safetensors file.

    python -m aejax.codec.freeze RUN -o aejax/weights/codec.safetensors

There is no `update()` to forget, as in CompressAI: the tables are part of a frozen model, and only
frozen models can code files.
"""

import contextlib
import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from aejax.codec import exact
from aejax.codec.bottleneck import TABLE_UNIT
from aejax.codec.container import Header
from aejax.codec.entropy import Tables, radius, table_index
from aejax.codec.frozen import Fields, Frozen, Params, flat, metadata_of_run, nested
from aejax.codec.levels import LEVELS
from aejax.codec.quality import KNOTS
from aejax.codec.runtime import Coded, Runtime
from aejax.errors import UserError
from aejax.weights import Metadata

# Attributes of Codec that are stored with the weights.
FIELDS = (
    "latent", "width", "encoder", "decoder", "slices", "z", "features", "context", "hyper", "rates",
)  # fmt: skip
TABLES = ("bottleneck/base", "bottleneck/z_base", "bottleneck/z_mean")
# An int8 kernel NAME is stored with a leaf NAME_exponent (exact layers) or NAME_scale (others).
EXPONENT, SCALE = "_exponent", "_scale"


def storage_type(path: str, value: Array | np.ndarray) -> str:
    """The type in which a parameter outside the exact layers is stored: "int8" with a scale per
    output channel, "float16" or "float32".

    On held-out photographs, int8 instead of float16 kernels change the BD-rate by 0.02 %. int8
    linear paths would cost 0.9 %, so they are float16. The tables by quality are float32: they are
    small, and the product of gain and ungain must be 1 to better than 0.1 %.
    """
    if value.ndim < 2 or len(value) == KNOTS:
        return "float32"
    return "float16" if path.endswith(("/klt", "/depthwise")) else "int8"


def int8_scale(w: np.ndarray) -> np.ndarray:
    """[..., o] -> float32 [o]: the largest |weight| of each output channel divided by 127, rounded
    up to 11 bits. Products with integers up to 127 are then exact, and quantising quantised weights
    again gives the same scale."""
    top = np.abs(np.asarray(w, np.float32)).max(axis=tuple(range(w.ndim - 1)))
    digits, power = np.frexp(np.maximum(top, 1e-30) / np.float32(127))
    return np.ldexp(np.ceil(digits * 2048) / 2048, power).astype(np.float32)


def is_exact(path: str) -> bool:
    """Whether a parameter is one of an exact layer (exact.py)."""
    return path.startswith(("bottleneck/h_s/", "bottleneck/passes_"))


def frozen_params(params: Params, base: dict[str, np.ndarray] | None = None) -> Params:
    """Parameters with the values that a frozen model has, float32: rounded to what their stored
    types can represent.

    Args:
      base: arrays of another model, from `stored`: int8 kernels get its scales.
    """
    frozen = {}
    for path, value in flat(params).items():
        value = jnp.asarray(value, jnp.float32)
        name = path.rsplit("/", 1)[-1]
        if is_exact(path):
            value = (
                exact.quantised(value)
                if name == "kernel"
                else exact.rounded(value, exact.BIAS_UNIT)
            )
        elif path in TABLES:
            value = exact.rounded(value, TABLE_UNIT)
        elif storage_type(path, value) == "float16":
            value = value.astype(jnp.float16).astype(jnp.float32)
        elif storage_type(path, value) == "int8":
            value = np.asarray(value)
            scale = base[path + SCALE] if base else int8_scale(value)
            value = np.clip(np.round(value / scale), -127, 127) * scale
        frozen[path] = np.asarray(value)
    return nested(frozen)


def freeze(
    params: Params,
    fields: Fields,
    images: list[np.ndarray],
    meta: Metadata | None = None,
    base: dict[str, np.ndarray] | None = None,
) -> Frozen:
    """A model that can code files.

    Args:
      params: of a trained Codec.
      fields: its attributes, see FIELDS.
      images: training images, uint8 [h, w, 3], at least 16 pixels a side; the tables are fitted to
        their symbols, at qualities over the whole range.
      meta: where the model comes from.
      base: see `frozen_params`.

    Raises:
      UserError: a model whose `hyper` is not "context".
    """
    if fields["hyper"] != "context":
        raise UserError(f'only models with hyper "context" can be frozen, not "{fields["hyper"]}"')
    fields = {name: fields[name] for name in FIELDS if name in fields and name != "hyper"}
    params = frozen_params(params, base)
    with_default_tables = Frozen(params, Tables.fitted(), fields)
    counts = count_symbols(Runtime(with_default_tables), images)
    return Frozen(params, Tables.fitted(counts), fields, meta or Metadata())


def count_symbols(runtime: Runtime, images: list[np.ndarray]) -> list[np.ndarray]:
    """How often each symbol occurs at each level, and last the escapes: one array [2 R + 2] per
    level. The n-th image is coded at the n-th of 16 qualities, in turn."""
    counts = [np.zeros(2 * radius(level) + 2, np.int64) for level in range(LEVELS)]
    qualities = np.arange(0, 256, 17)
    for n, image in enumerate(images):
        byte = int(qualities[n % len(qualities)])
        for s, level in tile_symbols(runtime, image, byte):
            for v in np.unique(level):
                if v:
                    r = radius(v)
                    index = table_index(s[level == v], r)
                    counts[v] += np.bincount(index, minlength=2 * r + 2)
    return counts


def tile_symbols(runtime: Runtime, image: np.ndarray, byte: int) -> list[Coded]:
    """Symbols and levels of z and of y, of the first tile of an image at a quality byte."""
    header = Header(b"", byte, image.shape[1], image.shape[0])
    tile = header.tiles[0]
    of_z, symbols, levels, _ = runtime.tile_symbols(runtime.latents(image, tile, header), byte)
    return [of_z, (symbols.reshape(-1), levels.reshape(-1))]


# --- files ----------------------------------------------------------------------------------------


def stored(frozen: Frozen, base: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """The parameters as arrays of a file, by path: kernels int8 with one exponent (exact layers) or
    scale (others) per output channel, the linear paths float16, everything else float32.

    Args:
      base: see `frozen_params`.
    """
    arrays = {}
    for name, value in flat(frozen.params).items():
        if is_exact(name) and name.endswith("kernel"):
            arrays[name], arrays[name + EXPONENT] = exact.to_integers(value)
        elif is_exact(name) or storage_type(name, value) == "float32":
            arrays[name] = value.astype(np.float32)
        elif storage_type(name, value) == "float16":
            arrays[name] = value.astype(np.float16)
        else:
            scale = base[name + SCALE] if base else int8_scale(value)
            arrays[name], arrays[name + SCALE] = np.round(value / scale).astype(np.int8), scale
    return arrays


# Types of which differences are stored, and the integers in which they are taken.
INTEGERS = {"int8": np.int8, "float16": np.int16}


def differences(
    arrays: dict[str, np.ndarray], base: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The arrays of `stored` that differ from those of a base model. Of int8 and float16 arrays the
    difference is stored (of the bits of float16; modulo 2^8 or 2^16): small integers, which an
    archive compresses well.

    Raises:
      UserError: the base has other parameters or shapes.
    """
    changes = {}
    for name, value in arrays.items():
        if name not in base or value.shape != base[name].shape:
            raise UserError(f"{name} is not in the base weights, or has another shape there")
        integer = INTEGERS.get(value.dtype.name)
        if not np.array_equal(value, base[name]):
            changed = value.view(integer) - base[name].view(integer) if integer else value
            changes[name] = changed
    return changes


def with_differences(
    changes: dict[str, np.ndarray], base: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The inverse of `differences`."""
    arrays = dict(base)
    for name, value in changes.items():
        integer = INTEGERS.get(base[name].dtype.name)
        if integer:
            value = (base[name].view(integer) + value).view(base[name].dtype)
        arrays[name] = value
    return arrays


def save(frozen: Frozen, path: str | pathlib.Path, base: str | pathlib.Path = "") -> None:
    """Writes PATH.safetensors and PATH.json.

    Args:
      base: other weights: only the differences to them are stored. The model must have been frozen
        with their scales (`freeze(..., base=stored(load(base)))`).
    """
    from aejax import weights

    if base:
        base_model = load(base)
        base_entry = {"weights": str(base), "id": base_model.id.hex()}
        base_arrays = stored(base_model)
        arrays = differences(stored(frozen, base_arrays), base_arrays)
    else:
        base_entry, arrays = {}, stored(frozen)
    meta = dataclasses.replace(
        frozen.meta,
        fields=frozen.fields,
        id=frozen.id.hex(),
        parameters=int(sum(v.size for v in flat(frozen.params).values())),
        base=base_entry,
    )
    tables = frozen.tables.frequencies.astype(np.uint16)
    weights.save(path, {"params": nested(arrays), "tables": {"frequencies": tables}}, meta)


def load(name: str | pathlib.Path) -> Frozen:
    """Reads what `save` wrote, by path or by the name of shipped weights.

    Raises:
      UserError: there are no such weights, or they are damaged.
    """
    from aejax import weights

    variables, meta = weights.load(name)
    arrays, params = flat(variables["params"]), {}
    if meta.base:
        arrays = with_differences(arrays, stored(load(meta.base["weights"])))
    for path, value in arrays.items():
        if path.endswith((EXPONENT, SCALE)):
            continue
        if path + SCALE in arrays:
            value = value.astype(np.float32) * arrays[path + SCALE]
        elif value.dtype == np.int8:
            value = exact.from_integers(value, arrays[path + EXPONENT])
        params[path] = value.astype(np.float32)
    tables = Tables(variables["tables"]["frequencies"].astype(np.uint32))
    frozen = Frozen(nested(params), tables, meta.fields, meta)
    if frozen.id.hex() != meta.id:
        raise UserError(f"weights {name} are not the model {meta.id}; install them again")
    return frozen


def from_run(workdir: str, which: str = "last", images: int = 256, base: str = "") -> Frozen:
    """Freezes a training run, with tables fitted to its own training images.

    Args:
      which: "last", "best" or a step.
      images: how many training images the tables are fitted to, each cropped to 512x512.
      base: weights whose scales are used, see `save`.
    """
    from aejax.loading import load as load_run

    trained = load_run(workdir, which)
    crops, data = training_images(trained.config, images)
    model = trained.model
    meta = metadata_of_run(workdir, trained, data)
    fields = {name: getattr(model, name) for name in FIELDS}
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    scales = stored(load(base)) if base else None
    return freeze(trained.variables["params"], fields, crops, meta, scales)


def training_images(config: ConfigDict, count: int) -> tuple[list[np.ndarray], str]:
    """(crops of at most `count` training images of a config, uint8 [h, w, 3], up to 512x512;
    "659 images of folder:train/photos")."""
    from aejax.data.pipeline import make_pipeline

    with contextlib.closing(make_pipeline(config, training=True)) as pipeline:
        reader, n = pipeline.reader, pipeline.n
        indices = np.linspace(0, n - 1, min(count, n)).astype(int)
        crops = [np.asarray(reader.read(int(i))[0])[:512, :512] for i in indices]
        return crops, f"{n:,} images of {pipeline.source.name}"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    import argparse

    parser = argparse.ArgumentParser(description="freeze a training run of the codec")
    parser.add_argument("run", help="workdir of the training")
    parser.add_argument("-o", "--out", required=True, help="NAME.safetensors")
    parser.add_argument("--which", default="last", help="last, best or a step")
    parser.add_argument(
        "--base", default="", help="weights it was fine-tuned from: store only the differences"
    )
    args = parser.parse_args(argv)
    frozen = from_run(args.run, args.which, base=args.base)
    save(frozen, args.out, args.base)
    print(f"{args.out}: model {frozen.id.hex()}, step {frozen.meta.step}")


if __name__ == "__main__":
    main()

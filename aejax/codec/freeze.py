"""From a training run to weights that ship: exact integers, fitted tables, one safetensors file.

    python -m aejax.codec.freeze RUN -o aejax/weights/codec.safetensors

There is no `update()` in the codec that a user could forget: a model has tables once it is frozen,
and cannot code before.
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
from aejax.codec.entropy import Tables, radius
from aejax.codec.frozen import Fields, Frozen, Params, flat, frozen_from, nested
from aejax.codec.levels import LEVELS
from aejax.codec.quality import KNOTS
from aejax.codec.runtime import Coded, Runtime
from aejax.errors import UserError
from aejax.weights import Metadata

FIELDS = (
    "latent", "width", "encoder", "decoder", "slices", "z", "features", "context", "hyper", "rates",
)  # fmt: skip


TABLES = ("bottleneck/base", "bottleneck/z_base", "bottleneck/z_mean")
EXPONENT = "_exponent"  # of an exact kernel's integers: a leaf beside it
SCALE = "_scale"  # of another kernel's


def kept_as(path: str, value: Array | np.ndarray) -> str:
    """How a parameter of the transforms is stored: "int8" with a scale per output channel,
    "float16" or "float32".

    Measured on held-out photographs: int8 kernels instead of float16 change the BD-rate by 0.02 %;
    the linear paths as int8 too would cost 0.9 %, as all of the picture goes through them. Tables
    by quality are small, and a gain has to be undone to better than a thousandth.
    """
    if value.ndim < 2 or len(value) == KNOTS:
        return "float32"
    return "float16" if path.endswith(("/klt", "/depthwise")) else "int8"


def byte_scale(w: np.ndarray) -> np.ndarray:
    """[..., o] -> [o]: what the largest weight of each output channel is 127 times of, rounded up
    to 11 bits, so that every product with an integer up to 127 is exact and the scale of what was
    scaled is the same again."""
    top = np.abs(np.asarray(w, np.float32)).max(axis=tuple(range(w.ndim - 1)))
    digits, power = np.frexp(np.maximum(top, 1e-30) / np.float32(127))
    return np.ldexp(np.ceil(digits * 2048) / 2048, power).astype(np.float32)


def is_exact(path: str) -> bool:
    """Whether a parameter belongs to what chooses tables."""
    return path.startswith(("bottleneck/h_s/", "bottleneck/passes_"))


def frozen_params(params: Params, base: dict[str, np.ndarray] | None = None) -> Params:
    """Parameters as the frozen model takes them: exact ones exact, the others as they are kept,
    in the scales of `base` (what `stored` of another model gave) if there is one."""
    out = {}
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
        elif kept_as(path, value) == "float16":
            value = value.astype(jnp.float16).astype(jnp.float32)
        elif kept_as(path, value) == "int8":
            value = np.asarray(value)
            unit = base[path + SCALE] if base else byte_scale(value)
            value = np.clip(np.round(value / unit), -127, 127) * unit
        out[path] = np.asarray(value)
    return nested(out)


def freeze(
    params: Params,
    fields: Fields,
    images: list[np.ndarray],
    meta: Metadata | None = None,
    base: dict[str, np.ndarray] | None = None,
) -> Frozen:
    """A model ready to code, its tables fitted to the symbols of training `images` (uint8
    [h, w, 3], at least 16 pixels a side) at all qualities; `base` as in `frozen_params`."""
    if fields["hyper"] != "context":
        raise UserError(f'only models with context are made into files, not "{fields["hyper"]}"')
    fields = {name: fields[name] for name in FIELDS if name in fields and name != "hyper"}
    params = frozen_params(params, base)
    plain = Frozen(params, Tables.fitted(), fields)
    counts = count_symbols(Runtime(plain), images)
    return Frozen(params, Tables.fitted(counts), fields, meta or Metadata())


def count_symbols(runtime: Runtime, images: list[np.ndarray]) -> list[np.ndarray]:
    """How often each symbol occurred at each level, the last of each for escapes."""
    counts = [np.zeros(2 * radius(level) + 2, np.int64) for level in range(LEVELS)]
    qualities = np.arange(0, 256, 17)
    for n, image in enumerate(images):
        byte = int(qualities[n % len(qualities)])
        for s, level in tile_symbols(runtime, image, byte):
            for v in np.unique(level):
                if v:
                    r = radius(v)
                    here = s[level == v]
                    index = np.where(np.abs(here) > r, 2 * r + 1, here + r)
                    counts[v] += np.bincount(index, minlength=2 * r + 2)
    return counts


def tile_symbols(runtime: Runtime, image: np.ndarray, byte: int) -> list[Coded]:
    """Of z and of y of the first tile of an image at a quality."""
    header = Header(b"", byte, image.shape[1], image.shape[0])
    tile = header.tiles[0]
    of_z, symbols, levels, _ = runtime.tile_symbols(runtime.latents(image, tile, header), byte)
    return [of_z, (symbols.reshape(-1), levels.reshape(-1))]


# --- files ----------------------------------------------------------------------------------------


def stored(frozen: Frozen, base: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Flat arrays of a file: kernels as int8 with one exponent (of the entropy model) or scale (of
    the transforms) per output channel, the linear paths as float16, the rest as float32."""
    out = {}
    for name, value in flat(frozen.params).items():
        if is_exact(name) and name.endswith("kernel"):
            unit = np.asarray(exact.weight_unit(value))
            out[name] = np.round(value / unit).astype(np.int8)
            out[name + EXPONENT] = np.round(np.log2(unit)).astype(np.int8)
        elif is_exact(name) or kept_as(name, value) == "float32":
            out[name] = value.astype(np.float32)
        elif kept_as(name, value) == "float16":
            out[name] = value.astype(np.float16)
        else:
            unit = base[name + SCALE] if base else byte_scale(value)
            out[name], out[name + SCALE] = np.round(value / unit).astype(np.int8), unit
    return out


BITS = {"int8": np.int8, "float16": np.int16}  # what differences are taken of


def differences(
    arrays: dict[str, np.ndarray], base: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """A model's stored arrays, without those that are equal in another of its shapes, and as
    differences to it of the integers and of float16's bits (they wrap): small numbers, which pack
    well."""
    out = {}
    for name, value in arrays.items():
        if name not in base or value.shape != base[name].shape:
            raise UserError(f"the base has other parameters: {name}")
        bits = BITS.get(value.dtype.name)
        if not np.array_equal(value, base[name]):
            out[name] = value.view(bits) - base[name].view(bits) if bits else value
    return out


def added(changes: dict[str, np.ndarray], base: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `differences`."""
    out = dict(base)
    for name, value in changes.items():
        bits = BITS.get(base[name].dtype.name)
        out[name] = (base[name].view(bits) + value).view(base[name].dtype) if bits else value
    return out


def save(frozen: Frozen, path: str | pathlib.Path, base: str | pathlib.Path = "") -> None:
    """Writes PATH.safetensors and PATH.json; with `base` only what differs from those weights, in
    whose scales the model must have been frozen."""
    from aejax import weights

    if base:
        theirs = load(base)
        parent = {"weights": str(base), "id": theirs.id.hex()}
        arrays = stored(theirs)
        out = differences(stored(frozen, arrays), arrays)
    else:
        parent, out = {}, stored(frozen)
    meta = dataclasses.replace(
        frozen.meta,
        fields=frozen.fields,
        id=frozen.id.hex(),
        parameters=int(sum(v.size for v in flat(frozen.params).values())),
        base=parent,
    )
    tables = frozen.tables.frequencies.astype(np.uint16)
    weights.save(path, {"params": nested(out), "tables": {"frequencies": tables}}, meta)


def load(name: str | pathlib.Path) -> Frozen:
    """Reads what `save` wrote, by path or by the name of shipped weights.

    Raises:
      UserError: it is not there, or not whole.
    """
    from aejax import weights

    variables, meta = weights.load(name)
    arrays, params = flat(variables["params"]), {}
    if meta.base:
        arrays = added(arrays, stored(load(meta.base["weights"])))
    for path, value in arrays.items():
        if path.endswith((EXPONENT, SCALE)):
            continue
        if path + SCALE in arrays:
            value = value.astype(np.float32) * arrays[path + SCALE]
        elif value.dtype == np.int8:
            value = np.ldexp(value.astype(np.float32), arrays[path + EXPONENT].astype(np.int32))
        params[path] = value.astype(np.float32)
    tables = Tables(variables["tables"]["frequencies"].astype(np.uint32))
    frozen = Frozen(nested(params), tables, meta.fields, meta)
    if frozen.id.hex() != meta.id:
        raise UserError(f"weights {name} are not the model {meta.id}; install them again")
    return frozen


def from_run(workdir: str, which: str = "last", images: int = 256, base: str = "") -> Frozen:
    """Freezes a training run, its tables fitted to its own training images; `base`: in the scales
    of those weights."""
    from aejax.loading import load as load_run

    trained = load_run(workdir, which)
    chosen, data = training_images(trained.config, images)
    model = trained.model
    meta = frozen_from(workdir, trained, data)
    fields = {name: getattr(model, name) for name in FIELDS}
    fields = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    scales = stored(load(base)) if base else None
    return freeze(trained.variables["params"], fields, chosen, meta, scales)


def training_images(config: ConfigDict, most: int) -> tuple[list[np.ndarray], str]:
    """(at most so many of the images that `config` trains on, uint8 [h, w, 3], at most 512 a side;
    what they are of, in words)."""
    from aejax.data.pipeline import make_pipeline

    with contextlib.closing(make_pipeline(config, training=True)) as pipeline:
        n = pipeline.n
        read = [pipeline.reader.read(int(i))[0] for i in np.linspace(0, n - 1, min(most, n))]
        images = [np.asarray(x)[:512, :512] for x in read]
        return images, f"{n:,} images of {pipeline.source.name}"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    import argparse

    parser = argparse.ArgumentParser(description="freeze a training run of the codec")
    parser.add_argument("run", help="workdir of the training")
    parser.add_argument("-o", "--out", required=True, help="NAME.safetensors")
    parser.add_argument("--which", default="last", help="last, best or a step")
    parser.add_argument("--base", default="", help="weights it was tuned from: store what differs")
    args = parser.parse_args(argv)
    frozen = from_run(args.run, args.which, base=args.base)
    save(frozen, args.out, args.base)
    print(f"{args.out}: model {frozen.id.hex()}, step {frozen.meta.step}")


if __name__ == "__main__":
    main()

"""`aejax bench`: where the time of a model goes, from a picture file to a picture file."""

import argparse
import dataclasses
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from aejax.cli import Verb
from aejax.errors import UserError

if TYPE_CHECKING:
    import flax.linen as nn
    import numpy as np

    from aejax.types import Variables


@dataclasses.dataclass(frozen=True)
class Row:
    """A stage, or (indented) a part of one.

    Attributes:
      p50, p99: milliseconds. note: what was read, computed or written.
    """

    name: str
    p50: float
    p99: float
    note: str = ""


def timed(name: str, run: Callable[[], object], runs: int, note: str = "") -> Row:
    """A row of `runs` runs; one before them is not counted: it compiles."""
    import jax
    import numpy as np

    jax.block_until_ready(run())
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        times.append(1e3 * (time.perf_counter() - begin))
    return Row(name, float(np.percentile(times, 50)), float(np.percentile(times, 99)), note)


def parts_of(
    model: "nn.Module", variables: "Variables", x: "np.ndarray"
) -> Iterator[tuple[str, Callable[[], object]]]:
    """(name, function that runs it) of the submodules that a model calls on images x, compiled one
    by one on random input of the shapes that they see."""
    import flax.linen as nn
    import jax
    import numpy as np

    from aejax.nets.applied import applied

    calls = []
    rngs = {"bottleneck": jax.random.key(0)}

    def record(call, args, kwargs, context):
        if context.method_name == "__call__" and len(context.module.path) == 1:
            leaves, form = jax.tree.flatten((args, kwargs))
            shapes = [(a.shape, a.dtype) if hasattr(a, "shape") else a for a in leaves]
            calls.append((context.module.path[0], context.module.clone(parent=None), shapes, form))
        return call(*args, **kwargs)

    def whole(v, x):
        with nn.intercept_methods(record):
            return applied(model, v, x, None, train=False, rngs=rngs).y

    jax.eval_shape(whole, variables, x)
    rng = np.random.default_rng(0)
    for name, module, shapes, form in calls:
        own = {kind: tree[name] for kind, tree in variables.items() if name in tree}
        arrays = {
            i: rng.random(s[0], np.float32).astype(s[1])
            for i, s in enumerate(shapes)
            if isinstance(s, tuple)
        }

        def run(v, arrays, module=module, shapes=shapes, form=form):
            args, kwargs = jax.tree.unflatten(
                form, [arrays.get(i, s) for i, s in enumerate(shapes)]
            )
            return module.apply(v, *args, **kwargs, rngs=rngs)

        f, placed = jax.jit(run), jax.device_put((own, arrays))
        yield name, lambda f=f, placed=placed: f(*placed)


def peak_megabytes() -> float:
    """The most memory that this process has had."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@dataclasses.dataclass(frozen=True)
class Measured:
    """The rows, and what belongs to all of them."""

    model: str
    size: str
    rows: list[Row]
    facts: dict[str, float]


def _read(file: pathlib.Path, runs: int) -> Row:
    from aejax.data.images import read_image

    return timed("read", lambda: read_image(file)[0], runs, f"PNG, {file.stat().st_size:,} bytes")


def of_network(name: str, picture: "np.ndarray", runs: int, folder: pathlib.Path) -> Measured:
    """A denoiser or an autoencoder on a picture uint8 [h, w, c]."""
    import jax
    import numpy as np

    import aejax
    from aejax.data.images import write_image
    from aejax.denoising.cost import macs_per_pixel

    trained = aejax.load(name)
    shape = trained.shape or (0, 0, trained.config.data.channels)
    x8 = _fitted(picture, shape[-1])
    source, target = folder / "in.png", folder / "out.png"
    write_image(source, x8)
    x = x8[None].astype(np.float32) / 255
    rngs = {"bottleneck": jax.random.key(0)}
    run = jax.jit(lambda v, x: trained.model.apply(v, x, None, train=False, rngs=rngs).y)
    variables = jax.device_put(trained.variables)
    on_device = jax.device_put(x)
    compiled = run.lower(variables, on_device).compile()
    y8 = np.round(255 * np.clip(np.asarray(compiled(variables, on_device))[0], 0, 1))
    y8 = y8.astype(np.uint8)
    h, w = x8.shape[:2]
    device = jax.devices()[0].device_kind

    def transfer() -> jax.Array:
        return jax.device_put(x8[None].astype(np.float32) / 255)

    rows = [
        _read(source, runs),
        timed("transfer", transfer, runs, f"to {device}, as float"),
        timed("compute", lambda: compiled(variables, on_device), runs, "compiled as one"),
    ]
    rows += [timed(f"  {part}", f, runs) for part, f in parts_of(trained.model, variables, x)]
    rows.append(timed("write", lambda: write_image(target, y8), runs, "PNG"))
    facts = {
        "kmac_per_pixel": macs_per_pixel(trained.model, shape[-1]) / 1e3,
        "parameters": float(sum(v.size for v in jax.tree.leaves(trained.variables["params"]))),
        # pyrefly: ignore [missing-attribute]
        "temporary_mb": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        "peak_mb": peak_megabytes(),
        "megapixels_per_second": h * w / rows[2].p50 / 1e3,
    }
    return Measured(name, f"{w}x{h}x{shape[-1]}", rows, facts)


def of_codec(name: str, picture: "np.ndarray", runs: int, folder: pathlib.Path) -> Measured:
    """The codec on a picture uint8 [h, w, 3] at quality 50."""
    from aejax import codec
    from aejax.data.images import write_image

    source, target = folder / "in.png", folder / "out.png"
    write_image(source, picture)
    metric = "ms-ssim" if name.endswith("ms-ssim") else "mse"
    data = codec.encode(picture, quality=50, metric=metric)
    h, w = picture.shape[:2]
    about = f"{len(data):,} bytes, {8 * len(data) / (h * w):.3f} bits per pixel"
    encode = timed("encode", lambda: codec.encode(picture, quality=50, metric=metric), runs, about)
    decode = timed("decode", lambda: codec.decode(data), runs)
    rows = [
        _read(source, runs),
        encode,
        decode,
        timed("write", lambda: write_image(target, picture), runs, "PNG"),
    ]
    both = encode.p50 + decode.p50
    facts = {"peak_mb": peak_megabytes(), "megapixels_per_second": h * w / both / 1e3,
             "encode_and_decode_per_second": 1e3 / both}  # fmt: skip
    return Measured(name, f"{w}x{h}x3", rows, facts)


def _fitted(picture: "np.ndarray", channels: int) -> "np.ndarray":
    from aejax.data import decode

    if channels not in (1, 3):
        raise UserError(f"a model of {channels} channels; those of 1 and 3 can be measured")
    return decode.flatten(picture, channels)


def measure(name: str, width: int, height: int, runs: int = 20) -> Measured:
    """Where the time of a model goes on one picture of that size.

    Args:
      name: as `aejax.load` takes it; "codec" and "codec-ms-ssim" are the codec with its coder.

    Raises:
      UserError: no such model, or one that takes no picture of that size.
    """
    from aejax.data import decode
    from aejax.data.source import open_source

    source = open_source("bundled:photos", "test")
    picture = decode.resize(source.read(0)[0], (height, width))
    of = of_codec if name in ("codec", "codec-ms-ssim") else of_network
    with tempfile.TemporaryDirectory() as folder:
        try:
            return of(name, picture, runs, pathlib.Path(folder))
        except (TypeError, ValueError) as e:
            raise UserError(
                f'"{name}" cannot be measured at {width}x{height}: {str(e).splitlines()[0]}'
            ) from e


def table(measured: Measured) -> str:
    """For people."""
    lines = [f"{measured.model}, {measured.size}", "",
             f"{'':<16}{'p50 ms':>9}{'p99 ms':>9}"]  # fmt: skip
    lines += [f"{r.name:<16}{r.p50:>9.2f}{r.p99:>9.2f}  {r.note}".rstrip() for r in measured.rows]
    whole = [r for r in measured.rows if not r.name.startswith(" ")]
    lines += [f"{'sum':<16}{sum(r.p50 for r in whole):>9.2f}", ""]
    lines += [f"{name.replace('_', ' '):<30}{value:,.6g}" for name, value in measured.facts.items()]
    if any(r.name.startswith(" ") for r in measured.rows):
        lines += [
            "",
            "Parts are compiled one by one; together they are fused and take less or more.",
        ]
    return "\n".join(lines)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a shipped name, a file, a run's folder")
    parser.add_argument("--size", default="640x480", metavar="WxH", help="default 640x480")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="of each stage")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _bench(args: argparse.Namespace) -> int:
    width, _, height = args.size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 8 <= int(width) <= 8192
            and 8 <= int(height) <= 8192):  # fmt: skip
        raise UserError(f'--size "{args.size}": give WIDTHxHEIGHT, 8 to 8192 pixels each')
    if args.runs < 1:
        raise UserError(f"--runs {args.runs}: at least 1")
    measured = measure(args.model, int(width), int(height), args.runs)
    print(json.dumps(dataclasses.asdict(measured), indent=1) if args.json else table(measured))
    return 0


bench = Verb(_arguments, _bench)

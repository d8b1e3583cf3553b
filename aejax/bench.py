"""`aejax bench`: time of each stage of running a model, from a picture file to a picture file."""

import argparse
import dataclasses
import functools
import json
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from aejax.cli import Verb
from aejax.errors import UserError

if TYPE_CHECKING:
    import flax.linen as nn
    import numpy as np

    from aejax.trained import Trained
    from aejax.types import Variables

DEFAULT_SIZE = (480, 640)  # height and width
CODECS: dict[str, dict[str, Any]] = {  # name -> arguments of `codec.encode`
    "codec": {"quality": 50},
    "codec-ms-ssim": {"quality": 50, "metric": "ms-ssim"},
    "lossless": {"lossless": True},
}


@dataclasses.dataclass(frozen=True)
class Row:
    """The time of a stage, or of a part of the stage before it (its name is then indented).

    Attributes:
      p50, p99: percentiles in milliseconds.
      note: what was read, computed or written.
    """

    name: str
    p50: float
    p99: float
    note: str = ""


def timed(name: str, run: Callable[[], object], runs: int, note: str = "") -> Row:
    """Times `runs` calls of `run`, after one call that is not counted, because it may compile."""
    import jax
    import numpy as np

    jax.block_until_ready(run())
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(1e3 * (time.perf_counter() - start))
    return Row(name, float(np.percentile(times, 50)), float(np.percentile(times, 99)), note)


def parts_of(
    model: "nn.Module", variables: "Variables", x: "np.ndarray"
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields (name, function that runs it) of the top-level submodules that a model calls on images
    x. Each is compiled alone and runs on random input of the shapes that it gets from the model."""
    import flax.linen as nn
    import jax
    import numpy as np

    from aejax.nets.applied import applied

    calls = []
    rngs = {"bottleneck": jax.random.key(0)}

    def record(call, args, kwargs, context):
        if context.method_name == "__call__" and len(context.module.path) == 1:
            leaves, tree = jax.tree.flatten((args, kwargs))
            shapes = [(a.shape, a.dtype) if hasattr(a, "shape") else a for a in leaves]
            calls.append((context.module.path[0], context.module.clone(parent=None), shapes, tree))
        return call(*args, **kwargs)

    def whole(v, x):
        with nn.intercept_methods(record):
            return applied(model, v, x, None, train=False, rngs=rngs).y

    jax.eval_shape(whole, variables, x)
    rng = np.random.default_rng(0)
    for name, module, shapes, tree in calls:
        of_module = {kind: v[name] for kind, v in variables.items() if name in v}
        arrays = {
            i: rng.random(s[0], np.float32).astype(s[1])
            for i, s in enumerate(shapes)
            if isinstance(s, tuple)
        }

        def run(v, arrays, module=module, shapes=shapes, tree=tree):
            args, kwargs = jax.tree.unflatten(
                tree, [arrays.get(i, s) for i, s in enumerate(shapes)]
            )
            return module.apply(v, *args, **kwargs, rngs=rngs)

        f, placed = jax.jit(run), jax.device_put((of_module, arrays))
        yield name, lambda f=f, placed=placed: f(*placed)


def peak_megabytes() -> float:
    """Peak resident memory of this process in MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@dataclasses.dataclass(frozen=True)
class Measured:
    """The result of a benchmark.

    Attributes:
      model: its name.
      size: WIDTHxHEIGHTxCHANNELS of the picture.
      rows: of the stages, in order.
      facts: other numbers, by name with its unit.
    """

    model: str
    size: str
    rows: list[Row]
    facts: dict[str, float]


def _time_reading(file: pathlib.Path, runs: int) -> Row:
    from aejax.data.images import read_image

    return timed("read", lambda: read_image(file)[0], runs, f"PNG, {file.stat().st_size:,} bytes")


def of_network(
    trained: "Trained", picture: "np.ndarray", runs: int, folder: pathlib.Path
) -> Measured:
    """Times a denoiser or an autoencoder on a picture, uint8 [h, w, c].

    Args:
      folder: for the picture files that are read and written.
    """
    import jax
    import numpy as np

    from aejax.data.images import write_image
    from aejax.metrics.cost import macs
    from aejax.nets.applied import applied

    x8 = _with_channels(
        picture, trained.shape[-1] if trained.shape else trained.config.data.channels
    )
    source, target = folder / "in.png", folder / "out.png"
    write_image(source, x8)
    x = x8[None].astype(np.float32) / 255
    rngs = {"bottleneck": jax.random.key(0)}

    def forward(variables: "Variables", x: jax.Array) -> jax.Array:
        return applied(trained.model, variables, x, None, train=False, rngs=rngs).y

    variables = jax.device_put(trained.variables)
    on_device = jax.device_put(x)
    compiled = jax.jit(forward).lower(variables, on_device).compile()
    y8 = np.round(255 * np.clip(np.asarray(compiled(variables, on_device))[0], 0, 1))
    y8 = y8.astype(np.uint8)
    h, w = x8.shape[:2]
    device = jax.devices()[0].device_kind

    def transfer() -> jax.Array:
        return jax.device_put(x8[None].astype(np.float32) / 255)

    rows = [
        _time_reading(source, runs),
        timed("transfer", transfer, runs, f"to {device}, as float"),
        timed("compute", lambda: compiled(variables, on_device), runs, "the whole model"),
    ]
    rows += [timed(f"  {part}", f, runs) for part, f in parts_of(trained.model, variables, x)]
    rows.append(timed("write", lambda: write_image(target, y8), runs, "PNG"))
    facts = {
        "kmac_per_pixel": macs(forward, trained.variables, x) / (1e3 * h * w),
        "parameters": float(sum(v.size for v in jax.tree.leaves(trained.variables["params"]))),
        # pyrefly: ignore [missing-attribute]
        "temporary_mb": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        "peak_mb": peak_megabytes(),
        "megapixels_per_second": h * w / rows[2].p50 / 1e3,
    }
    return Measured(trained.name, f"{w}x{h}x{x8.shape[-1]}", rows, facts)


def of_codec(name: str, picture: "np.ndarray", runs: int, folder: pathlib.Path) -> Measured:
    """Times a codec of CODECS on a picture, uint8 [h, w, 3]; folder: as of `of_network`."""
    from aejax import codec
    from aejax.data.images import write_image

    source, target = folder / "in.png", folder / "out.png"
    write_image(source, picture)
    run = functools.partial(codec.encode, picture, **CODECS[name])
    data = run()
    h, w = picture.shape[:2]
    note = f"{len(data):,} bytes, {8 * len(data) / (h * w):.3f} bits per pixel"
    encode = timed("encode", run, runs, note)
    decode = timed("decode", lambda: codec.decode(data), runs)
    rows = [
        _time_reading(source, runs),
        encode,
        decode,
        timed("write", lambda: write_image(target, picture), runs, "PNG"),
    ]
    both = encode.p50 + decode.p50
    facts = {"peak_mb": peak_megabytes(), "megapixels_per_second": h * w / both / 1e3,
             "encode_and_decode_per_second": 1e3 / both}  # fmt: skip
    return Measured(name, f"{w}x{h}x3", rows, facts)


def _with_channels(picture: "np.ndarray", channels: int) -> "np.ndarray":
    from aejax.data import decode

    if channels not in (1, 3):
        raise UserError(f"the model has {channels} channels; only 1 and 3 can be measured")
    return decode.flatten(picture, channels)


def measure(name: str, size: tuple[int, int] | None = None, runs: int = 20) -> Measured:
    """Times the stages of running a model on one picture.

    Args:
      name: as for `aejax.load`; the names in CODECS include the entropy coder.
      size: height and width in pixels; by default the only size that the model takes, or 480x640.
      runs: calls of each stage.

    Raises:
      UserError: there is no such model, or it does not take pictures of that size.
    """
    import aejax
    from aejax.data import decode
    from aejax.data.source import open_source
    from aejax.export.parts import stride_of

    trained, fixed = None if name in CODECS else aejax.load(name), None
    if trained is not None and trained.shape and not stride_of(trained.model):
        fixed = trained.shape[:2]
    if fixed and size and size != fixed:
        raise UserError(f'"{name}" only takes {fixed[1]}x{fixed[0]} pictures; omit --size')
    height, width = size or fixed or DEFAULT_SIZE
    source = open_source("bundled:photos", "test")
    picture = decode.resize(source.read(0)[0], (height, width))
    with tempfile.TemporaryDirectory() as folder:
        try:
            if trained is None:
                return of_codec(name, picture, runs, pathlib.Path(folder))
            return of_network(trained, picture, runs, pathlib.Path(folder))
        except (TypeError, ValueError) as e:
            raise UserError(
                f'"{name}" cannot be measured at {width}x{height}: {str(e).splitlines()[0]}'
            ) from e


def table(measured: Measured) -> str:
    """The result as text."""
    lines = [f"{measured.model}, {measured.size}", "",
             f"{'':<16}{'p50 ms':>9}{'p99 ms':>9}"]  # fmt: skip
    lines += [f"{r.name:<16}{r.p50:>9.2f}{r.p99:>9.2f}  {r.note}".rstrip() for r in measured.rows]
    whole = [r for r in measured.rows if not r.name.startswith(" ")]
    lines += [f"{'sum':<16}{sum(r.p50 for r in whole):>9.2f}", ""]
    lines += [f"{name.replace('_', ' '):<30}{value:,.6g}" for name, value in measured.facts.items()]
    if any(r.name.startswith(" ") for r in measured.rows):
        lines += [
            "",
            "Parts are compiled separately. In the whole model they are fused: times do not "
            "add up.",
        ]
    return "\n".join(lines)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a shipped name, a .safetensors file, a run's folder"
    )
    parser.add_argument(
        "--size", metavar="WxH", help="default 640x480, or the only size that the model takes"
    )
    parser.add_argument("--runs", type=int, default=20, metavar="N",
                        help="timed calls of each stage (default 20)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _bench(args: argparse.Namespace) -> int:
    size = None
    if args.size is not None:
        match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", args.size)
        if not (match and all(8 <= int(n) <= 8192 for n in match.groups())):
            raise UserError(f'--size "{args.size}": give WIDTHxHEIGHT, 8 to 8192 pixels each')
        size = int(match[2]), int(match[1])
    if args.runs < 1:
        raise UserError(f"--runs {args.runs}: give at least 1")
    measured = measure(args.model, size, args.runs)
    print(json.dumps(dataclasses.asdict(measured), indent=1) if args.json else table(measured))
    return 0


bench = Verb(_arguments, _bench)

"""The codec: seconds per Kodak image, beside CompressAI; time per megapixel and memory up to 100.

    python experiments/benchmarks/codec.py [--sizes 0.4,4,25,100] [--one-core]

The small images are those of test/kodak in the data folder, or a bundled photograph of that size;
the large ones are that photograph, mirrored and repeated. Each size is encoded and decoded in a
separate process, whose peak resident memory includes pixels, code and jax. CPU seconds are those of
all threads, after a run on a smaller image with the same tile shapes. CompressAI, if installed, is
its mean-scale hyperprior (mbt2018-mean, quality 4).

Cost: 10 minutes with all four sizes on two cores of an AMD EPYC. Results: codec.md beside this
file.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import common

SIDES = {"0.4": (512, 768), "1": (1000, 1000), "4": (2000, 2000), "25": (5000, 5000),
         "100": (10000, 10000)}  # fmt: skip
QUALITY = 50


def photographs(folder: str, count: int = 3):
    """Some Kodak images, uint8 [512, 768, 3] or [768, 512, 3]; else a bundled photograph."""
    import numpy as np
    from PIL import Image

    files = sorted(pathlib.Path(folder, "test", "kodak").glob("*.png"))
    if files:
        return [np.asarray(Image.open(f).convert("RGB")) for f in files[:: len(files) // count]]
    print("NO test/kodak IN THE DATA FOLDER: a bundled photograph stands in", file=sys.stderr)
    return [repeated(512, 768)]


def repeated(height: int, width: int):
    """A bundled photograph, mirrored and repeated to a size: uint8 [height, width, 3]."""
    import numpy as np
    from skimage.data import astronaut

    x = astronaut()
    x = np.concatenate([x, x[:, ::-1]], 1)
    x = np.concatenate([x, x[::-1]], 0)
    return np.tile(x, (-(-height // 1024), -(-width // 1024), 1))[:height, :width].copy()


def part(side: int) -> int:
    """A smaller side that gives tiles of the same shapes, to compile before the measurement."""
    return side if side < 3000 else 1536 + side % 1536


def child(what: str, size: str, path: str) -> None:
    """Encodes to a file or decodes it, and prints time and memory as JSON."""
    from aejax.codec import api as codec

    h, w = SIDES[size]
    image = repeated(h, w) if what == "encode" else None
    small = codec.encode(repeated(part(h), part(w)), QUALITY)
    codec.decode(small)
    data = pathlib.Path(path).read_bytes() if what == "decode" else b""
    cpu, wall = time.process_time(), time.perf_counter()
    if what == "encode":
        data = codec.encode(image, QUALITY)
        pathlib.Path(path).write_bytes(data)
    else:
        assert codec.decode(data).shape == (h, w, 3)
    times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps(times | {"gib": common.peak_mib() / 1024, "bytes": len(data)}))


def sizes(names: list[str]) -> str:
    """The table of sizes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            row, path = [name], os.path.join(folder, "x.aej")
            for what in ("encode", "decode"):
                process = subprocess.run(
                    [sys.executable, __file__, "--child", what, "--sizes", name, "--file", path],
                    check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                cost = json.loads(process.stdout.splitlines()[-1])
                h, w = SIDES[name]
                row += [f"{cost['wall']:.2f}", f"{1e6 * cost['cpu'] / h / w:.2f}",
                        f"{cost['gib']:.2f}"]  # fmt: skip
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    header = ["megapixels", "encode, s", "CPU s per MP", "GiB", "decode, s", "CPU s per MP", "GiB"]
    return common.table(header, rows)


def per_image(images, rounds: int) -> list[list]:
    """Rows of aejax: encoding and decoding, and their parts."""
    import jax

    from aejax.codec import api as codec
    from aejax.codec.container import Header
    from aejax.codec.installed import runtime_for
    from aejax.codec.parts import as_quality

    runtime = runtime_for()
    totals: dict[str, list[common.Time]] = {}
    for x in images:
        data = codec.encode(x, QUALITY)
        byte = codec.info(data)["quality"] * 2.55
        header = Header(runtime.frozen.id, round(byte), x.shape[1], x.shape[0])
        tile, q = header.tiles[0], as_quality(header.quality)
        y = runtime.latents(x, tile, header)
        chunks, y_hat = runtime.encode_tile(y, header.quality)
        h, w = y.shape[:2]
        cases = {
            "aejax encode": lambda x=x: codec.encode(x, QUALITY),
            "  pixels to latents": lambda x=x, t=tile, d=header: runtime.latents(x, t, d),
            "  latents to bytes": lambda y=y, d=header: runtime.encode_tile(y, d.quality),
            "aejax decode": lambda data=data: codec.decode(data),
            "  bytes to latents": lambda c=chunks, h=h, w=w, d=header: runtime.decode_tile(
                c, h, w, d.quality
            ),
            "  latents to pixels": lambda y=y_hat, q=q: jax.block_until_ready(
                runtime.to_samples(runtime.variables, y[None], q, 0)
            ),
        }
        for name, t in common.in_turn(cases, rounds, warm=2).items():
            totals.setdefault(name, []).append(t)
    return _rows(totals)


def _rows(totals: dict[str, list[common.Time]]) -> list[list]:
    def mean(ts, what):
        return f"{1e3 * sum(getattr(t, what) for t in ts) / len(ts):.0f}"

    return [[name, mean(ts, "wall"), mean(ts, "cpu")] for name, ts in totals.items()]


def compressai(images, rounds: int) -> list[list]:
    """Rows of CompressAI; none, with a message, if it is not installed."""
    try:
        import torch
        from compressai.zoo import mbt2018_mean
    except ImportError:
        print(
            "COMPRESSAI IS NOT INSTALLED: its rows are SKIPPED (pip install compressai)",
            file=sys.stderr,
        )
        return []
    try:
        net = mbt2018_mean(quality=4, metric="mse", pretrained=True).eval()
    except OSError as e:  # no network: time the layers with random weights
        print(f"CompressAI's weights cannot be had ({e}): random ones", file=sys.stderr)
        net = mbt2018_mean(quality=4, metric="mse", pretrained=False).eval()
    net.update(force=True)
    totals: dict[str, list[common.Time]] = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        net = net.to(memory_format=layout)
        with torch.inference_mode():
            for x in images:
                t = torch.from_numpy(x.copy()).permute(2, 0, 1)[None].float() / 255
                t = t.contiguous(memory_format=layout)
                compressed = net.compress(t)
                cases = {
                    "compress": lambda net=net, t=t: net.compress(t),
                    "decompress": lambda net=net, c=compressed: net.decompress(
                        c["strings"], c["shape"]
                    ),
                }
                for name, time_ in common.in_turn(cases, rounds).items():
                    name = f"CompressAI mbt2018-mean {name}, {str(layout)[6:]}"
                    totals.setdefault(name, []).append(time_)
    return _rows(totals)


def main() -> None:
    args = common.begin(
        __doc__,
        (
            "--sizes",
            {"default": "0.4,4,25,100", "help": f"megapixels, of {', '.join(SIDES)}; empty = none"},
        ),
        ("--child", {"help": "internal: encode or decode one size"}),
        ("--file", {}),
    )
    if args.child:
        child(args.child, args.sizes, args.file)
        return
    if args.smoke:
        args.sizes = "0.4"
    images = photographs(args.data_dir)[: 1 if args.smoke else None]
    rows = per_image(images, args.rounds) + compressai(images, args.rounds)
    text = f"{len(images)} images of 768 x 512, quality {QUALITY}; milliseconds:\n\n"
    text += common.table(["", "wall", "CPU"], rows)
    names = [name for name in args.sizes.split(",") if name]
    if names:
        text += "\n\nOne large image:\n\n" + sizes(names)
    common.write(__file__, text, args, "constriction", "compressai", "torch")


if __name__ == "__main__":
    main()

"""Time and memory of a training step against image size, batch and latent size.

    python experiments/benchmarks/slopes.py [--one-core]

A convolutional autoencoder (widths 64 and 128) on random images. Every point is measured in a new
process; its memory is the peak of the process minus the peak after importing jax. The slope is that
of
a straight line through the logarithms: 1 = proportional.

Cost: 6 minutes on two cores of an AMD EPYC. Results: slopes.md beside this file.
"""

import json
import math
import os
import subprocess
import sys

import common

BASE = {"side": 64, "batch": 8, "latent": 16}
AXES = {
    "image side": ("side", (32, 64, 128, 256)),
    "batch": ("batch", (4, 8, 16, 32)),
    "latent channels": ("latent", (4, 16, 64, 256)),
}


def child(point: dict, args):
    """Measures one point and prints it as JSON."""
    import jax

    jax.jit(lambda x: x + 1)(1.0).block_until_ready()
    before = common.peak_mib()
    from conv_autoencoder import ours

    train, _, size = ours(point["batch"], point["side"], (64, 128), point["latent"])
    t = common.in_turn({"step": train}, args.rounds)["step"]
    cost = {"wall": t.wall, "cpu": t.cpu, "mib": common.peak_mib() - before, "parameters": size}
    print(json.dumps(cost), flush=True)


def slope(xs, ys) -> float:
    """Slope of the least-squares line through (log x, log y)."""
    lx, ly = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mx, my = sum(lx) / len(lx), sum(ly) / len(ly)
    covariance = sum((a - mx) * (b - my) for a, b in zip(lx, ly, strict=True))
    return covariance / sum((a - mx) ** 2 for a in lx)


def main():
    args = common.begin(__doc__)
    if "BENCH_CHILD" in os.environ:
        return child(json.loads(os.environ["BENCH_CHILD"]), args)
    flags = ["--rounds", str(args.rounds)] + ["--one-core"] * args.one_core
    rows, slopes = [], []
    for axis, (name, values) in AXES.items():
        values = values[:2] if args.smoke else values
        points = []
        for value in values:
            env = {**os.environ, "BENCH_CHILD": json.dumps(BASE | {name: value})}
            out = subprocess.run(
                [sys.executable, __file__, *flags], env=env, capture_output=True, text=True
            )
            assert out.returncode == 0, out.stderr[-2000:]
            p = json.loads(out.stdout.splitlines()[-1])
            points.append(p)
            t = common.Time(p["wall"], p["cpu"], args.one_core)
            rows.append((axis, value, t.ms, f"{p['mib']:.0f}", f"{p['parameters']:,}"))
            print(rows[-1], flush=True)
        clock = "cpu" if args.one_core else "wall"
        time_slope = slope(values, [p[clock] for p in points])
        memory_slope = slope(values, [p["mib"] for p in points])
        slopes.append(f"{axis}: time {time_slope:.2f}, memory {memory_slope:.2f}")
    text = f"""Slopes (exponents): {"; ".join(slopes)}.

Base: {BASE["side"]}x{BASE["side"]} pixels, batch {BASE["batch"]}, {BASE["latent"]} latent channels.

{common.table(["varied", "value", "ms per step", "MiB", "parameters"], rows)}
"""
    common.write(__file__, text, args)


if __name__ == "__main__":
    main()

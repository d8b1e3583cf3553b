"""A checkpoint of 1 GB of state: how long the loop waits for it, and what comes back elsewhere.

    python experiments/benchmarks/checkpoint.py --gigabytes 1      # writes checkpoint.md

Random parameters with Adam's two moments, sharded as fsdp does over 8 emulated devices of a CPU;
saved as the training loop does (asynchronously) and restored whole onto 4 devices (`jit`) and in
shards onto 2 (`fsdp`). Wall time, so it wants an idle machine.
"""

import argparse
import os
import pathlib
import tempfile
import time

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from aejax.machine.provenance import machine, versions  # noqa: E402
from aejax.training.checkpoint import Checkpoints  # noqa: E402
from aejax.training.sharding import of_mode  # noqa: E402
from aejax.training.state import create  # noqa: E402

HERE = pathlib.Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    args = parser.parse_args()
    layers = max(1, round(args.gigabytes * 1e9 / 12 / 2048**2))
    rng = np.random.default_rng(0)

    def parameters():
        layer = lambda: {"kernel": rng.standard_normal((2048, 2048), np.float32)}  # noqa: E731
        return {"params": {f"layer{i}": layer() for i in range(layers)}}

    shape = jax.eval_shape(lambda v: create(v, optax.adam(1e-3), 0.0), parameters())
    fsdp = of_mode("fsdp")
    state = fsdp.place(create(parameters(), optax.adam(1e-3), 0.0))
    size = sum(v.nbytes for v in jax.tree.leaves(state))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder, keep=1)
        begun = time.perf_counter()
        checkpoints.save(state)
        blocked = time.perf_counter() - begun
        checkpoints.wait()
        rows.append(("saved from 8 devices, fsdp", time.perf_counter() - begun, blocked))
        written = sum(f.stat().st_size for f in pathlib.Path(folder).rglob("*") if f.is_file())
        first = float(jnp.sum(jnp.abs(state.params["layer0"]["kernel"])))
        del state
        for mode, count in (("jit", 4), ("fsdp", 2)):
            where = of_mode(mode, devices=jax.devices()[:count])
            begun = time.perf_counter()
            found = checkpoints.restore(shape, where)
            jax.block_until_ready(found)
            rows.append((f"restored onto {count}, {mode}", time.perf_counter() - begun, None))
            again = float(jnp.sum(jnp.abs(found.params["layer0"]["kernel"])))
            assert abs(again - first) < 1e-4 * first, (first, again)
            del found
        checkpoints.close()
    lines = [
        f"# A checkpoint of {size / 1e9:.2f} GB",
        "",
        f"`python experiments/benchmarks/checkpoint.py --gigabytes {args.gigabytes:g}`, "
        f"{time.strftime('%Y-%m-%d')}, {machine()}, jax {versions()['jax']}, orbax "
        f"{versions()['orbax-checkpoint']}; load average {os.getloadavg()[0]:.0f} (wall times grow "
        f"with it). On the disk: {written / 1e9:.2f} GB (OCDBT, by one "
        "process; the moments of a first step are zeros, which compress to nothing).",
        "",
        "| what | seconds | of which the loop waits |",
        "|---|--:|--:|",
        *(
            f"| {name} | {s:.1f} | {'all' if wait is None else f'{wait:.2f}'} |"
            for name, s, wait in rows
        ),
        "",
    ]
    (HERE / "checkpoint.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

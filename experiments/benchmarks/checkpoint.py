"""How long does a checkpoint of 1 GB take, and can it be restored on another number of devices?

    python experiments/benchmarks/checkpoint.py --gigabytes 1      # writes checkpoint.md

The state is random parameters with the two moments of Adam, sharded over 8 emulated CPU devices as
by fsdp. It is saved asynchronously, as by the training loop, and restored on 4 devices (`jit`,
replicated) and on 2 (`fsdp`, sharded). It measures wall time, so the machine should be idle.

Cost: about a minute on two cores of an AMD EPYC that were busy with other work (load average 20):
13.9 s to save, 32.2 and 18.0 s to restore. Results: checkpoint.md beside this file.
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
        start = time.perf_counter()
        checkpoints.save(state)
        blocked = time.perf_counter() - start
        checkpoints.wait()
        rows.append(("saved from 8 devices, fsdp", time.perf_counter() - start, blocked))
        written = sum(f.stat().st_size for f in pathlib.Path(folder).rglob("*") if f.is_file())
        saved_total = float(jnp.sum(jnp.abs(state.params["layer0"]["kernel"])))
        del state
        for mode, count in (("jit", 4), ("fsdp", 2)):
            sharding = of_mode(mode, devices=jax.devices()[:count])
            start = time.perf_counter()
            restored = checkpoints.restore(shape, sharding)
            jax.block_until_ready(restored)
            rows.append((f"restored onto {count}, {mode}", time.perf_counter() - start, None))
            total = float(jnp.sum(jnp.abs(restored.params["layer0"]["kernel"])))
            assert abs(total - saved_total) < 1e-4 * saved_total, (saved_total, total)
            del restored
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

"""How a training step would scale on 1 to 256 chips: an estimate on paper, from the program itself.

    python experiments/benchmarks/estimate.py --config experiments/compress/codec.py --batch 512
    python experiments/benchmarks/estimate.py --config experiments/denoise/gray.py:smoke --check

The step is compiled for one chip of a TPU and two batches (`pip install "aejax[aot]"`; no TPU is
needed); its compiler counts FLOPs and the bytes it touches, the parameters say what gradients
weigh.
On n chips with a global batch B:

    compute     max(FLOPs / (peak * utilisation), bytes / memory bandwidth) of B / n examples,
                plus the same of what does not depend on the batch (the optimiser: on every chip)
    all-reduce  2 (n - 1) / n * 4 bytes * parameters / bandwidth + hops * latency
    input       B / hosts * (processor seconds of an example / cores + bytes / PCIe)
    step        max(compute + all-reduce, input) + dispatch

The all-reduce is not hidden behind the compute (XLA hides a part of it), the input is (it is made
ahead by other threads). `--check` compares what can be compared without a chip, on 1, 2 and 4
emulated devices of this CPU: each device's FLOPs, the bytes that the compiled program all-reduces,
and the processor seconds of a step.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from aejax.aot import analyse, topology  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Chip:
    """What Google's pages say of a chip (aejax/aot/topology.py), and what a slice is made of.

    Attributes:
      peak: bf16 FLOP/s. memory: bytes/s of HBM. links: bytes/s of an all-reduce, per chip
      (all-reduce bandwidth of a pod by its chips). latency: seconds of a hop.
      host_chips: chips of a host. pcie: bytes/s from a host to its chips.
    """

    peak: float
    memory: float
    links: float
    latency: float = 1e-6
    host_chips: int = 4
    pcie: float = 16e9


CHIPS = {
    kind: Chip(chip.peak, chip.memory, chip.links, host_chips=chip.host)
    for kind, chip in topology.CHIPS.items()
    if chip.axes > 1
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One training step on one device, counted.

    Attributes:
      flops, bytes: of one example. fixed_flops, fixed_bytes: of a step, whatever its batch.
      parameters: a float32 gradient each.
      example_bytes: what the host sends per example (uint8 pixels, or a row number).
      read_seconds: of one core of a host, to make one example.
    """

    flops: float
    bytes: float
    fixed_flops: float
    fixed_bytes: float
    parameters: int
    example_bytes: int
    read_seconds: float


def estimate(
    step: Step, chip: Chip, chips: int, batch: int, utilisation: float, cores: int
) -> dict[str, float]:
    """Seconds of a step of `batch` examples on `chips`, and of its parts."""
    mine = batch / chips
    flops, bytes_ = step.flops * mine + step.fixed_flops, step.bytes * mine + step.fixed_bytes
    compute = max(flops / (chip.peak * utilisation), bytes_ / chip.memory)
    side = 2 ** (math.log2(chips) // 2)  # of the torus: 4x4, 4x8, 8x8, ...
    hops = 2 * (side / 2 + chips / side / 2) if chips > 1 else 0
    gradients = 4 * step.parameters
    reduce = 2 * (chips - 1) / chips * gradients / chip.links + 2 * hops * chip.latency
    hosts = max(1, chips // chip.host_chips)
    load = batch / hosts * (step.read_seconds / cores + step.example_bytes / chip.pcie)
    whole = max(compute + reduce, load) + 2e-4  # a dispatch, at one step each
    return {"compute": compute, "reduce": reduce, "input": load, "step": whole,
            "rate": batch / whole}  # fmt: skip


def table(step: Step, chip: Chip, batch: int, grow: bool, utilisation: float, cores: int) -> str:
    """Markdown: one row per number of chips; `grow` keeps the batch of a chip, not of the step."""
    lines = [
        "| chips | batch | compute ms | all-reduce ms | input ms | step ms | examples/s | "
        "efficiency |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    first = None
    for chips in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        size = batch * chips if grow else batch
        if size % chips:
            continue
        found = estimate(step, chip, chips, size, utilisation, cores)
        first = first or found["rate"]
        ms = [f"{1e3 * found[k]:.3g}" for k in ("compute", "reduce", "input", "step")]
        lines.append(
            f"| {chips} | {size} | {' | '.join(ms)} | {found['rate']:,.0f} | "
            f"{found['rate'] / first / chips:.0%} |"
        )
    return "\n".join(lines)


def count(config, data_dir, kind: str = "v5e") -> Step:
    """The step of `config` as a TPU's compiler counts it, at its batch and at half of it."""
    where = topology.devices(topology.parse(f"{kind}:" + "x".join("1" * topology.CHIPS[kind].axes)))
    from aejax.aot import compile as aot
    from aejax.training.build import build

    config.train.mode, config.optim.accumulate = "jit", 1
    parts = build(config, data_dir)
    whole = max(32, config.data.batch)  # of fewer the fixed part and each example's blur
    found = {}
    for batch in (whole // 2, whole):
        compiled = aot.compile_step(parts, where, batch, steps=1)
        found[batch] = analyse.cost(compiled.program)
    each, fixed = {}, {}
    for name, value in found[whole].items():
        each[name] = max(0.0, (value - found[whole // 2][name]) / (whole - whole // 2))
        fixed[f"fixed_{name}"] = max(0.0, value - each[name] * whole)
    parts.pipeline.dispatch(1, 1)  # the first one opens files
    begun, steps = time.process_time(), 20
    for i in range(steps):
        parts.pipeline.dispatch(2 + i, 1)
    return Step(
        **each,
        **fixed,
        parameters=compiled.parameters,
        example_bytes=round(compiled.example_bytes),
        read_seconds=(time.process_time() - begun) / steps / config.data.batch,
    )


def measure(config, data_dir, steps: int = 20) -> dict:
    """On this process's emulated devices: FLOPs, all-reduced bytes, processor seconds of a step."""
    import jax

    from aejax.training.build import build, count_parameters
    from aejax.training.sharding import of_mode
    from aejax.training.step import make_dispatch

    parts = build(config, data_dir)
    sharding = of_mode(config.train.mode)
    state, resident, key = parts.placed(sharding)
    batch = parts.pipeline.dispatch(0, 1)
    dispatch = make_dispatch(parts.step_on(sharding), 1)
    compiled = sharding.compile(dispatch, state, batch, resident, key)
    batch = sharding.place_batch(batch)
    reduced = analyse.by_kind(analyse.collectives(compiled.as_text()))["all-reduce"]["bytes"]
    for _ in range(2):
        state, metrics = compiled(state, batch, resident, key)
    jax.block_until_ready(state)
    begun = time.process_time()
    for _ in range(steps):
        state, metrics = compiled(state, batch, resident, key)
    jax.block_until_ready((state, metrics))
    return {
        "devices": jax.device_count(),
        "seconds": (time.process_time() - begun) / steps,
        "parameters": count_parameters(state.params),
        "reduced": reduced,
        **analyse.cost(compiled),
    }


def check(arguments: list[str]) -> str:
    """Markdown: what 1, 2 and 4 emulated devices do, beside the estimate's assumptions."""
    rows = []
    for n in (1, 2, 4):
        env = dict(os.environ, XLA_FLAGS=f"--xla_force_host_platform_device_count={n}")
        done = subprocess.run(
            [sys.executable, __file__, *arguments, "--measure"],
            env=env | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    one = rows[0]
    lines = [
        "| devices | FLOPs of a device | all-reduced bytes per parameter | "
        "CPU s of a step | of them expected |",
        "|--:|--:|--:|--:|--:|",
    ]
    # FLOPs of a device = fixed + share / n: from 1 and 2 devices, checked at 4.
    fixed = max(0.0, 2 * rows[1]["flops"] - one["flops"])
    for row in rows:
        n, share = row["devices"], row["flops"] / one["flops"]
        model = (fixed + (one["flops"] - fixed) / n) / one["flops"]
        lines.append(
            f"| {n} | {share:.3f} (fixed + share / n: {model:.3f}) | "
            f"{row['reduced'] / row['parameters']:.2f} | "
            f"{row['seconds'] / one['seconds']:.2f} | {n * model:.2f} |"
        )
    return "\n".join(lines) + "\n\nFLOPs and CPU seconds as multiples of one device's."


def main() -> None:
    from aejax import config as configs

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", required=True, help="FILE[:arg]")
    parser.add_argument("--data-dir")
    parser.add_argument("--batch", type=int, default=0, help="global; default the config's")
    parser.add_argument("--chip", default="v5e", choices=CHIPS)
    parser.add_argument("--utilisation", type=float, default=0.3, help="of the peak FLOP/s")
    parser.add_argument("--cores", type=int, default=16, help="of a host, that make batches")
    parser.add_argument("--check", action="store_true", help="on 1, 2, 4 emulated devices")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    config = configs.load(args.config, overrides)
    if args.measure:
        print(json.dumps(measure(config, args.data_dir)))
        return
    if args.check:
        given = [a for a in sys.argv[1:] if a != "--check"]
        print(check(given))
        return
    own = config.data.batch
    step, chip = count(config, args.data_dir, args.chip), CHIPS[args.chip]
    batch = args.batch or own
    each = f"{step.flops / 1e9:.3g} GFLOP, {step.bytes / 1e6:.3g} MB"
    once = f"{step.fixed_flops / 1e9:.3g} GFLOP, {step.fixed_bytes / 1e6:.3g} MB"
    print(f"{args.config}: {step.parameters:,} parameters; per step {once}; per example {each}, "
          f"{step.example_bytes:,} bytes and {1e6 * step.read_seconds:.3g} us of input; "
          f"{args.chip}, {args.utilisation:.0%} of the peak, {args.cores} cores\n")  # fmt: skip
    print(f"Batch of {batch} split over the chips:\n")
    print(table(step, chip, batch, False, args.utilisation, args.cores))
    print(f"\nBatch of {own} on every chip:\n")
    print(table(step, chip, own, True, args.utilisation, args.cores))


if __name__ == "__main__":
    main()

"""How would a training step scale to 1 to 256 chips? An estimate from the compiled program.

    python experiments/benchmarks/estimate.py --config experiments/compress/codec.py --batch 512
    python experiments/benchmarks/estimate.py --config experiments/denoise/gray.py:smoke --check

The step is compiled for one chip of a TPU with two batch sizes (`pip install "aejax[aot]"`; no TPU
is needed). The compiler counts FLOPs and accessed bytes; the number of parameters gives the size of
the gradients. On n chips with a global batch B:

    compute     max(FLOPs / (peak * utilisation), bytes / memory bandwidth) of B / n examples,
                plus the part that does not depend on the batch (optimiser, on every chip)
    all-reduce  2 (n - 1) / n * 4 bytes * parameters / bandwidth + hops * latency
    input       B / hosts * (processor seconds of an example / cores + bytes / PCIe)
    step        max(compute + all-reduce, input) + dispatch

The estimate does not overlap all-reduce and compute (XLA does, in part), but input and compute
(input threads work ahead). `--check` compares with 1, 2 and 4 emulated devices of this CPU: FLOPs
of each device, all-reduced bytes of the compiled program, and CPU seconds per step.

Cost: not measured; mostly two compilations of the step for a TPU, see compiled.py.
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
    """Published figures of a chip (aejax/aot/topology.py) and of its host.

    Attributes:
      peak: bfloat16 FLOP/s.
      memory: bytes/s of HBM.
      links: bytes/s of an all-reduce per chip (all-reduce bandwidth of a pod / its chips).
      latency: seconds per hop.
      host_chips: chips per host.
      pcie: bytes/s from a host to its chips.
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
    """The cost of a training step on one device.

    Attributes:
      flops, bytes: per example.
      fixed_flops, fixed_bytes: per step, independent of the batch.
      parameters: number, each with a float32 gradient.
      example_bytes: sent by the host per example (uint8 pixels, or a row number).
      read_seconds: of one core of a host per example.
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
    """{"compute", "reduce", "input", "step": seconds; "rate": examples/s} of a step with `batch`
    examples on `chips` chips.

    Args:
      utilisation: fraction of the peak FLOP/s.
      cores: of a host.
    """
    local = batch / chips
    flops, bytes_ = step.flops * local + step.fixed_flops, step.bytes * local + step.fixed_bytes
    compute = max(flops / (chip.peak * utilisation), bytes_ / chip.memory)
    side = 2 ** (math.log2(chips) // 2)  # of the torus: 4x4, 4x8, 8x8, ...
    hops = 2 * (side / 2 + chips / side / 2) if chips > 1 else 0
    gradients = 4 * step.parameters
    reduce = 2 * (chips - 1) / chips * gradients / chip.links + 2 * hops * chip.latency
    hosts = max(1, chips // chip.host_chips)
    load = batch / hosts * (step.read_seconds / cores + step.example_bytes / chip.pcie)
    total = max(compute + reduce, load) + 2e-4  # one dispatch per step
    return {"compute": compute, "reduce": reduce, "input": load, "step": total,
            "rate": batch / total}  # fmt: skip


def table(step: Step, chip: Chip, batch: int, grow: bool, utilisation: float, cores: int) -> str:
    """A Markdown table with a row per number of chips.

    Args:
      grow: `batch` is that of a chip, not of the step.
    """
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
        seconds = estimate(step, chip, chips, size, utilisation, cores)
        first = first or seconds["rate"]
        ms = [f"{1e3 * seconds[k]:.3g}" for k in ("compute", "reduce", "input", "step")]
        lines.append(
            f"| {chips} | {size} | {' | '.join(ms)} | {seconds['rate']:,.0f} | "
            f"{seconds['rate'] / first / chips:.0%} |"
        )
    return "\n".join(lines)


def count(config, data_dir, kind: str = "v5e") -> Step:
    """The cost of the step of a config as the compiler of a TPU counts it, from two batch sizes."""
    devices = topology.devices(
        topology.parse(f"{kind}:" + "x".join("1" * topology.CHIPS[kind].axes))
    )
    from aejax.aot import compile as aot
    from aejax.training.build import build

    config.train.mode, config.optim.accumulate = "jit", 1
    parts = build(config, data_dir)
    large = max(32, config.data.batch)  # with fewer the two parts cannot be separated well
    costs = {}
    for batch in (large // 2, large):
        compiled = aot.compile_step(parts, devices, batch, steps=1)
        costs[batch] = analyse.cost(compiled.program)
    per_example, fixed = {}, {}
    for name, value in costs[large].items():
        per_example[name] = max(0.0, (value - costs[large // 2][name]) / (large - large // 2))
        fixed[f"fixed_{name}"] = max(0.0, value - per_example[name] * large)
    parts.pipeline.dispatch(1, 1)  # the first one opens files
    start, steps = time.process_time(), 20
    for i in range(steps):
        parts.pipeline.dispatch(2 + i, 1)
    return Step(
        **per_example,
        **fixed,
        parameters=compiled.parameters,
        example_bytes=round(compiled.example_bytes),
        read_seconds=(time.process_time() - start) / steps / config.data.batch,
    )


def measure(config, data_dir, steps: int = 20) -> dict:
    """FLOPs, all-reduced bytes and CPU seconds of a step on the emulated devices of this
    process."""
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
    start = time.process_time()
    for _ in range(steps):
        state, metrics = compiled(state, batch, resident, key)
    jax.block_until_ready((state, metrics))
    return {
        "devices": jax.device_count(),
        "seconds": (time.process_time() - start) / steps,
        "parameters": count_parameters(state.params),
        "reduced": reduced,
        **analyse.cost(compiled),
    }


def check(arguments: list[str]) -> str:
    """A Markdown table: measurements with 1, 2 and 4 emulated devices, and the assumptions."""
    rows = []
    for n in (1, 2, 4):
        env = dict(os.environ, XLA_FLAGS=f"--xla_force_host_platform_device_count={n}")
        process = subprocess.run(
            [sys.executable, __file__, *arguments, "--measure"],
            env=env | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True,
        )  # fmt: skip
        if process.returncode:
            raise SystemExit(process.stderr[-2000:])
        rows.append(json.loads(process.stdout.splitlines()[-1]))
    one = rows[0]
    lines = [
        "| devices | FLOPs of a device | all-reduced bytes per parameter | "
        "CPU s of a step | expected |",
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
    parser.add_argument(
        "--batch", type=int, default=0, help="global batch (default: that of the config)"
    )
    parser.add_argument("--chip", default="v5e", choices=CHIPS)
    parser.add_argument(
        "--utilisation", type=float, default=0.3, help="fraction of the peak FLOP/s"
    )
    parser.add_argument("--cores", type=int, default=16, help="cores of a host for the input")
    parser.add_argument(
        "--check", action="store_true", help="compare with 1, 2, 4 emulated devices"
    )
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    config = configs.load(args.config, overrides)
    if args.measure:
        print(json.dumps(measure(config, args.data_dir)))
        return
    if args.check:
        print(check([a for a in sys.argv[1:] if a != "--check"]))
        return
    own = config.data.batch
    step, chip = count(config, args.data_dir, args.chip), CHIPS[args.chip]
    batch = args.batch or own
    per_example = f"{step.flops / 1e9:.3g} GFLOP, {step.bytes / 1e6:.3g} MB"
    per_step = f"{step.fixed_flops / 1e9:.3g} GFLOP, {step.fixed_bytes / 1e6:.3g} MB"
    print(f"{args.config}: {step.parameters:,} parameters; per step {per_step}; "
          f"per example {per_example}, "
          f"{step.example_bytes:,} bytes and {1e6 * step.read_seconds:.3g} us of input; "
          f"{args.chip}, {args.utilisation:.0%} of the peak, {args.cores} cores\n")  # fmt: skip
    print(f"Batch of {batch} split over the chips:\n")
    print(table(step, chip, batch, False, args.utilisation, args.cores))
    print(f"\nBatch of {own} on every chip:\n")
    print(table(step, chip, own, True, args.utilisation, args.cores))


if __name__ == "__main__":
    main()

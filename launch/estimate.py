"""How a training step would scale on 1 to 256 chips: an estimate on paper, from the program itself.

    python launch/estimate.py --config experiments/compress/codec.py --batch 512
    python launch/estimate.py --config experiments/denoise/gray.py:smoke --check

The step is compiled for one device; the compiler counts its FLOPs and the bytes it touches, the
parameters say what the gradients weigh. On n chips with a global batch B:

    compute     max(FLOPs(B) / (n * peak * utilisation), bytes(B) / (n * memory bandwidth))
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
import re
import subprocess
import sys
import time


@dataclasses.dataclass(frozen=True)
class Chip:
    """What Google's pages say of a chip, and what a slice of it is made of.

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
    "v5e": Chip(peak=197e12, memory=819e9, links=51.2e12 / 256),
    "v6e": Chip(peak=918e12, memory=1640e9, links=102.4e12 / 256),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One training step of `batch` examples on one device, counted.

    Attributes:
      flops, bytes: of the whole step. parameters: a float32 gradient each.
      example_bytes: what the host sends per example (uint8 pixels, or a row number).
      read_seconds: of one core of a host, to make one example.
    """

    batch: int
    flops: float
    bytes: float
    parameters: int
    example_bytes: int
    read_seconds: float


def estimate(
    step: Step, chip: Chip, chips: int, batch: int, utilisation: float, cores: int
) -> dict[str, float]:
    """Seconds of a step of `batch` examples on `chips`, and of its parts."""
    share = batch / step.batch / chips
    compute = max(step.flops * share / (chip.peak * utilisation), step.bytes * share / chip.memory)
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


def compile_step(config, data_dir, count_only=True):
    """(compiled dispatch of one step, its arguments, parts) on all devices of this process."""
    from aejax.nets import ops
    from aejax.train import run
    from aejax.train.sharding import Sharding
    from aejax.train.step import make_dispatch, make_train_step

    if count_only:  # an accelerator takes the plain forms
        config.ops = {"all": "plain"}
    parts = run.build(config, data_dir)
    ops.set_forms(**dict(config.ops))
    sharding = Sharding(config.train.mode)
    sharding.check_batch(config.data.batch, config.optim.accumulate)
    step = make_train_step(
        parts.objective, parts.model, parts.tx, sharding, parts.pipeline.images,
        accumulate=config.optim.accumulate, ema=config.optim.ema,
    )  # fmt: skip
    state = sharding.place(parts.init())
    resident = parts.pipeline.resident
    resident = None if resident is None else sharding.replicate(resident)
    batch = sharding.place_batch(parts.pipeline.dispatch(0, 1))
    arguments = (state, batch, resident, sharding.replicate_key(1))
    compiled = sharding.compile(make_dispatch(step, 1), state).lower(*arguments).compile()
    return compiled, arguments, parts


def analysis(compiled) -> dict[str, float]:
    """FLOPs and bytes of one device."""
    found = compiled.cost_analysis()
    found = found[0] if isinstance(found, list) else found
    return {"flops": found["flops"], "bytes": found["bytes accessed"]}


def reduced_bytes(text: str) -> int:
    """Bytes that a compiled program sums over devices: the operands of its all-reduces."""
    size = {"f32": 4, "bf16": 2, "f16": 2, "f64": 8, "s32": 4, "u32": 4}
    total = 0
    for line in text.splitlines():
        found = re.search(r"= (.*?) all-reduce(?:-start)?\(", line)
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", found[1] if found else ""):
            total += size.get(kind, 0) * math.prod(int(n) for n in shape.split(",") if n)
    return total


def count(config, data_dir) -> Step:
    """The step of `config` as the compiler counts it."""
    import jax

    from aejax.train.run import count_parameters

    config.train.mode = "jit"
    config.optim.accumulate = 1
    compiled, arguments, parts = compile_step(config, data_dir)
    sent = sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(arguments[1]))
    parts.pipeline.dispatch(1, 1)  # the first one opens files
    begun, steps = time.process_time(), 20
    for i in range(steps):
        parts.pipeline.dispatch(2 + i, 1)
    reading = (time.process_time() - begun) / steps / config.data.batch
    return Step(
        config.data.batch,
        **analysis(compiled),
        parameters=count_parameters(arguments[0].params),
        example_bytes=sent // config.data.batch,
        read_seconds=reading,
    )


def measure(config, data_dir, steps: int = 20) -> dict:
    """On this process's emulated devices: FLOPs, all-reduced bytes, processor seconds of a step."""
    import jax

    from aejax.train.run import count_parameters

    compiled, (state, batch, resident, key), _ = compile_step(config, data_dir, count_only=False)
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
        "reduced": reduced_bytes(compiled.as_text()),
        **analysis(compiled),
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
        "| devices | FLOPs of a device, of one's | all-reduced bytes per parameter | "
        "CPU s of a step, of one's |",
        "|--:|--:|--:|--:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['devices']} | {row['flops'] / one['flops']:.3f} (1/n = "
            f"{1 / row['devices']:.3f}) | {row['reduced'] / row['parameters']:.2f} | "
            f"{row['seconds'] / one['seconds']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
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
    step, chip = count(config, args.data_dir), CHIPS[args.chip]
    batch = args.batch or config.data.batch
    each = f"{step.flops / step.batch / 1e9:.3g} GFLOP, {step.bytes / step.batch / 1e6:.3g} MB"
    print(f"{args.config}: {step.parameters:,} parameters; per example {each} of memory traffic, "
          f"{step.example_bytes:,} bytes and {1e6 * step.read_seconds:.3g} us of input; "
          f"{args.chip}, {args.utilisation:.0%} of the peak, {args.cores} cores\n")  # fmt: skip
    print(f"Batch of {batch} split over the chips:\n")
    print(table(step, chip, batch, False, args.utilisation, args.cores))
    print(f"\nBatch of {config.data.batch} on every chip:\n")
    print(table(step, chip, config.data.batch, True, args.utilisation, args.cores))


if __name__ == "__main__":
    main()

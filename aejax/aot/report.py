"""`aejax check --topology`: what the compiled step needs of each chip, and a bound on its speed."""

import argparse
import json
import pathlib
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from aejax.aot import analyse
from aejax.aot.topology import GIB, Chip, Topology, devices, parse
from aejax.errors import UserError
from aejax.files import JsonObject

if TYPE_CHECKING:
    from aejax.aot.compile import Compiled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `aejax check` that compile for devices of other machines."""
    group = parser.add_argument_group("compile for devices that this machine does not have")
    group.add_argument("--topology", metavar="NAME",
                       help="v5e:4x4, v5litepod-16, v5p:2x2x4, gpu:h100:1x1x8, ...")  # fmt: skip
    group.add_argument(
        "--slices", type=int, default=1, metavar="N", help="number of such slices (default 1)"
    )
    group.add_argument(
        "--batch", metavar="N", help='examples of a step, or "auto": as many as fit into memory'
    )
    group.add_argument("--no-data", type=int, metavar="N",
                       help="use N black images of data.crop or data.size, if this machine does "
                       "not have the data")  # fmt: skip
    group.add_argument(
        "--save", metavar="DIR", help="save the text of the program, and the table as JSON"
    )


def run_command(args: argparse.Namespace) -> int:
    """Compiles the step, prints the report and saves it; returns the exit status 0."""
    topology = parse(args.topology, args.slices)
    if args.slices < 1:
        raise UserError(f"--slices {args.slices}: at least 1")
    absent_devices = devices(topology)  # before anything asks JAX for its own devices

    from aejax import config as configs
    from aejax.aot import compile as aot
    from aejax.training.build import build

    config = configs.load(args.config, args.overrides)
    if args.no_data:
        parts = aot.parts_without_data(config, args.no_data)
    else:
        parts = build(config, args.data_dir)
    try:
        if args.batch == "auto":
            compiled = aot.largest_batch(parts, topology, absent_devices)
        else:
            batch = _batch(args.batch, config, len(absent_devices))
            compiled = aot.compile_step(parts, absent_devices, batch)
    finally:
        parts.pipeline.close()
    table = measure(compiled, topology, config.train.mode)
    print(text(table, args.config))
    if args.save:
        save(pathlib.Path(args.save), compiled, table)
        print(f"\nsaved in {args.save}: program.txt (HLO), table.json")
    return 0


def _batch(asked: str | None, config: ConfigDict, devices: int) -> int:
    """The batch to compile for: `asked`, or else the config's, rounded up to a multiple of the
    devices and micro-batches.

    Raises:
      UserError: `asked` is not a positive number.
    """
    if asked:
        if not (asked.isdigit() and int(asked)):
            raise UserError(f'--batch {asked} is neither a number of examples nor "auto"')
        return int(asked)
    unit = devices * config.optim.accumulate
    batch = -(-config.data.batch // unit) * unit
    if batch != config.data.batch:
        print(f"data.batch = {config.data.batch} is not divisible by {devices} devices x "
              f"{config.optim.accumulate} micro-batches: compiled for {batch}; set "
              f"--config.data.batch={batch} for `aejax train` too\n")  # fmt: skip
    return batch


def measure(compiled: "Compiled", topology: Topology, mode: str) -> JsonObject:
    """What the report says of a compiled step, for JSON: counts, bytes, seconds and FLOPs.

    Memory, FLOPs, bytes and collectives are per device; `batch`, `parameters` and `state_bytes`
    are of the whole model.
    """
    program = compiled.program
    hlo = program.as_text() or ""
    memory, cost = analyse.memory(program), analyse.cost(program)
    # The compiler counts the body of a loop once: in a loop over steps that is one step already.
    counted_steps = compiled.steps if analyse.loops(hlo) == 0 else 1
    cost = {name: value / counted_steps for name, value in cost.items()}
    room = topology.chip.hbm / topology.chip.devices
    table = {
        "topology": topology.name,
        "slices": topology.slices,
        "chips": topology.chips,
        "hosts": topology.hosts,
        "mode": mode,
        "batch": compiled.batch,
        "steps_per_dispatch": compiled.steps,
        "parameters": compiled.parameters,
        "state_bytes": compiled.state_bytes,
        "example_bytes": compiled.example_bytes,
        "memory": memory | {"room": int(room), "share": memory["peak"] / room},
        "flops": cost["flops"],
        "bytes": cost["bytes"],
        "collectives": analyse.by_kind(analyse.collectives(hlo)),
        "channels": len({c.channel for c in analyse.collectives(hlo)}),
        "padding": analyse.padding(hlo),
        "products": analyse.products(hlo),
        "loops": analyse.loops(hlo),
        "float64": analyse.has_float64(hlo),
        "trace_seconds": compiled.seconds[0],
        "compile_seconds": compiled.seconds[1],
        "versions": _versions(topology),
    }
    return table | {"estimate": estimate(table, topology)}


def estimate(table: JsonObject, topology: Topology) -> dict[str, float]:
    """A roofline estimate of one step in seconds: a lower bound, which most programs exceed two to
    four times.

    compute = FLOPs / peak, memory = bytes / memory bandwidth, wire = bytes sent / bandwidth of the
    links (between slices: of the hosts' network); step = max(compute, memory) + wire, as if no
    communication overlapped with computation.
    """
    chip, each = topology.chip, topology.chip.devices
    compute = table["flops"] * each / chip.peak
    memory = table["bytes"] * each / chip.memory
    rows = table["collectives"]
    sent = sum(row["sent"] for kind, row in rows.items() if kind != "slices") * each
    across = rows.get("slices", {"sent": 0.0})["sent"] * each * min(chip.host, topology.chips)
    wire = sent / topology.links + across / chip.network
    step = max(compute, memory) + wire
    return {
        "compute": compute,
        "memory": memory,
        "wire": wire,
        "step": step,
        "examples_per_second": table["batch"] / step,
        "examples_per_second_per_host": table["batch"] / step / topology.hosts,
        "host_bytes_per_second": table["batch"] / step / topology.hosts * table["example_bytes"],
    }


def text(table: JsonObject, config: str) -> str:
    """The report as it is printed."""
    memory, bound, chip = table["memory"], table["estimate"], parse_chip(table)
    mib = lambda n: f"{n / (1 << 20):,.1f} MiB"  # noqa: E731
    slices = f" x {table['slices']} slices" if table["slices"] > 1 else ""
    lines = [
        f"{config} compiled for {table['topology']}{slices}: {table['chips']} chips on "
        f"{table['hosts']} host(s), {table['mode']}, batch {table['batch']:,}, "
        f"{table['steps_per_dispatch']} step(s) per dispatch; never run on it",
        "",
        f"memory      {mib(memory['peak'])} of {memory['room'] / GIB:.0f} GiB per device "
        f"({memory['share']:.1%}): arguments {mib(memory['arguments'])}, temporaries "
        f"{mib(memory['temporaries'])}, code {mib(memory['code'])}; of the "
        f"{mib(memory['outputs'])} of results {mib(memory['shared'])} reuse memory of arguments",
        f"work        {table['flops'] / 1e9:,.4g} GFLOP and {table['bytes'] / 1e6:,.4g} MB of "
        f"memory traffic per device and step; {table['parameters']:,} parameters",
    ]
    for kind, row in table["collectives"].items():
        lines.append(
            f"{'exchange' if kind == next(iter(table['collectives'])) else '':<11} "
            f"{int(row['count'])} {kind}: {row['bytes'] / 1e6:,.4g} MB "
            f"({row['bytes'] / table['parameters']:.2f} bytes per parameter), "
            f"{row['sent'] / 1e6:,.4g} MB sent by a chip"
        )
    if not table["collectives"]:
        lines.append("exchange    none")
    lines.append(f"padding     buffers take {table['padding']['ratio']:.2f} x their bytes; worst:")
    for row in table["padding"]["worst"]:
        lines.append(
            f"{'':<11} {row['buffers']} of {row['shape']}: {row['padded'] / 1e6:,.4g} MB for "
            f"{row['logical'] / 1e6:,.4g} MB ({row['padded'] / row['logical']:.1f} x)"
        )
    products = ", ".join(f"{n} {name}" for name, n in table["products"].items())
    lines += [
        f"products    {products or 'none'}",
        f"loops       {table['loops']} while; float64: {'yes' if table['float64'] else 'none'}",
        f"compiled in {table['compile_seconds']:.1f} s (traced in {table['trace_seconds']:.1f} s)",
        "",
        f"estimate    {bound['step'] * 1e3:,.3g} ms per step, {bound['examples_per_second']:,.0f} "
        f"examples/s at best: compute {bound['compute'] * 1e3:.3g} ms at the peak of "
        f"{chip.peak / 1e12:.0f} TFLOP/s (bf16), memory {bound['memory'] * 1e3:.3g} ms at "
        f"{chip.memory / 1e9:,.0f} GB/s, links {bound['wire'] * 1e3:.3g} ms at "
        f"{chip.links / 1e9:.0f} GB/s per chip (half on axes that are no ring), not overlapped",
        f"{'':<11} input: {bound['examples_per_second_per_host']:,.0f} examples/s and "
        f"{bound['host_bytes_per_second'] / 1e6:,.3g} MB/s from each host",
        f"{'':<11} A bound, not a measurement. Figures of the chip: {chip.source}",
    ]
    return "\n".join(lines)


def parse_chip(table: JsonObject) -> Chip:
    """The kind of chip that a table was made for."""
    return parse(table["topology"]).chip


def save(folder: pathlib.Path, compiled: "Compiled", table: JsonObject) -> None:
    """Writes program.txt and table.json.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "program.txt").write_text(compiled.program.as_text() or "")
        (folder / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    except OSError as e:
        raise UserError(f"--save {folder}: {e.strerror or e}") from e


def _versions(topology: Topology) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("jax", "jax-cuda13-plugin" if topology.is_gpu else "libtpu", "flax", "optax"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "?"
    return versions

"""aejax train, check, eval and info."""

import argparse
import dataclasses
import json
import os
import pathlib
import re

from aejax import files
from aejax.cli import Verb, add_data_dir, command_line
from aejax.errors import UserError
from aejax.result import Result


def _config_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("--config", required=required, metavar="FILE[:arg]", help="experiment file")
    add_data_dir(parser)
    parser.usage = "%(prog)s --config FILE[:arg] [--config.a.b=value ...] [options]"


# --- train ----------------------------------------------------------------------------------------


def _train_arguments(parser):
    _config_arguments(parser, required=False)
    parser.add_argument("--workdir", required=True, help="folder of the run; an old one is resumed")
    parser.add_argument(
        "--from", dest="start", default="", metavar="MODEL",
        help="fine-tune: start from the variables of a run, a shipped name or a .safetensors file",
    )  # fmt: skip
    parser.add_argument(
        "--accept-data", action="store_true", help="resume although the data have changed"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    parser.usage = (
        "%(prog)s --config FILE[:arg] --workdir DIR [--config.a.b=value ...] [options]\n"
        "       %(prog)s --workdir DIR '--config.train.length=50 epochs'    (longer, resumed)\n"
        "       %(prog)s --from MODEL --workdir DIR [--config.a.b=value ...]    (fine-tuning)"
    )


def _train_config(args):
    """The config of --config; without it, that of the run in --workdir, or of --from."""
    from aejax import config as configs
    from aejax.training.workdir import read_config

    overrides = list(args.overrides)
    if args.start:
        overrides.append(f"--config.model.start={args.start}")
    if args.config:
        return configs.load(args.config, overrides)
    if (pathlib.Path(args.workdir) / "config.json").is_file():
        return configs.apply_overrides(read_config(args.workdir), overrides)
    if args.start:
        from aejax.loading import load

        config = load(args.start).config
        with config.ignore_type(), config.unlocked():
            config.model.start_only = ""
        return configs.apply_overrides(config, overrides)
    raise UserError(f"{args.workdir} holds no run to resume; give --config FILE[:arg]")


def _train(args) -> int:
    from aejax.cluster import processes

    config = _train_config(args)
    processes.initialise()
    import jax

    from aejax.training.run import train

    result = train(
        config,
        args.workdir,
        data_dir=args.data_dir,
        command=command_line(),
        overrides=dict(o.removeprefix("--config.").split("=", 1) for o in args.overrides),
        quiet=args.quiet,
        accept_data=args.accept_data,
    )
    if jax.process_index() == 0:
        print(summary(result))
        print(f"  {pathlib.Path(args.workdir) / 'result.json'}")
    return 0


def summary(result: Result) -> str:
    """A finished run in a few lines."""
    metrics = "  ".join(f"{k.removeprefix('test/')} {v:.5g}" for k, v in result.metrics.items())
    spent = ", ".join(
        f"{name} {s:.1f}" for name, s in sorted(result.seconds.items(), key=lambda i: -i[1])
        if name != "total" and s >= 0.05
    )  # fmt: skip
    lines = [
        f"step {result.steps} ({result.stopped_by}), {result.parameters:,} parameters, "
        f"{result.examples_per_sec:,.0f} examples/s",
        f"on {result.examples:,} examples: {metrics}",
        f"{result.seconds['total']:.1f} s: {spent}",
    ]
    cost = result.cost
    if "flops_per_step" in cost:
        memory = f", {cost['bytes'] / 2**20:,.0f} MiB" if "bytes" in cost else ""
        lines.insert(1, f"{cost['flops_per_step'] / 1e9:.3g} GFLOP a step{memory}")
    return "\n".join("  " + line for line in lines)


train = Verb(_train_arguments, _train)

# --- check ----------------------------------------------------------------------------------------


def _check_arguments(parser):
    from aejax.aot.report import add_arguments

    _config_arguments(parser)
    add_arguments(parser)


def _check(args) -> int:
    if args.topology:
        from aejax.aot.report import run_command

        return run_command(args)

    import jax

    from aejax import config as configs
    from aejax.training.build import build, build_evaluator, latent_size
    from aejax.training.sharding import of_config

    config = configs.load(args.config, args.overrides)
    parts = build(config, args.data_dir)
    evaluator = build_evaluator(parts)
    sharding = of_config(config.train)
    abstract = parts.abstract()
    _print_parameters(abstract.params)
    source, shape = parts.pipeline.source, parts.pipeline.image_shape
    numbers, latent = shape[0] * shape[1] * shape[2], latent_size(parts)
    code = f", h of {latent:,} (compression {numbers / latent:.3g})" if latent else ""
    print(f"\ndata     {source.name}: {parts.pipeline.n:,} images, x of {shape}{code}")
    print(f"         {parts.splits.line}")
    print(f"length   {parts.steps:,} steps of {config.data.batch}, {config.train.mode} on "
          f"{len(sharding.devices)} {jax.devices()[0].platform} device(s)")  # fmt: skip
    for note in objective_notes(config):
        print(f"note     {note}")
    state_bytes = sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(abstract))
    _try_steps(parts, sharding, state_bytes)
    parts.pipeline.close()
    evaluator.pipeline.close()
    return 0


def _print_parameters(params) -> None:
    """A table of name, shape and count of every parameter."""
    import jax
    from rich.console import Console
    from rich.table import Table

    from aejax.training.build import count_parameters

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, side in (("parameter", "left"), ("shape", "left"), ("count", "right")):
        table.add_column(column, justify=side)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        table.add_row(name, "x".join(map(str, leaf.shape)), f"{leaf.size:,}")
    table.add_row("all", "", f"{count_parameters(params):,}", style="bold")
    Console().print(table)


def _try_steps(parts, sharding, state_bytes: int) -> None:
    """Compiles the step, prints memory and cost, runs it twice and prints its loss and speed.

    Raises:
      UserError: the gradient is not finite.
    """
    import time

    import jax

    from aejax.training.prepared import cost_of
    from aejax.training.step import make_dispatch

    step = parts.step_on(sharding)  # first: it refuses a batch that does not divide
    state, resident, key = parts.placed(sharding)
    batch = parts.pipeline.dispatch(0, 1)
    start = time.perf_counter()
    dispatch = make_dispatch(step, 1)
    compiled = sharding.compile(dispatch, state, batch, resident, key)
    batch = sharding.place_batch(batch)
    compile_seconds = time.perf_counter() - start
    cost = cost_of(compiled, 1, len(sharding.devices))
    in_step = f", {cost['bytes'] / 2**20:,.1f} MiB in a step" if "bytes" in cost else ""
    print(f"memory   {state_bytes / 2**20:,.1f} MiB of state{in_step}")
    if "flops_per_step" in cost:
        print(f"cost     {cost['flops_per_step'] / 1e9:,.3g} GFLOP a step")
    for _ in range(2):  # the first dispatch is slower
        start = time.perf_counter()
        state, metrics = compiled(state, batch, resident, key)
        jax.block_until_ready(state)
        step_seconds = time.perf_counter() - start
    metrics = {name: float(v) for name, v in jax.device_get(metrics).items()}
    if metrics["skipped"]:
        raise UserError("the first step has no finite gradient; lower optim.lr or look at the data")
    print(
        f"step     loss {metrics['loss']:.5g}, {parts.config.data.batch / step_seconds:,.0f} "
        f"examples/s, compiled in {compile_seconds:.1f} s; the run takes about "
        f"{parts.steps * step_seconds / 60:,.1f} min"
    )


def objective_notes(config) -> list[str]:
    """Warnings about an objective that is allowed but known to fail."""
    losses = {name for name, weight in config.objective.loss.items() if weight}
    if losses and losses <= {"ssim", "ms_ssim"}:
        return [
            f"{' and '.join(sorted(losses))} alone does not fix the mean colour: it drifts, to "
            "yellow for example; add --config.objective.loss.mae=0.2"
        ]
    return []


check = Verb(_check_arguments, _check)

# --- eval -----------------------------------------------------------------------------------------


def _evaluate_arguments(parser):
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--checkpoint", default="last", help="last, best, or a step")
    parser.add_argument(
        "--source", metavar="SOURCE", help="another set, such as folder:photos (default: the run's)"
    )
    parser.add_argument("--split", default="", help="of the set; default: the run's, or all of it")
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="default: those of the run's config"
    )
    parser.add_argument("--out", help="JSON file (default: eval.json in the folder, or a name "
                        "with the set and the split in it)")  # fmt: skip
    files.add_force(parser)
    add_data_dir(parser)


def _evaluate(args) -> int:
    from aejax.cluster import processes

    processes.initialise()
    import jax

    from aejax import config as configs
    from aejax.loading import load
    from aejax.machine.provenance import provenance

    if args.out:
        files.check_outputs([args.out], force=args.force)
    model = load(args.workdir, args.checkpoint, data_dir=args.data_dir)
    config = configs.apply_overrides(model.config, args.overrides)
    model = dataclasses.replace(model, config=config)
    workdir = pathlib.Path(args.workdir)
    pipeline = model.pipeline(args.source, args.split, args.data_dir)
    result = model.measure(pipeline, args.metrics, config.eval.examples)
    is_own = args.source is None and not args.split
    if is_own and workdir.is_dir():
        result.write_pictures(workdir)
    report = {
        "workdir": str(args.workdir),
        "step": model.step,
        "examples": result.count,
        "metrics": {f"test/{k}": v for k, v in result.metrics.items()},
        "latent": result.latent,
        "data": {"source": pipeline.source.name, "fingerprint": pipeline.source.fingerprint},
        "per_example": {k: v.tolist() for k, v in result.per_example.items()},
        **provenance(command_line()),
        "config": json.loads(configs.to_json(config)),
    }
    if jax.process_index() == 0:
        slug = "" if is_own else "-" + re.sub(r"[^\w.]+", "-", pipeline.source.name).strip("-")
        folder = workdir if workdir.is_dir() else pathlib.Path()
        out = pathlib.Path(args.out or folder / f"eval{slug}.json")
        files.write_atomically(out, json.dumps(report, indent=1) + "\n")
        for name, value in result.metrics.items():
            print(f"  {name:<10} {value:.6g}")
        print(f"  {result.count:,} of {pipeline.source.name}, step {model.step}: {out}")
    return 0


evaluate = Verb(_evaluate_arguments, _evaluate)

# --- info -----------------------------------------------------------------------------------------


def _info(args) -> int:
    import importlib.util

    from aejax.export import onnx
    from aejax.machine import provenance

    for name, version in provenance.versions().items():
        print(f"{name:<18} {version}")
    print(f"{'machine':<18} {provenance.machine()}")
    for name, value in provenance.describe().items():
        print(f"{name:<18} {value}")
    print(f"{'data folder':<18} {os.environ.get('AEJAX_DATA') or 'not set (AEJAX_DATA)'}")
    made = "" if onnx.is_made() else " (not made yet; aejax export --onnx makes it)"
    print(f"{'ONNX environment':<18} {onnx.folder()}{made}")
    extras = ("wandb", "optuna", "bm3d", "torch", "keras", "imagecodecs", "tensorboardX")
    extras += ("qwix", "huggingface_hub")
    there = [name for name in extras if importlib.util.find_spec(name)]
    print(f"{'extras installed':<18} {', '.join(there) or 'none'}")
    return 0


info = Verb(lambda parser: None, _info)

"""From a config to a finished, measured run in a folder."""

import dataclasses
import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aejax.config import Clock, to_json, with_defaults
from aejax.data.pipeline import make_pipeline
from aejax.data.splits import Splits, open_splits
from aejax.errors import UserError
from aejax.evaluate import Evaluation, Evaluator
from aejax.metrics.image import metric_functions
from aejax.nets.autoencoder import build_model
from aejax.objective import build_objective
from aejax.training import optim
from aejax.training.checkpoint import Checkpoints
from aejax.training.log import Log, Stopwatch
from aejax.training.loop import Job, every, run_loop
from aejax.training.sharding import Sharding, of_config
from aejax.training.state import TrainState, create
from aejax.training.step import make_dispatch, make_train_step


@dataclasses.dataclass
class Parts:
    """A config, made: everything but the devices."""

    config: ConfigDict
    pipeline: Any
    model: Any
    objective: Any
    steps: int
    schedule: Any
    tx: Any
    splits: Splits

    @property
    def clock(self) -> Clock:
        return Clock(self.config.data.batch, self.pipeline.n)

    def step_on(self, sharding: Sharding) -> Any:
        """The step of this config on those devices; see step.py.

        Raises:
          UserError: the batch does not divide.
        """
        optim = self.config.optim
        sharding.check_batch(self.config.data.batch, optim.accumulate)
        return make_train_step(
            self.objective,
            self.model,
            self.tx,
            self.schedule,
            sharding,
            self.pipeline.images,
            accumulate=optim.accumulate,
            ema=optim.ema,
            only=optim.only,
        )

    def placed(self, sharding: Sharding) -> tuple[TrainState, Any, Any]:
        """(first state, resident data, key) on the devices."""
        resident = self.pipeline.resident
        return (
            sharding.place(self.init()),
            None if resident is None else sharding.replicate(resident),
            sharding.replicate_key(self.config.seed + 1),
        )

    def init(self) -> TrainState:
        """The state before the first step: a function of the config and its seed alone."""
        config, key = self.config, jax.random.key(self.config.seed)
        example = self.example(2)

        def make():
            return self.init_variables(example, key)

        # It runs once: on a CPU, compiling it well takes seconds and earns nothing.
        quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
        variables = jax.jit(make, compiler_options=quick)()
        if hasattr(self.objective, "initialise"):
            images = example
            if config.model.init == "pca":  # crops: more of them than there are files
                images = self.example(1024 if config.data.crop else min(self.pipeline.n, 4096))
            variables = self.objective.initialise(self.model, variables, images["image"])
        return create(variables, self.tx, config.optim.ema)

    def init_variables(self, example, key):
        """Flax's `init` of the model with what its objective tells it."""
        cond = None
        if hasattr(self.objective, "conditions"):
            cond = self.objective.conditions(example, key, True)
        rngs = {"params": key, "bottleneck": key}
        return self.model.init(rngs, example["image"], cond, train=False)

    def example(self, count: int) -> dict[str, Any]:
        """The first `count` training examples as the step sees them."""
        found, step = [], 0
        while sum(len(f["image"]) for f in found) < count:
            part = jax.tree.map(lambda v: v[0], self.pipeline.dispatch(step, 1))
            key = jax.random.fold_in(jax.random.key(0), step)
            found.append(self.pipeline.images(self.pipeline.resident, part, key, True))
            step += 1
        return jax.tree.map(lambda *v: jnp.concatenate(v)[:count], *found)

    def abstract(self) -> TrainState:
        """Shapes and types of the state, without computing it."""
        example = jax.eval_shape(lambda: self.example(2))
        example = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in example.items()}

        def make(example):
            variables = self.init_variables(example, jax.random.key(0))
            return create(variables, self.tx, self.config.optim.ema)

        return jax.eval_shape(make, example)


def build(config: ConfigDict, data_dir: str | None = None, data: Any = None) -> Parts:
    """Resolves a config into its parts.

    Args:
      data: NumPy images, or (images, labels), in place of config.data.source; see data/arrays.py.

    Raises:
      UserError: whatever in it cannot be.
    """
    from aejax.nets import ops

    ops.set_forms(**dict(config.ops))
    splits = open_splits(config, data_dir, data)
    pipeline = make_pipeline(
        config,
        training=True,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        splits=splits,
    )
    splits = dataclasses.replace(splits, train=pipeline.source)
    model = build_model(config.model, pipeline.example_shape)
    objective = build_objective(config)
    metric_functions(config.eval.metrics, pipeline.example_shape)  # said before anything starts
    clock = Clock(config.data.batch, pipeline.n)
    steps = clock.steps(config.train.length, "train.length")
    schedule = optim.build_schedule(config.optim, steps, clock)
    tx = optim.build_optimiser(config.optim, schedule)
    return Parts(config, pipeline, model, objective, steps, schedule, tx, splits)


def build_evaluator(parts: Parts) -> Evaluator:
    """The evaluator of the config's evaluation split.

    Raises:
      UserError: the model cannot be evaluated on it; see Evaluator.check.
    """
    config = parts.config
    pipeline = make_pipeline(
        config,
        training=False,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        splits=parts.splits,
    )
    evaluator = Evaluator(
        parts.objective,
        parts.model,
        pipeline,
        config.eval.metrics,
        config.eval.batch or config.data.batch,
        config.eval.pictures,
        of_config(config.train).local_devices,
    )
    evaluator.check(parts.abstract().variables, parts.pipeline.example_shape, config.eval.best)
    return evaluator


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    data_dir: str | None = None,
    command: str = "",
    overrides: dict[str, Any] | None = None,
    quiet: bool = False,
    data: Any = None,
) -> dict[str, Any]:
    """Trains what `config` describes in `workdir`, from wherever that stands, and measures it.

    Args:
      data: NumPy images [n, h, w(, c)], or (images, labels), in place of config.data.source.

    Returns:
      what is written to workdir/result.json: metrics, sizes, seconds, provenance.

    Raises:
      UserError: the config or the folder cannot be used.
      SavedAndStopped: a signal came, and the run can be continued.
    """
    watch = Stopwatch()
    workdir = pathlib.Path(workdir)
    done = claim(workdir, config, overrides or {}, command)
    if done is not None:
        return done

    with watch("init"):
        parts = build(config, data_dir, data)
        evaluator = build_evaluator(parts)
        sharding = of_config(config.train)
        step = parts.step_on(sharding)
        checkpoints = Checkpoints(
            workdir.resolve() / "checkpoints", config.checkpoint.keep, config.eval.best
        )
        state = None
        if checkpoints.steps():
            state = checkpoints.restore(parts.abstract(), sharding)
        if state is None:
            state = sharding.place(parts.init())
        start = int(state.step)
        resident = parts.pipeline.resident
        resident = None if resident is None else sharding.replicate(resident)
        key = sharding.replicate_key(config.seed + 1)
        if not quiet and jax.process_index() == 0:
            splits = dataclasses.replace(parts.splits, test=evaluator.pipeline.source)
            print(splits.line, file=sys.stderr, flush=True)
        log = Log(
            str(workdir),
            tensorboard=config.log.tensorboard,
            wandb=config.log.wandb,
            config=json.loads(to_json(config)),
        )
    compiled: dict[int, Any] = {}
    cost: dict[str, Any] = {}

    def dispatch(count: int):
        """The program for `count` steps; the last dispatch of a run may be a shorter one."""
        if count not in compiled:
            with watch("compile"):
                batch = parts.pipeline.dispatch(start, count)
                body = make_dispatch(step, count)
                compiled[count] = sharding.compile(body, state, batch, resident, key)
                if not cost:
                    cost.update(cost_of(compiled[count], count, len(sharding.devices)))
        return compiled[count]

    def evaluate(state: TrainState, examples: int = config.eval.examples) -> dict[str, float]:
        variables = sharding.local(state.best_variables)
        found = evaluator(variables, config.seed, examples)
        write_pictures(found, workdir)
        log.images(int(state.step), sheets(found))
        evaluate.last = found
        return found.metrics

    clock = parts.clock
    job = Job(
        dispatch=dispatch,
        pipeline=parts.pipeline,
        resident=resident,
        sharding=sharding,
        checkpoints=checkpoints,
        log=log,
        watch=watch,
        evaluate=evaluate if config.eval.every else None,
        key=key,
        total=parts.steps,
        batch=config.data.batch,
        steps_per_dispatch=config.train.steps_per_dispatch,
        eval_every=clock.steps(config.eval.every, "eval.every") if config.eval.every else 1,
        log_every=every(config.log.every, clock.steps, "log.every"),
        save_every=every(config.checkpoint.every, clock.steps, "checkpoint.every"),
        best=config.eval.best,
        stop_loss=config.train.stop_loss,
        patience=config.train.patience,
        max_skipped=config.train.max_skipped,
        profile=config.train.profile,
        workdir=str(workdir),
        quiet=quiet,
    )
    try:
        state, summary = run_loop(job, state, start)
        with watch("evaluate"):
            metrics = evaluate(state)
        log.write(int(state.step), {f"eval/{name}": v for name, v in metrics.items()})
        with watch("checkpoint"):
            checkpoints.save(state, metrics)
            checkpoints.wait()
        best = checkpoints.best_step()
    finally:
        parts.pipeline.close()
        evaluator.pipeline.close()
        log.close()
        checkpoints.close()
    result = {
        "id": workdir.name,
        "overrides": overrides or {},
        "task": config.task,
        "metrics": {f"test/{name}": v for name, v in metrics.items()},
        "examples": evaluate.last.count,
        "data": {
            "train": parts.pipeline.source.name,
            "fingerprint": parts.pipeline.source.fingerprint,
        },
        "latent": evaluate.last.latent,
        "best_step": best,
        "parameters": count_parameters(state.params),
        "latent_size": latent_size(parts),
        "input_size": math.prod(parts.pipeline.example_shape),
        **summary,
        "cost": cost,
        "seconds": watch.report(),
        **provenance(command),
        "config": json.loads(to_json(config)),
    }
    if jax.process_index() == 0:
        write_atomically(workdir / "result.json", json.dumps(result, indent=1) + "\n")
    return result


def claim(
    workdir: pathlib.Path, config: ConfigDict, overrides: dict[str, Any], command: str
) -> dict[str, Any] | None:
    """Makes the folder this config's; its result if the run was finished before.

    Raises:
      UserError: it is another config's folder, or it cannot be written.
    """
    file, text = workdir / "config.json", to_json(config)
    try:
        if file.exists() and file.read_text() != text:
            old, new = with_defaults(json.loads(file.read_text())), json.loads(text)
            if old != new:
                raise UserError(
                    f"{workdir} holds a run of another config ({_first_difference(old, new)}); "
                    "use another --workdir"
                )
        result = workdir / "result.json"
        if result.exists():
            return json.loads(result.read_text())
        if jax.process_index() == 0:
            workdir.mkdir(parents=True, exist_ok=True)
            write_atomically(file, text)
            write_atomically(
                workdir / "provenance.json",
                json.dumps({"overrides": overrides} | provenance(command), indent=1) + "\n",
            )
    except OSError as e:
        raise UserError(f"cannot use {workdir} as workdir: {e.strerror or e}") from e
    return None


def _first_difference(old: Any, new: Any, prefix: str = "") -> str:
    for name in sorted({*old, *new}):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            if a != b:
                return _first_difference(a, b, f"{prefix}{name}.")
        elif a != b:
            return f"{prefix}{name} is {a!r} there and {b!r} here"
    return "none"


def write_atomically(path: pathlib.Path, text: str) -> None:
    """All of it or nothing: a reader, or the next start, never sees half a file."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(path)


def provenance(command: str = "") -> dict[str, Any]:
    """Command, versions, machine, date, git revision: what makes a number worth citing."""
    return {
        "command": command or " ".join(sys.argv),
        "versions": versions(),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "git": revision(),
    }


def versions() -> dict[str, str]:
    """Python and the packages that decide a result."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("aejax", "jax", "flax", "optax", "orbax-checkpoint", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "source"
    return found


def machine() -> str:
    """The devices and the processor, in one line."""
    cpu = platform.processor() or platform.machine()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    kinds = {d.device_kind for d in jax.devices()}
    devices = f"{jax.device_count()} x {'/'.join(sorted(kinds))}"
    return f"{devices}, {os.cpu_count()} cores, {cpu}"


def revision() -> str:
    """Git revision of the code, with + for uncommitted changes; '' outside a checkout."""
    here = pathlib.Path(__file__).parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return run.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def count_parameters(params: Any) -> int:
    return sum(math.prod(np.shape(p)) for p in jax.tree.leaves(params))


def latent_size(parts: Parts) -> int:
    """Numbers in h for one image; 0 for a model that has no `encode`."""
    if not hasattr(parts.model, "encode"):
        return 0
    shape = jax.ShapeDtypeStruct((1, *parts.pipeline.example_shape), jnp.float32)
    variables = parts.abstract().variables
    h = jax.eval_shape(lambda v, x: parts.model.apply(v, x, method="encode"), variables, shape)
    return sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(h))


def cost_of(compiled: Any, steps: int, devices: int) -> dict[str, Any]:
    """FLOPs of a step over all devices and peak bytes of one, as the compiler counts them."""
    cost = {}
    try:
        analysis = compiled.cost_analysis()
        analysis = analysis[0] if isinstance(analysis, list) else analysis
        cost["flops_per_step"] = float(analysis["flops"]) / steps * devices
        memory = compiled.memory_analysis()
        cost["bytes"] = int(
            memory.temp_size_in_bytes
            + memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
        )
    except Exception:  # not every backend counts
        pass
    return cost


def sheets(found: Evaluation) -> dict[str, np.ndarray]:
    """Contact sheets: originals over reconstructions, the best and the worst cases."""
    from aejax.pictures import over

    return {name: over(rows) for name, rows in found.pictures.items() if rows}


def write_pictures(found: Evaluation, workdir: pathlib.Path) -> None:
    """pictures/first.png, best.png, worst.png; the first examples (of photos, crops) as arrays."""
    if jax.process_index():
        return
    from aejax.pictures import common_crop, save

    folder = workdir / "pictures"
    try:
        folder.mkdir(exist_ok=True)
        for name, sheet in sheets(found).items():
            save(folder / f"{name}.png", sheet)
        first = found.pictures["first"]
        if first:
            arrays = {n: common_crop([p[n] for p in first]) for n in first[0]}
            np.savez_compressed(folder / "examples.npz", **arrays)
    except OSError as e:
        import warnings

        warnings.warn(f"pictures cannot be written ({e}); the run goes on", stacklevel=2)

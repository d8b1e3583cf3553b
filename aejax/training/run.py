"""From a config to a finished, measured run in a folder."""

import contextlib
import dataclasses
import json
import math
import pathlib
import sys
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from aejax import files
from aejax.config import apply_overrides, current, to_json
from aejax.data.arrays import MEMORY
from aejax.errors import UserError
from aejax.evaluate import Evaluation, Evaluator
from aejax.machine.provenance import provenance
from aejax.result import Result, read_result
from aejax.training.build import Parts, build, build_evaluator, count_parameters, latent_size
from aejax.training.checkpoint import Checkpoints
from aejax.training.log import Log, Stopwatch
from aejax.training.loop import Job, every, run_loop
from aejax.training.sharding import Sharding, of_config
from aejax.training.state import TrainState
from aejax.training.step import make_dispatch
from aejax.training.workdir import Spec, changed_keys, has_more_to_do, held, record, unusable


@dataclasses.dataclass
class _Run:
    """A run in its folder, on its devices, with everything built."""

    parts: Parts
    sharding: Sharding
    step: Any
    evaluator: Evaluator
    spec: Spec
    state: TrainState
    note: dict[str, Any]  # of the loop, as the checkpoint has it
    watch: Stopwatch
    workdir: pathlib.Path
    checkpoints: Checkpoints | None = None  # these two from `claim` on
    log: Log | None = None
    evaluation: Evaluation | None = None  # the last one
    cost: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.start = int(self.state.step)
        resident = self.parts.pipeline.resident
        self.resident = None if resident is None else self.sharding.replicate(resident)
        self.key = self.sharding.replicate_key(self.parts.config.seed + 1)
        self.compiled: dict[int, Any] = {}

    def claim(self, overrides: dict[str, Any], command: str, changed: dict[str, list[Any]]) -> None:
        """Makes the folder this run's.

        Raises:
          UserError: it cannot be written.
        """
        config = self.parts.config
        if jax.process_index() == 0:
            try:
                record(
                    self.workdir,
                    config,
                    self.spec,
                    self.start,
                    overrides=overrides,
                    command=command,
                    changed=changed,
                )
            except OSError as e:
                raise unusable(self.workdir, e) from e
        self.checkpoints = Checkpoints(
            self.workdir.resolve() / "checkpoints", config.checkpoint.keep, config.eval.best
        )
        self.log = Log(
            str(self.workdir),
            tensorboard=config.log.tensorboard,
            wandb=config.log.wandb,
            config=json.loads(to_json(config)),
        )

    def dispatch(self, count: int) -> Any:
        """The program for `count` steps; the last dispatch of a run may be a shorter one."""
        if count not in self.compiled:
            with self.watch("compile"):
                self.compiled[count] = self.sharding.compile(
                    make_dispatch(self.step, count),
                    self.state,
                    self.parts.pipeline.dispatch(self.start, count),
                    self.resident,
                    self.key,
                )
                if not self.cost:
                    devices = len(self.sharding.devices)
                    self.cost.update(cost_of(self.compiled[count], count, devices))
        return self.compiled[count]

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Metrics of the averaged variables; pictures go to the folder and the log."""
        config = self.parts.config
        variables = self.sharding.local(state.best_variables)
        self.evaluation = self.evaluator(variables, config.seed, config.eval.examples)
        write_pictures(self.evaluation, self.workdir)
        self.log.images(int(state.step), sheets(self.evaluation))
        return self.evaluation.metrics

    def job(self, quiet: bool) -> Job:
        """What the loop is told."""
        config, clock = self.parts.config, self.parts.clock
        evaluation = config.eval.every
        return Job(
            dispatch=self.dispatch,
            pipeline=self.parts.pipeline,
            resident=self.resident,
            sharding=self.sharding,
            checkpoints=self.checkpoints,
            log=self.log,
            watch=self.watch,
            evaluate=self.evaluate if evaluation else None,
            key=self.key,
            total=self.parts.steps,
            batch=config.data.batch,
            steps_per_dispatch=config.train.steps_per_dispatch,
            eval_every=clock.steps(evaluation, "eval.every") if evaluation else 1,
            log_every=every(config.log.every, clock.steps, "log.every"),
            save_every=every(config.checkpoint.every, clock.steps, "checkpoint.every"),
            best=config.eval.best,
            note=self.note,
            stop_loss=config.train.stop_loss,
            patience=config.train.patience,
            max_skipped=config.train.max_skipped,
            profile=config.train.profile,
            workdir=str(self.workdir),
            quiet=quiet,
        )

    def close(self) -> None:
        """Ends threads, files and saves."""
        self.parts.pipeline.close()
        self.evaluator.pipeline.close()
        for part in (self.log, self.checkpoints):
            if part is not None:
                part.close()


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    data_dir: str | None = None,
    command: str = "",
    overrides: dict[str, Any] | None = None,
    quiet: bool = False,
    accept_data: bool = False,
    data: Any = None,
) -> Result:
    """Trains what `config` describes in `workdir`, from wherever that stands, and measures it.

    A run in the folder goes on if the config is the same but for keys that may change
    (workdir.CHANGEABLE); one that is finished goes on if it has become longer.

    Args:
      config: what an experiment's get_config returns.
      workdir: folder of the run. It becomes this config's only once everything could be built.
      data_dir: the data folder; default AEJAX_DATA.
      command, overrides: for the provenance and the tables of a study.
      quiet: no progress line.
      accept_data: go on although the data are not those that the run began with.
      data: NumPy images [n, h, w(, c)], or (images, labels), in place of config.data.source.

    Raises:
      UserError: the config, the data or the folder cannot be used, or another process trains there.
      SavedAndStopped: a signal came, and the run can be continued.

    >>> aejax.train(config, "runs/mine").metrics["test/psnr"]
    """
    watch = Stopwatch()
    config, workdir = current(config), pathlib.Path(workdir)
    if data is not None:
        config = apply_overrides(config, {"data.source": MEMORY})
    changed = changed_keys(workdir, config)
    finished = read_result(workdir)
    if finished is not None and not has_more_to_do(workdir, changed):
        return finished
    with held(workdir):
        changed = changed_keys(workdir, config)  # again: another process may just have ended
        with watch("init"):
            run = _open(config, workdir, watch, data_dir, data, accept_data, changed)
        try:
            if not quiet and jax.process_index() == 0:
                splits = dataclasses.replace(run.parts.splits, test=run.evaluator.pipeline.source)
                print(splits.line, file=sys.stderr, flush=True)
            run.claim(overrides or {}, command, changed)
            state, summary = run_loop(run.job(quiet), run.state, run.start)
            run.state = state  # the arrays of the first one were donated
            with watch("checkpoint"):  # first: what fails from here on loses nothing
                run.checkpoints.save(state, note=run.note)
                run.checkpoints.wait()
            with watch("evaluate"):
                metrics = run.evaluate(state)
            run.log.write(int(state.step), {f"eval/{name}": v for name, v in metrics.items()})
            with watch("checkpoint"):
                run.checkpoints.save(state, metrics, run.note)
                run.checkpoints.wait()
            best = run.checkpoints.best_step()
        finally:
            run.close()
        result = _result(run, metrics, best, summary, overrides or {}, command)
        if jax.process_index() == 0:
            files.write_atomically(workdir / "result.json", result.to_json())
    return result


def _open(
    config: ConfigDict,
    workdir: pathlib.Path,
    watch: Stopwatch,
    data_dir: str | None,
    data: Any,
    accept_data: bool,
    changed: dict[str, list[Any]],
) -> _Run:
    """Builds everything and compiles the first dispatch, so that what can be wrong with a config is
    found before the folder becomes its own. Writes nothing.

    Raises:
      UserError: as `train`.
    """
    with contextlib.ExitStack() as on_error:
        parts = build(config, data_dir, data)
        on_error.callback(parts.pipeline.close)
        sharding = of_config(config.train)
        step = parts.step_on(sharding)
        evaluator = build_evaluator(parts)
        on_error.callback(evaluator.pipeline.close)
        spec, before = Spec.of(parts.pipeline, evaluator.pipeline), Spec.read(workdir)
        if before is not None and not accept_data:
            before.check_same(spec, workdir)
        if before is not None and before != spec:
            changed["data"] = [dataclasses.asdict(s) for s in (before, spec)]
        state, note = _restored(parts, sharding, workdir)
        if state is None:
            state, note = sharding.place(parts.init()), {}
        if "train.length" in changed:  # patience begins anew, and whatever ended the run is over
            note |= {"worse": 0, "stopped_by": ""} if note else {}
        run = _Run(parts, sharding, step, evaluator, spec, state, note, watch, workdir)
        if run.start > parts.steps:
            raise UserError(
                f"{workdir} is at step {run.start}, beyond train.length = "
                f'"{config.train.length}" ({parts.steps} steps); give a longer one'
            )
        if run.start < parts.steps and not note.get("stopped_by"):
            run.dispatch(min(config.train.steps_per_dispatch, parts.steps - run.start))
        on_error.pop_all()
    return run


def _restored(
    parts: Parts, sharding: Sharding, workdir: pathlib.Path
) -> tuple[TrainState | None, dict[str, Any]]:
    """(state, note of the loop) of the newest whole checkpoint; (None, {}) if there is none."""
    folder = workdir.resolve() / "checkpoints"
    if not folder.is_dir():
        return None, {}
    saved = Checkpoints(folder, best=parts.config.eval.best, read_only=True)
    try:
        state = saved.restore(parts.abstract(), sharding) if saved.steps() else None
        return state, {} if state is None else saved.progress(int(state.step))
    finally:
        saved.close()


def _result(
    run: _Run,
    metrics: dict[str, float],
    best: int | None,
    summary: dict[str, Any],
    overrides: dict[str, Any],
    command: str,
) -> Result:
    parts, source = run.parts, run.parts.pipeline.source
    return Result(
        id=run.workdir.resolve().name,
        overrides=overrides,
        task=parts.config.task,
        metrics={f"test/{name}": v for name, v in metrics.items()},
        examples=run.evaluation.count,
        data={"train": source.name, "fingerprint": source.fingerprint},
        latent=run.evaluation.latent,
        best_step=best,
        parameters=count_parameters(run.state.params),
        latent_size=latent_size(parts),
        input_size=math.prod(parts.pipeline.example_shape),
        **summary,
        cost=run.cost,
        seconds=run.watch.report(),
        **provenance(command),
        config=json.loads(to_json(parts.config)),
    )


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

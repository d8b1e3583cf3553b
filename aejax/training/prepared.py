"""A run that is ready to train: everything is built, placed on the devices and compiled."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from aejax.config import to_json
from aejax.data.arrays import ArrayData
from aejax.errors import UserError
from aejax.result import Overrides
from aejax.training.build import Parts, build, build_evaluator
from aejax.training.checkpoint import Checkpoints
from aejax.training.evaluate import Evaluation, Evaluator
from aejax.training.log import Log, Stopwatch
from aejax.training.sharding import Dispatch, Sharding, of_config
from aejax.training.state import TrainState
from aejax.training.step import make_dispatch
from aejax.training.stopping import Stopping
from aejax.training.workdir import Changes, Spec, record, unusable


@dataclasses.dataclass
class PreparedRun:
    """Everything that a run needs, made by `prepare`. `claim` writes the first files of the folder.

    Attributes:
      parts: the objects that its config describes.
      sharding: its devices.
      step: the train step on these devices.
      spec: shape of the examples and fingerprints of the data as they are now.
      state, stopping: of the newest checkpoint, or of step 0; the loop updates them.
      watch: measures where the time goes.
      checkpoints, log: opened by `claim`.
      cost: FLOPs and bytes of the first program, as the compiler counts them.
    """

    parts: Parts
    sharding: Sharding
    step: Callable
    evaluator: Evaluator
    spec: Spec
    state: TrainState
    stopping: Stopping
    watch: Stopwatch
    workdir: pathlib.Path
    checkpoints: Checkpoints = dataclasses.field(init=False)
    log: Log = dataclasses.field(init=False)
    cost: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.start = int(self.state.step)
        resident = self.parts.pipeline.resident
        self.resident = None if resident is None else self.sharding.replicate(resident)
        self.key = self.sharding.replicate_key(self.parts.config.seed + 1)
        self.compiled: dict[int, Dispatch] = {}
        self._writers = contextlib.ExitStack()  # closes what `claim` opens

    def claim(self, overrides: Overrides, command: str, changed: Changes) -> None:
        """Writes config.json, spec.json and provenance.json; opens the log and the checkpoints.

        Raises:
          UserError: the folder cannot be written.
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
        self._writers.callback(self.checkpoints.close)
        self.log = Log(
            str(self.workdir),
            tensorboard=config.log.tensorboard,
            wandb=config.log.wandb,
            config=json.loads(to_json(config)),
        )
        self._writers.callback(self.log.close)

    def program(self, count: int) -> Dispatch:
        """The compiled program for `count` steps; the last one of a run may have fewer.

        (state, batch, resident, key) -> (state, metrics).
        """
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

    def evaluate(self) -> Evaluation:
        """Evaluates the averaged variables; writes pictures and metrics."""
        config, step = self.parts.config, int(self.state.step)
        variables = self.sharding.local(self.state.best_variables)
        evaluation = self.evaluator(variables, config.seed, config.eval.examples)
        evaluation.write_pictures(self.workdir)
        self.log.images(step, evaluation.sheets())
        self.log.write(step, {f"eval/{name}": v for name, v in evaluation.metrics.items()})
        return evaluation

    def save(self, metrics: dict[str, float] | None = None) -> None:
        """Starts saving a checkpoint, with the metrics of an evaluation of this state, if any."""
        self.checkpoints.save(self.state, metrics, self.stopping)

    def close(self) -> None:
        """Closes the pipelines, the log and the checkpoints; waits for a pending save."""
        self.parts.pipeline.close()
        self.evaluator.pipeline.close()
        self._writers.close()


def prepare(
    config: ConfigDict,
    workdir: pathlib.Path,
    watch: Stopwatch,
    changed: Changes,
    *,
    data_dir: str | None = None,
    data: ArrayData | None = None,
    accept_data: bool = False,
) -> PreparedRun:
    """Builds everything and compiles the first program, so that an invalid config is refused before
    anything is written.

    Args:
      changed: the keys in which `config` differs from the folder's (workdir.changed_keys); changed
        data, if accepted, are added under "data".

    Raises:
      UserError: as run.train.
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
        state, stopping = _restored(parts, sharding, workdir)
        if state is None:
            state = sharding.place(parts.init())
        if "train.length" in changed:
            stopping.lengthened()
        run = PreparedRun(parts, sharding, step, evaluator, spec, state, stopping, watch, workdir)
        if run.start > parts.steps:
            raise UserError(
                f"{workdir} is at step {run.start}, beyond train.length = "
                f'"{config.train.length}" ({parts.steps} steps); give a longer one'
            )
        if run.start < parts.steps and not stopping.stopped_by:
            run.program(min(config.train.steps_per_dispatch, parts.steps - run.start))
        on_error.pop_all()
    return run


def _restored(
    parts: Parts, sharding: Sharding, workdir: pathlib.Path
) -> tuple[TrainState | None, Stopping]:
    """State and early stopping of the newest whole checkpoint; (None, Stopping()) without one."""
    folder = workdir.resolve() / "checkpoints"
    if not folder.is_dir():
        return None, Stopping()
    saved = Checkpoints(folder, best=parts.config.eval.best, read_only=True)
    try:
        state = saved.restore(parts.abstract(), sharding) if saved.steps() else None
        return state, Stopping() if state is None else saved.stopping(int(state.step))
    finally:
        saved.close()


def cost_of(compiled: Any, steps: int, devices: int) -> dict[str, float]:
    """{"flops_per_step": over all devices, "bytes": the peak of one device}, as the compiler counts
    them; {} where a backend does not count."""
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
    except Exception:  # not every backend has these analyses
        pass
    return cost

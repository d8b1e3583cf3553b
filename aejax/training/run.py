"""`train`: a config becomes a trained and evaluated run in a folder."""

import dataclasses
import json
import math
import pathlib
import sys

import jax
from ml_collections import ConfigDict

from aejax import files
from aejax.config import apply_overrides, current, to_json
from aejax.data.arrays import MEMORY, ArrayData
from aejax.machine.provenance import provenance
from aejax.result import Overrides, Result, read_result
from aejax.training.build import count_parameters, latent_size
from aejax.training.evaluate import Evaluation
from aejax.training.log import Stopwatch
from aejax.training.loop import Loop, Summary
from aejax.training.prepared import PreparedRun, prepare
from aejax.training.workdir import changed_keys, has_more_to_do, leased


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    data_dir: str | None = None,
    command: str = "",
    overrides: Overrides | None = None,
    quiet: bool = False,
    accept_data: bool = False,
    data: ArrayData | None = None,
) -> Result:
    """Trains an experiment in the folder `workdir`, or resumes it there, and evaluates it.

    A run in the folder is resumed if the config differs in nothing but keys that may change
    (workdir.CHANGEABLE); a finished run is resumed if train.length has grown.

    Args:
      config: what an experiment's get_config returns.
      workdir: folder of the run. Nothing is written to it before everything has been built.
      data_dir: the data folder; default AEJAX_DATA.
      command, overrides: for the provenance and the tables of a study.
      quiet: no progress line.
      accept_data: resume although the data have changed since the run began.
      data: NumPy images [n, h, w(, c)], or (images, labels), in place of config.data.source.

    Raises:
      UserError: the config, the data or the folder cannot be used, or another process trains there.
      SavedAndStopped: a signal came; the state is saved and the run can be resumed.

    >>> result = aejax.train(config, "runs/mine", quiet=True)
    >>> result.steps, sorted(result.metrics)[:2]
    (20, ['test/loss', 'test/mse'])
    """
    watch = Stopwatch()
    config, workdir = current(config), pathlib.Path(workdir)
    if data is not None:
        config = apply_overrides(config, {"data.source": MEMORY})
    changed = changed_keys(workdir, config)
    finished = read_result(workdir)
    if finished is not None and not has_more_to_do(workdir, changed):
        return finished
    with leased(workdir):
        changed = changed_keys(workdir, config)  # again: another process may just have ended
        with watch("init"):
            run = prepare(
                config, workdir, watch, changed,
                data_dir=data_dir, data=data, accept_data=accept_data,
            )  # fmt: skip
        try:
            if not quiet and jax.process_index() == 0:
                splits = dataclasses.replace(run.parts.splits, test=run.evaluator.pipeline.source)
                print(splits.line, file=sys.stderr, flush=True)
            run.claim(overrides or {}, command, changed)
            summary = Loop(run, quiet).run()
            evaluation = measured(run)
            best = run.checkpoints.best_step()
        finally:
            run.close()
        result = _result(run, evaluation, best, summary, overrides or {}, command)
        if jax.process_index() == 0:
            files.write_atomically(workdir / "result.json", result.to_json())
    return result


def measured(run: PreparedRun) -> Evaluation:
    """Evaluates the last state; the metrics are saved with its checkpoint."""
    with run.watch("checkpoint"):  # first without metrics: a failing evaluation loses no training
        run.save()
        run.checkpoints.wait()
    with run.watch("evaluate"):
        evaluation = run.evaluate()
    with run.watch("checkpoint"):
        run.save(evaluation.metrics)
        run.checkpoints.wait()
    return evaluation


def _result(
    run: PreparedRun,
    evaluation: Evaluation,
    best: int | None,
    summary: Summary,
    overrides: Overrides,
    command: str,
) -> Result:
    parts, source = run.parts, run.parts.pipeline.source
    return Result(
        id=run.workdir.resolve().name,
        overrides=dict(overrides),
        task=parts.config.task,
        metrics={f"test/{name}": v for name, v in evaluation.metrics.items()},
        examples=evaluation.count,
        data={"train": source.name, "fingerprint": source.fingerprint},
        latent=evaluation.latent,
        best_step=best,
        parameters=count_parameters(run.state.params),
        latent_size=latent_size(parts),
        input_size=math.prod(parts.pipeline.image_shape),
        **dataclasses.asdict(summary),
        cost=run.cost,
        seconds=run.watch.report(),
        **provenance(command),
        config=json.loads(to_json(parts.config)),
    )

"""Checkpoints with Orbax: saved asynchronously; the last ones and the best one are kept; the newest
undamaged one is restored."""

import errno
import pathlib
import warnings

import jax
from etils import epath
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from aejax.errors import UserError
from aejax.result import Metric
from aejax.training.sharding import Sharding
from aejax.training.state import TrainState
from aejax.training.stopping import Stopping
from aejax.types import Variables


class Checkpoints:
    """The checkpoints of one run, in `directory`.

    Args:
      directory: local or any that etils knows (gs://...).
      keep: how many of the last checkpoints are kept, besides the best one.
      best: config.eval.best, the metric that ranks them; "" = none.
      read_only: changes nothing in the folder, as a training may be writing to it.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        keep: int = 2,
        best: str = "",
        read_only: bool = False,
    ):
        self.directory = epath.Path(directory)
        policies = ocp.training.preservation_policies
        preserve = [policies.LatestN(n=keep)]
        if best:
            preserve.append(
                policies.BestN(
                    n=1, get_metric_fn=self._rank, keep_checkpoints_without_metrics=False
                )
            )
        self.best = best
        self.metric = Metric.parse(best)
        self._saving = None  # the pending save; asking for its result ends its thread
        self.checkpointer = ocp.training.Checkpointer(
            self.directory,
            preservation_policy=policies.AnyPreservationPolicy(preserve),
            cleanup_tmp_directories=jax.process_count() == 1 and not read_only,
        )

    def _rank(self, metrics: dict[str, float]) -> float:
        """The score of a checkpoint; -inf if it was evaluated with other metrics."""
        value = metrics.get(self.metric.name)
        return -float("inf") if value is None else self.metric.score(value)

    def save(
        self,
        state: TrainState,
        metrics: dict[str, float] | None = None,
        stopping: Stopping | None = None,
    ) -> None:
        """Starts saving `state` under its step, after the previous save has ended.

        Args:
          metrics: of an evaluation; a step that is saved already is saved again with them.
          stopping: kept beside the state; see `stopping`.

        Raises:
          UserError: the disk is full, or the folder cannot be written. Earlier checkpoints stay.
        """
        step, note = int(state.step), stopping.to_json() if stopping else {}
        self.wait()
        try:
            if step in self.steps():
                if not metrics or metrics == self.metrics(step):
                    return
                self.checkpointer.save(
                    step, _tree(state), overwrite=True, metrics=metrics, custom_metadata=note
                )
            else:
                self._saving = self.checkpointer.save_async(
                    step, _tree(state), force=True, metrics=metrics, custom_metadata=note
                )
        except Exception as e:
            raise _write_error(e, self.directory) from e

    def wait(self) -> None:
        """Returns when the last save is on the disk.

        Raises:
          UserError: as `save`.
        """
        saving, self._saving = self._saving, None
        try:
            if saving is not None:
                saving.result()
            self.checkpointer.wait()
        except Exception as e:
            raise _write_error(e, self.directory) from e

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, oldest first."""
        return sorted(c.step for c in self.checkpointer.checkpoints)

    def best_step(self) -> int | None:
        """The step with the best metric, if any was evaluated."""
        ranked = [
            c for c in self.checkpointer.checkpoints if c.metrics and self.metric.name in c.metrics
        ]
        return max(ranked, key=lambda c: self._rank(c.metrics)).step if ranked else None

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics saved with `step`; {} if it was not evaluated."""
        saved = {c.step: c.metrics for c in self.checkpointer.checkpoints}
        return dict(saved.get(step) or {})

    def stopping(self, step: int) -> Stopping:
        """The early stopping state saved with `step`. A checkpoint of aejax 0.1 has none: then it
        starts from the best score of the checkpoints that are left."""
        note = self.checkpointer.metadata(step).custom_metadata
        if note:
            return Stopping.from_json(note)
        best = self.best_step()
        if best is None:
            return Stopping()
        return Stopping(by=self.best, best=self._rank(self.metrics(best)))

    def variables(self, step: int | None = None) -> tuple[Variables, int]:
        """(the averaged variables where there are any, else the trained ones, their step) of the
        newest whole checkpoint or that of `step`, on one device of this process. The optimiser's
        state is not read, and neither the config nor the model is needed.

        Raises:
          UserError: there is none, or it is damaged.
        """
        steps = [step] if step is not None else sorted(self.steps(), reverse=True)
        for candidate in steps:
            try:
                return self._variables(candidate), candidate
            except Exception as e:  # damaged files make Orbax and TensorStore raise many types
                self._damaged(candidate, e)
        raise UserError(f"{self.directory.parent} has no whole checkpoint; train it first")

    def _variables(self, step: int) -> Variables:
        one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        stored = self.checkpointer.metadata(step).metadata
        params = "params" if stored.get("ema") is None else "ema"
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype, sharding=one),
            {name: stored[name] for name in (params, "collections")},
        )
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        with context:  # a checkpointer keeps the context that it was made in
            partial = ocp.training.Checkpointer(self.directory, cleanup_tmp_directories=False)
            variables = partial.load(step, abstract)
            partial.close()
        return {"params": variables[params], **variables["collections"]}

    def _damaged(self, step: int, error: Exception) -> None:
        warnings.warn(
            f"checkpoint {step} in {self.directory} is damaged ({type(error).__name__}); "
            "the one before it is used",
            stacklevel=3,
        )

    def restore(
        self, state: TrainState, sharding: Sharding, step: int | None = None
    ) -> TrainState | None:
        """The newest whole checkpoint (or that of `step`), placed as `sharding` says; None if none.

        A damaged one is named in a warning and the one before it is used.

        Raises:
          UserError: the checkpoints are of another model.
        """
        places = sharding.state_shardings(state)
        abstract = _tree(
            jax.tree.map(
                lambda v, s: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=s), state, places
            )
        )
        for candidate in [step] if step is not None else reversed(self.steps()):
            try:
                tree = self.checkpointer.load(candidate, abstract)
                return TrainState(**tree)
            except Exception as e:  # damaged files make Orbax and TensorStore raise many types
                difference = self._difference(candidate, abstract)
                if difference:
                    raise UserError(
                        f"checkpoint {self.directory / str(candidate)} is of another model: "
                        f"{difference}; use another --workdir"
                    ) from e
                self._damaged(candidate, e)
        return None

    def _difference(self, step: int, abstract: PyTree) -> str:
        """The first leaf whose shape differs from what is stored, '' if none (or unreadable)."""
        try:
            stored = self.checkpointer.metadata(step).metadata
            stored = stored["state"] if "state" in stored else stored
            shapes = {
                jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
                for path, leaf in jax.tree_util.tree_leaves_with_path(stored["params"])
            }
        except Exception:
            return ""
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract["params"]):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if shapes.get(name) != tuple(leaf.shape):
                return f"{name} is {shapes.get(name, 'absent')} there, {tuple(leaf.shape)} here"
        return ""

    def close(self) -> None:
        """Waits for the last save and ends the threads."""
        self.wait()
        self.checkpointer.close()


def _tree(state: TrainState) -> dict[str, PyTree]:
    return {name: getattr(state, name) for name in TrainState.__dataclass_fields__}


def _write_error(error: BaseException, directory: epath.Path) -> UserError:
    chain, cause = [], error
    while cause is not None:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(map(str, chain))
    full = any(getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for e in chain)
    if full or "No space left" in text or "RESOURCE_EXHAUSTED" in text:
        return UserError(
            f"no space left for a checkpoint in {directory}; earlier ones are kept: "
            "free some space and run the same command again"
        )
    return UserError(f"cannot write a checkpoint in {directory}: {type(error).__name__}: {error}")

"""Builds what a config describes: data, model, objective, optimiser and the first state."""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree
from ml_collections import ConfigDict

from aejax.config import current
from aejax.contracts import Conditions, Encodes, Initialises, Objective
from aejax.data.arrays import ArrayData
from aejax.data.pipeline import Pipeline, make_pipeline
from aejax.data.splits import Splits, open_splits
from aejax.metrics.image import metric_functions
from aejax.nets import ops
from aejax.nets.autoencoder import build_model
from aejax.objective import build_objective
from aejax.training import optim
from aejax.training.evaluate import Evaluator
from aejax.training.sharding import Sharding, of_config
from aejax.training.start import started
from aejax.training.state import TrainState, create
from aejax.training.step import make_train_step
from aejax.types import Batch, Variables
from aejax.units import Clock


@dataclasses.dataclass
class Parts:
    """The objects that a config describes; nothing is on a device yet.

    Attributes:
      config: the whole config, with all keys.
      pipeline: the training batches.
      model: the Flax module; objective: what is minimised.
      steps: of the whole run.
      schedule: step -> learning rate; tx: the optimiser that follows it.
      splits: which images are trained on and which tested.
    """

    config: ConfigDict
    pipeline: Pipeline
    model: nn.Module
    objective: Objective
    steps: int
    schedule: optax.Schedule
    tx: optax.GradientTransformation
    splits: Splits

    @property
    def clock(self) -> Clock:
        return Clock(self.config.data.batch, self.pipeline.n)

    def step_on(self, sharding: Sharding) -> Callable:
        """The train step of this config on the devices of `sharding`; see step.py.

        Raises:
          UserError: the batch does not divide by the number of devices and micro-batches.
        """
        config = self.config.optim
        sharding.check_batch(self.config.data.batch, config.accumulate)
        step = make_train_step(
            self.objective,
            self.model,
            self.tx,
            self.schedule,
            sharding,
            self.pipeline.images,
            accumulate=config.accumulate,
            ema=config.ema,
            trained_pattern=config.only,
        )
        return ops.traced_with(self.config.ops, step)

    def placed(self, sharding: Sharding) -> tuple[TrainState, PyTree, jax.Array]:
        """(first state, resident data, key) on the devices."""
        resident = self.pipeline.resident
        return (
            sharding.place(self.init()),
            None if resident is None else sharding.replicate(resident),
            sharding.replicate_key(self.config.seed + 1),
        )

    def init(self) -> TrainState:
        """The state before the first step, which depends on the config and its seed alone."""
        config, key = self.config, jax.random.key(self.config.seed)
        example = self.example(2)

        def make():
            return self.init_variables(example, key)

        # It runs once: on a CPU, optimising its program would take seconds and save none.
        quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
        make = ops.traced_with(config.ops, make)
        variables = jax.jit(make, compiler_options=quick)()
        # If model.start replaces all variables, the objective need not initialise them.
        whole_start = config.model.start and not config.model.start_only
        if isinstance(self.objective, Initialises) and not whole_start:
            images = example
            if config.model.init == "pca":  # of crops there may be more than there are files
                images = self.example(1024 if config.data.crop else min(self.pipeline.n, 4096))
            variables = self.objective.initialise(self.model, variables, images["image"])
        if config.model.start:
            shape = self.pipeline.image_shape
            variables = started(variables, config.model, self.objective, shape)
        return create(variables, self.tx, config.optim.ema)

    def init_variables(self, example: Batch, key: PRNGKeyArray) -> Variables:
        """Flax's `init` of the model, with the conditions of its objective."""
        cond = None
        if isinstance(self.objective, Conditions):
            cond = self.objective.conditions(example, key, True)
        rngs = {"params": key, "bottleneck": key}
        return dict(self.model.init(rngs, example["image"], cond, train=False))

    def example(self, count: int) -> Batch:
        """The first `count` training examples as the step sees them."""
        batches, step = [], 0
        resident = jax.tree.map(jnp.asarray, self.pipeline.resident)
        while sum(len(batch["image"]) for batch in batches) < count:
            part = jax.tree.map(lambda v: v[0], self.pipeline.dispatch(step, 1))
            key = jax.random.fold_in(jax.random.key(0), step)
            batches.append(self.pipeline.images(resident, part, key, True))
            step += 1
        return jax.tree.map(lambda *v: jnp.concatenate(v)[:count], *batches)

    def abstract(self) -> TrainState:
        """Shapes and types of the state, without computing it."""
        example = jax.eval_shape(lambda: self.example(2))
        example = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in example.items()}

        def make(example):
            variables = self.init_variables(example, jax.random.key(0))
            return create(variables, self.tx, self.config.optim.ema)

        return jax.eval_shape(make, example)


def build(config: ConfigDict, data_dir: str | None = None, data: ArrayData | None = None) -> Parts:
    """Resolves a config into its parts.

    Args:
      data: NumPy images, or (images, labels), in place of config.data.source; see data/arrays.py.

    Raises:
      UserError: a value of the config is invalid.
    """
    config = current(config)
    splits = open_splits(config, data_dir, data)
    pipeline = make_pipeline(
        config,
        training=True,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        splits=splits,
    )
    splits = dataclasses.replace(splits, train=pipeline.source)
    model = build_model(config.model, pipeline.image_shape)
    objective = build_objective(config)
    metric_functions(config.eval.metrics, pipeline.image_shape)  # an unknown metric raises here
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
        config.ops,
    )
    evaluator.check(parts.abstract().variables, parts.pipeline.image_shape, config.eval.best)
    return evaluator


def count_parameters(params: PyTree) -> int:
    """Numbers in a tree of arrays or shapes."""
    return sum(math.prod(np.shape(p)) for p in jax.tree.leaves(params))


def latent_size(parts: Parts) -> int:
    """Numbers in h for one image; 0 for a model that has no `encode`."""
    if not isinstance(parts.model, Encodes):
        return 0
    shape = jax.ShapeDtypeStruct((1, *parts.pipeline.image_shape), jnp.float32)
    variables = parts.abstract().variables
    h = jax.eval_shape(lambda v, x: parts.model.apply(v, x, method="encode"), variables, shape)
    return sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(h))

"""Compiles the program that `aejax train` would run, for devices that need not be present."""

import contextlib
import dataclasses
import time
from collections.abc import Generator, Sequence
from typing import ClassVar

import jax
import numpy as np
from ml_collections import ConfigDict

from aejax.aot.topology import Topology
from aejax.data.pipeline import Pipeline
from aejax.data.source import Source
from aejax.data.splits import Splits
from aejax.errors import UserError
from aejax.nets.autoencoder import build_model
from aejax.objective import build_objective
from aejax.training import optim
from aejax.training.build import Parts, count_parameters
from aejax.training.sharding import of_mode
from aejax.training.step import make_dispatch
from aejax.units import Clock


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One compiled dispatch, of one or more train steps.

    Attributes:
      program: the compiled program.
      batch: examples of a step, over all chips.
      steps: train steps of a dispatch.
      parameters: how many numbers are trained.
      state_bytes: of the whole train state.
      example_bytes: that a host sends to its chips per example.
      seconds: (of tracing, of compiling).
    """

    program: jax.stages.Compiled
    batch: int
    steps: int
    parameters: int
    state_bytes: int
    example_bytes: float
    seconds: tuple[float, float]


@dataclasses.dataclass
class BlackImages(Source):
    """A data source of black images of one shape with labels, in place of a set that is missing."""

    on_disk: ClassVar[bool] = False
    checked: ClassVar[bool] = True

    def _decode(self, i: int, item: object) -> tuple[np.ndarray, int]:
        return np.zeros((*self.sizes[i], self.channels), np.uint8), 0


def parts_without_data(config: ConfigDict, examples: int) -> Parts:
    """`build` with `examples` black images of data.crop or data.size in place of the data.

    Raises:
      UserError: neither is set, or the config has another fault.
    """
    data = config.data
    size = tuple(data.size)
    if data.crop:
        size = (data.crop, data.crop)
    if len(size) != 2:
        raise UserError("--no-data: set data.crop or data.size = (height, width) for the shape of "
                        "a batch")  # fmt: skip
    source = BlackImages(
        name="no data",
        items=range(examples),
        names=("a black image",) * examples,
        sizes=np.broadcast_to(np.array(size, np.int32), (examples, 2)),
        channels=data.channels or 3,
        class_names=("any",),
    )
    pipeline = Pipeline(source, batch=data.batch, cache="stream")
    splits = Splits(source, source, "no data", same=True)
    clock = Clock(data.batch, examples)
    steps = clock.steps(config.train.length, "train.length")
    schedule = optim.build_schedule(config.optim, steps, clock)
    return Parts(
        config, pipeline, build_model(config.model, pipeline.image_shape), build_objective(config),
        steps, schedule, optim.build_optimiser(config.optim, schedule), splits,
    )  # fmt: skip


def compile_step(
    parts: Parts, devices: Sequence[jax.Device], batch: int = 0, steps: int = 0
) -> Compiled:
    """Compiles a dispatch of the config's train step for `devices`.

    Args:
      batch: examples of a step; 0 = data.batch.
      steps: train steps per dispatch; 0 = train.steps_per_dispatch.

    Raises:
      DoesNotFit: the program does not fit into the memory of the chips.
      UserError: the batch does not divide evenly over the devices.
    """
    config = parts.config
    batch, steps = batch or config.data.batch, steps or config.train.steps_per_dispatch
    sharding = of_mode(config.train.mode, config.train.fsdp, devices)
    sharding.check_batch(batch, config.optim.accumulate)
    state = parts.abstract()
    one = parts.pipeline.dispatch(0, 1)
    shapes = jax.tree.map(
        lambda v: jax.ShapeDtypeStruct((steps, batch, *v.shape[2:]), v.dtype), one
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    with config.data.unlocked():
        configured_batch, config.data.batch = config.data.batch, batch  # step_on reads it
    try:
        dispatch = make_dispatch(parts.step_on(sharding), steps)
        start = time.perf_counter()
        lowered = sharding.lower(dispatch, state, shapes, parts.pipeline.resident, key)
        traced = time.perf_counter()
        with _without_compilation_cache():
            program = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        text = " ".join(str(e).split())
        if "RESOURCE_EXHAUSTED" not in text and "Ran out of memory" not in text:
            raise
        raise DoesNotFit(f"a batch of {batch} does not fit into memory: {text[:220]}") from e
    finally:
        config.data.batch = configured_batch
    sent = sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(one))
    return Compiled(
        program,
        batch,
        steps,
        count_parameters(state.params),
        sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(state)),
        sent / config.data.batch,
        (traced - start, time.perf_counter() - traced),
    )


@contextlib.contextmanager
def _without_compilation_cache() -> Generator[None]:
    """A context that does not write JAX's compilation cache, from which programs for devices of
    other machines cannot be loaded."""
    name = "jax_persistent_cache_min_compile_time_secs"
    previous = getattr(jax.config, name)
    jax.config.update(name, float("inf"))
    try:
        yield
    finally:
        jax.config.update(name, previous)


class DoesNotFit(UserError):
    """The compiled program needs more memory than the chips have."""


def largest_batch(
    parts: Parts,
    topology: Topology,
    devices: Sequence[jax.Device],
    limit: int = 1 << 16,
    room: float = 0.0,
) -> Compiled:
    """Compiles the step with the largest batch that fits into memory; it is a power of two per
    device and micro-batch.

    The memory of batches of 8 and 16 per device gives that of an example. The search starts at the
    batch that should fit, so that it has to compile few programs.

    Args:
      limit: the largest batch to try.
      room: bytes per device that the program may take; 0: the chip's memory.

    Raises:
      UserError: not even one example per device and micro-batch fits.
    """
    from aejax.aot.analyse import memory

    unit = len(devices) * parts.config.optim.accumulate
    room = room or topology.chip.hbm / topology.chip.devices

    def fitting(n: int) -> tuple[Compiled | None, float]:
        try:
            compiled = compile_step(parts, devices, n * unit)
        except DoesNotFit:
            return None, float("inf")
        used = memory(compiled.program)["peak"]
        return (compiled if used <= room else None), used

    n, (best, used) = 8, fitting(8)
    while best is None:
        if n == 1:
            raise UserError("one example per device does not fit into memory: shard the state "
                            "(train.mode=fsdp), set model.remat, or use larger chips")  # fmt: skip
        n //= 2
        best, used = fitting(n)
    if n < 8:
        return best
    sixteen, used_by_sixteen = fitting(16)
    if sixteen is None:
        return best
    slope = max((used_by_sixteen - used) / 8, 1.0)
    top = max(16, limit // unit)
    n = 1 << (min(top, int(16 + (room - used_by_sixteen) / slope)).bit_length() - 1)
    best = sixteen
    while n > 16:  # halve until it fits
        candidate, _ = fitting(n)
        if candidate is not None:
            best = candidate
            break
        n //= 2
    while 2 * n <= top:  # double until it no longer fits
        candidate, _ = fitting(2 * n)
        if candidate is None:
            break
        n, best = 2 * n, candidate
    return best

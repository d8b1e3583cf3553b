"""The program that `aejax train` would run, compiled for devices that are not here."""

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
    """One dispatch, compiled.

    Attributes:
      program: jax.stages.Compiled. batch: examples of a step over all chips; steps: in a dispatch.
      parameters: numbers that are trained; state_bytes: of a whole state.
      example_bytes: what a host sends to its chips per example.
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
    """In the place of a set that is not here: so many black images of one shape, with labels."""

    on_disk: ClassVar[bool] = False
    checked: ClassVar[bool] = True

    def _decode(self, i: int, item: object) -> tuple[np.ndarray, int]:
        return np.zeros((*self.sizes[i], self.channels), np.uint8), 0


def parts_without_data(config: ConfigDict, examples: int) -> Parts:
    """`build` for a set that is not here: its images are as data.crop or data.size says.

    Raises:
      UserError: neither is set, or whatever else in the config cannot be.
    """
    data = config.data
    size = tuple(data.size)
    if data.crop:
        size = (data.crop, data.crop)
    if len(size) != 2:
        raise UserError("--no-data: set data.crop or data.size = (height, width), which decide the "
                        "shape of a batch")  # fmt: skip
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
    """A dispatch of the config's step on `devices`.

    Args:
      batch: examples of a step; 0 = data.batch. steps: per dispatch; 0 = train.steps_per_dispatch.

    Raises:
      UserError: the batch does not divide, or the program does not fit into the chips' memory.
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
        given, config.data.batch = config.data.batch, batch  # step_on looks at it
    try:
        dispatch = make_dispatch(parts.step_on(sharding), steps)
        begun = time.perf_counter()
        lowered = sharding.lower(dispatch, state, shapes, parts.pipeline.resident, key)
        traced = time.perf_counter()
        with _nothing_cached():
            program = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        text = " ".join(str(e).split())
        if "RESOURCE_EXHAUSTED" not in text and "Ran out of memory" not in text:
            raise
        raise DoesNotFit(f"a batch of {batch} does not fit: {text[:220]}") from e
    finally:
        config.data.batch = given
    sent = sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(one))
    return Compiled(
        program,
        batch,
        steps,
        count_parameters(state.params),
        sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(state)),
        sent / config.data.batch,
        (traced - begun, time.perf_counter() - traced),
    )


@contextlib.contextmanager
def _nothing_cached() -> Generator[None]:
    """What is compiled for absent devices cannot be read back from JAX's compilation cache."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, float("inf"))
    try:
        yield
    finally:
        jax.config.update(name, before)


class DoesNotFit(UserError):
    """The compiler found no room for the program in the chips' memory."""


def largest_batch(
    parts: Parts, topology: Topology, devices: Sequence[jax.Device], limit: int = 1 << 16
) -> Compiled:
    """The step with the largest batch that fits, of those that are a power of two per device.

    From batches of 8 and 16 per device the memory of an example is known, so that few programs are
    compiled before and after the largest.

    Args:
      limit: examples of a step, beyond which nobody looks for more.

    Raises:
      UserError: not even one example per device and micro-batch fits.
    """
    from aejax.aot.analyse import memory

    unit = len(devices) * parts.config.optim.accumulate
    room = topology.chip.hbm / topology.chip.devices

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
            raise UserError("one example per device does not fit: shard the state "
                            "(train.mode=fsdp), set model.remat, or take larger chips")  # fmt: skip
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
    while n > 16:  # down to one that fits
        candidate, _ = fitting(n)
        if candidate is not None:
            best = candidate
            break
        n //= 2
    while 2 * n <= top:  # and up to one that does not
        candidate, _ = fitting(2 * n)
        if candidate is None:
            break
        n, best = 2 * n, candidate
    return best

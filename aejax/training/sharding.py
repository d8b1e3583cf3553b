"""How the train step runs on many devices; no other module knows about modes or meshes.

    Pmap  one program per device, state replicated (the default)
    Jit   one program over a mesh, state replicated, the batch sharded
    Fsdp  as Jit, and parameters, averages and optimiser state sharded by rules

In all three the gradient of a device's share of the batch is computed per device (fast forms in
nets/ops loop over the batch, which must not be gathered first) and averaged over all devices.
In fsdp a step gathers the parameters once, and the sum of a sharded parameter's gradient is
scattered: each device receives the part that it updates (ZeRO, Rajbhandari et al. 2020, arXiv
1910.02054, stage 3 at rest and stage 2 within a step).

Slices of TPUs that are joined by the data centre's network make a mesh of two axes, SLICE and AXIS:
in fsdp the state is sharded within a slice and replicated across slices, so that the scattered
gradients, but not the parameters, cross the slow network.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import PyTree
from ml_collections import ConfigDict

from aejax.cluster import processes
from aejax.errors import UserError
from aejax.nets import target
from aejax.training.state import TrainState

AXIS, SLICE = "data", "slice"
Dispatch = Callable[[TrainState, PyTree, PyTree, jax.Array], tuple[TrainState, PyTree]]


@dataclasses.dataclass(frozen=True)
class Sharding:
    """The devices of all processes, with the state replicated on each; each mode is a subclass.

    Args:
      rules: of fsdp, (regex of a leaf's path, axis) pairs; the first that matches decides, axis -1
        is the largest axis that divides evenly. What matches nothing is replicated.
      devices: the devices of all processes; () = all there are. Devices of a topology that is not
        here (`aejax.aot`) can be lowered and compiled for, but not run on.
      slices: groups of devices joined by a slower network; 0 = as the devices say.
    """

    rules: Sequence[tuple[str, int]] = ((".*", -1),)
    devices: Sequence[jax.Device] = ()
    slices: int = 0
    mode: ClassVar[str]

    def __post_init__(self):
        object.__setattr__(self, "devices", tuple(self.devices or jax.devices()))
        if not self.slices:
            indices = {getattr(d, "slice_index", None) for d in self.devices}
            object.__setattr__(self, "slices", len(indices))

    @functools.cached_property
    def mesh(self) -> Mesh:
        """All devices, over the axes (SLICE,) AXIS."""
        sides = self._sides(len(self.devices) // self.slices)
        names = (AXIS,) if len(sides) == 1 else tuple(f"{AXIS}{i}" for i in range(len(sides)))
        if self.slices == 1:
            if len(sides) == 1:
                return Mesh(np.array(self.devices), names)
            return Mesh(mesh_utils.create_device_mesh(sides, self.devices), names)
        shape, names = (self.slices, *sides), (SLICE, *names)
        if getattr(self.devices[0], "slice_index", None) is None:  # slices by name only
            return Mesh(np.array(self.devices).reshape(shape), names)
        within, across = (1, *sides), (self.slices, *(1 for _ in sides))
        return Mesh(mesh_utils.create_hybrid_device_mesh(within, across, self.devices), names)

    def _sides(self, count: int) -> tuple[int, ...]:
        """Rows and columns in which the `count` devices of a slice are arranged."""
        return (count,)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that a batch is split over: all of the mesh's."""
        return self.mesh.axis_names

    @property
    def platform(self) -> str:
        """Platform of the devices: "cpu", "gpu" or "tpu"; this process may run on another one."""
        return self.devices[0].platform

    @property
    def local_devices(self) -> list[jax.Device]:
        """The devices of this process."""
        return [d for d in self.devices if d.process_index == jax.process_index()]

    def check_batch(self, batch: int, accumulate: int) -> None:
        """Raises UserError if the global batch does not divide by devices x micro-batches."""
        parts = len(self.devices) * accumulate
        if batch % parts:
            raise UserError(
                f"data.batch = {batch} does not divide into {len(self.devices)} devices x "
                f"{accumulate} micro-batches; try {max(1, round(batch / parts)) * parts}"
            )

    def state_shardings(self, state: PyTree) -> PyTree:
        """A NamedSharding for every leaf of a (possibly abstract) state."""
        whole = NamedSharding(self.mesh, P())
        return jax.tree.map(lambda _: whole, state)

    def place(self, tree: PyTree) -> PyTree:
        """Puts equal host values of every process on the devices, sharded as a state."""
        return jax.tree.map(_from_equal_hosts, tree, self.state_shardings(tree))

    def replicate(self, tree: PyTree) -> PyTree:
        """Puts equal host values of every process on the devices, one whole copy on each."""
        whole = NamedSharding(self.mesh, P())
        return jax.tree.map(lambda v: _from_equal_hosts(v, whole), tree)

    def replicate_key(self, seed: int) -> jax.Array:
        """A random key on every device."""
        data = self.replicate(np.asarray(jax.random.key_data(jax.random.key(seed))))
        return jax.random.wrap_key_data(data)

    def place_batch(self, batch: PyTree) -> PyTree:
        """This process's [k, local batch, ...] arrays as one dispatch on the devices."""
        sharding = NamedSharding(self.mesh, self._batch_spec())
        return jax.tree.map(
            lambda v: jax.make_array_from_process_local_data(sharding, v), self._split(batch)
        )

    def _batch_spec(self) -> P:
        return P(None, self.axes)

    def _split(self, batch: PyTree) -> PyTree:
        """A batch as the compiled dispatch takes it."""
        return batch

    def averaged(self, f: Callable) -> Callable:
        """f of each device's share of the batch, averaged over all devices.

        Args:
          f: (params, collections, batch, resident, key) -> (gradients like params, metrics,
            collections), all means over the batch it is given.

        Returns:
          the same function for whole batches. Its gradients are sharded as the parameters are;
          integers in collections are not averaged, as they are equal on all devices.
        """

        def on_a_device(specs, params, collections, batch, resident, key):
            key = jax.random.fold_in(key, jax.lax.axis_index(self.axes))
            params = jax.tree.map(self._gathered, params, specs)
            grads, metrics, collections = f(params, collections, batch, resident, key)
            grads = jax.tree.map(self._mean, grads, specs)
            average = lambda v: jax.lax.pmean(v, self.axes)  # noqa: E731
            floating = lambda v: jnp.issubdtype(v.dtype, jnp.floating)  # noqa: E731
            collections = jax.tree.map(lambda v: average(v) if floating(v) else v, collections)
            return grads, average(metrics), collections

        def whole(params, collections, batch, resident, key):
            shardings = self.state_shardings({"params": params})["params"]
            specs = jax.tree.map(lambda s: s.spec, shardings)
            run = self._per_device(functools.partial(on_a_device, specs), specs)
            return run(params, collections, batch, resident, key)

        return whole

    def _per_device(self, run: Callable, specs: PyTree) -> Callable:
        """`run(params, collections, batch, resident, key)`, called once per device on its share."""
        return jax.shard_map(
            run,
            mesh=self.mesh,
            in_specs=(specs, P(), P(self.axes), P(), P()),
            out_specs=(specs, P(), P()),
            check_vma=False,
        )

    def _gathered(self, parameter: jax.Array, spec: P) -> jax.Array:
        """The whole of a parameter."""
        return parameter

    def _mean(self, gradient: jax.Array, spec: P) -> jax.Array:
        """The mean over all devices of a whole gradient; of a sharded one, this device's part."""
        return jax.lax.pmean(gradient, self.axes)

    def lower(
        self, dispatch: Dispatch, state: PyTree, batch: PyTree, resident: PyTree, key: jax.Array
    ) -> jax.stages.Lowered:
        """`dispatch(state, batch, resident, key)` traced for these devices; donates the state.

        Args:
          state, resident, key: arrays or jax.ShapeDtypeStructs: their shapes count (but Pmap in
            several processes wants arrays).
          batch: this process's [k, local batch, ...], from the pipeline, or shapes of it.
        """
        with target.compiling_for(self.platform):
            return self._lower(dispatch, state, batch, resident, key)

    def _lower(
        self, dispatch: Dispatch, state: PyTree, batch: PyTree, resident: PyTree, key: jax.Array
    ) -> jax.stages.Lowered:
        whole = NamedSharding(self.mesh, P())
        split = NamedSharding(self.mesh, self._batch_spec())
        n = jax.process_count()
        shardings = self.state_shardings(state)
        run = jax.jit(dispatch, donate_argnums=0, out_shardings=(shardings, whole))
        return run.lower(
            jax.tree.map(lambda v, s: _shape(v, v.shape, s), state, shardings),
            jax.tree.map(
                lambda v: _shape(v, (v.shape[0], v.shape[1] * n, *v.shape[2:]), split), batch
            ),
            *jax.tree.map(lambda v: _shape(v, v.shape, whole), (resident, key)),
        )

    def compile(
        self, dispatch: Dispatch, state: TrainState, batch: PyTree, resident: PyTree, key: jax.Array
    ) -> Dispatch:
        """What `lower` traced, compiled: called with (state, place_batch(batch), resident, key).

        Returns when every process has compiled: Gloo waits 30 seconds for the others of a first
        collective, and then gives up for good.
        """
        compiled = self.lower(dispatch, state, batch, resident, key).compile()
        processes.barrier("compiled")
        return compiled

    def local(self, tree: PyTree) -> PyTree:
        """Whole arrays on one of this process's devices, for evaluation and export."""
        return jax.tree.map(lambda v: v.addressable_data(0), tree)


class Pmap(Sharding):
    """One program per device: the whole dispatch sees its device's share of the batch."""

    mode = "pmap"

    def __post_init__(self):
        object.__setattr__(self, "slices", 1)
        super().__post_init__()
        if jax.process_count() > 1 and len(self.devices) < jax.device_count():
            raise UserError("train.mode = pmap uses all devices of all processes")

    def _batch_spec(self) -> P:
        return P(AXIS)

    def _split(self, batch: PyTree) -> PyTree:
        """With a leading axis of this process's devices."""
        n = len(self.local_devices)
        return jax.tree.map(
            lambda v: np.moveaxis(v.reshape(v.shape[0], n, -1, *v.shape[2:]), 1, 0), batch
        )

    def _per_device(self, run: Callable, specs: PyTree) -> Callable:
        return run

    def _lower(
        self, dispatch: Dispatch, state: PyTree, batch: PyTree, resident: PyTree, key: jax.Array
    ) -> jax.stages.Lowered:
        """Traced for host-local batches, called with global arrays: called directly, pmap
        would return host-local states, which cannot be saved from many processes."""
        n, everywhere = len(self.devices), jax.process_count() > 1
        run = jax.pmap(
            dispatch,
            axis_name=AXIS,
            in_axes=(None, 0, None, None),
            out_axes=None,
            donate_argnums=0,
            devices=None if everywhere else self.devices,
        )
        if everywhere:  # JAX makes global arrays of the arguments, which must be real then
            return run.lower(state, self._split(batch), resident, key)
        split = jax.tree.map(
            lambda v: _shape(v, (n, v.shape[0], v.shape[1] // n, *v.shape[2:])), batch
        )
        state, resident, key = jax.tree.map(lambda v: _shape(v, v.shape), (state, resident, key))
        return run.lower(state, split, resident, key)


class Jit(Sharding):
    """One program for the whole batch, which the compiler divides over the mesh."""

    mode = "jit"


class Fsdp(Sharding):
    """As Jit, with the leaves of the state sharded within a slice, each by the first rule."""

    mode = "fsdp"

    def _sides(self, count: int) -> tuple[int, ...]:
        return torus(count) if _is_torus(self.devices) else (count,)

    @property
    def within(self) -> tuple[str, ...]:
        """The axes of one slice."""
        return tuple(name for name in self.axes if name != SLICE)

    def state_shardings(self, state: PyTree) -> PyTree:
        count = len(self.devices) // self.slices

        def sharding(path, leaf):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            axis = next((a for regex, a in self.rules if re.search(regex, name)), None)
            shape = np.shape(leaf)
            even = [i for i, n in enumerate(shape) if n % count == 0]
            if axis == -1:
                axis = max(even, key=lambda i: shape[i], default=None)
            if axis is None or axis not in even:
                return NamedSharding(self.mesh, P())
            spec = P(*[self.within if i == axis else None for i in range(len(shape))])
            return NamedSharding(self.mesh, spec)

        return jax.tree_util.tree_map_with_path(sharding, state)

    def _gathered(self, parameter: jax.Array, spec: P) -> jax.Array:
        """The whole of a parameter that is sharded within a slice, one ring after the other: of
        small parts at once TPUs make an all-reduce of zeros, twice the bytes."""
        axis = _sharded_axis(spec)
        if axis is None:
            return parameter
        for name in reversed(self.within):
            parameter = jax.lax.all_gather(parameter, name, axis=axis, tiled=True)
        return parameter

    def _mean(self, gradient: jax.Array, spec: P) -> jax.Array:
        """One ring of the torus after the other: a sum over both at once is compiled for TPUs as an
        all-reduce of the whole and a slice of it, twice the bytes."""
        axis = _sharded_axis(spec)
        if axis is None:
            return super()._mean(gradient, spec)
        for name in self.within:
            gradient = jax.lax.psum_scatter(gradient, name, scatter_dimension=axis, tiled=True)
        if self.slices > 1:
            gradient = jax.lax.psum(gradient, SLICE)
        return gradient / len(self.devices)

    def local(self, tree: PyTree) -> PyTree:
        whole = NamedSharding(self.mesh, P())
        gather = jax.jit(lambda t: t, out_shardings=jax.tree.map(lambda _: whole, tree))
        return super().local(gather(tree))


MODES: dict[str, type[Sharding]] = {cls.mode: cls for cls in (Pmap, Jit, Fsdp)}


def of_mode(
    mode: str,
    rules: Sequence[tuple[str, int]] = ((".*", -1),),
    devices: Sequence[jax.Device] = (),
    slices: int = 0,
) -> Sharding:
    """The sharding of config.train.mode; the arguments are those of Sharding.

    Raises:
      UserError: an unknown mode, or not all devices in pmap of several processes.
    """
    if mode not in MODES:
        raise UserError(f'train.mode = "{mode}": pmap, jit or fsdp')
    return MODES[mode](tuple(rules), devices, slices)


def of_config(config: ConfigDict) -> Sharding:
    """The sharding that a `config.train` asks for.

    Raises:
      UserError: an unknown mode, or more devices than there are.
    """
    count = config.devices
    if not 0 <= count <= jax.device_count():
        raise UserError(f"train.devices = {count}: there are {jax.device_count()}")
    return of_mode(config.mode, config.fsdp, jax.devices()[: count or None])


def torus(count: int) -> tuple[int, int]:
    """The most equal two sides for `count` devices: 16 -> (4, 4), 8 -> (2, 4)."""
    side = max(d for d in range(1, math.isqrt(count) + 1) if count % d == 0)
    return side, count // side


def _is_torus(devices: Sequence[jax.Device]) -> bool:
    """Whether they are TPUs, whose links are rings along two or three axes."""
    return devices[0].platform == "tpu" and math.prod(torus(len(devices))) > 3


def _sharded_axis(spec: P) -> int | None:
    return next((i for i, name in enumerate(spec) if name is not None), None)


def _shape(
    value: jax.Array | np.ndarray | jax.ShapeDtypeStruct,
    shape: Sequence[int],
    sharding: NamedSharding | None = None,
) -> jax.ShapeDtypeStruct:
    dtype = jax.dtypes.canonicalize_dtype(value.dtype, allow_extended_dtype=True)
    return jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=sharding)


def _from_equal_hosts(value: ArrayLike, sharding: NamedSharding) -> jax.Array:
    value = np.asarray(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

"""How the one step runs on many devices; nothing else in the package knows.

    pmap  one program per device, state replicated (the default)
    jit   one program over a mesh, state replicated, the batch sharded
    fsdp  as jit, and parameters, averages and optimiser state sharded by rules

In all three the gradient of a device's share of the batch is computed per device (fast forms in
nets/ops.py loop over the batch, which must not be gathered first) and averaged over AXIS.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from aejax.errors import UserError
from aejax.training import distributed
from aejax.training.state import TrainState

AXIS = "data"
Dispatch = Callable[[TrainState, Any, Any, Any], tuple[TrainState, Any]]


@dataclasses.dataclass(frozen=True)
class Sharding:
    """A mode on the devices of all processes.

    Args:
      mode: pmap | jit | fsdp.
      rules: of fsdp, (regex of a leaf's path, axis) pairs; the first that matches decides, axis -1
        is the largest axis that divides evenly. What matches nothing is replicated.
      devices: the devices of all processes; () = all there are.
    """

    mode: str = "pmap"
    rules: Sequence[tuple[str, int]] = ((".*", -1),)
    devices: Sequence[Any] = ()

    def __post_init__(self):
        if self.mode not in ("pmap", "jit", "fsdp"):
            raise UserError(f'train.mode = "{self.mode}": pmap, jit or fsdp')
        object.__setattr__(self, "devices", tuple(self.devices or jax.devices()))
        if (
            self.mode == "pmap"
            and jax.process_count() > 1
            and len(self.devices) < jax.device_count()
        ):
            raise UserError("train.mode = pmap uses all devices of all processes")

    @property
    def mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))

    @property
    def local_count(self) -> int:
        return len(self.local_devices)

    @property
    def local_devices(self) -> list[Any]:
        return [d for d in self.devices if d.process_index == jax.process_index()]

    def check_batch(self, batch: int, accumulate: int) -> None:
        """Raises UserError where the global batch does not divide."""
        parts = len(self.devices) * accumulate
        if batch % parts:
            raise UserError(
                f"data.batch = {batch} does not divide into {len(self.devices)} devices x "
                f"{accumulate} micro-batches; try {max(1, round(batch / parts)) * parts}"
            )

    def state_shardings(self, state: Any) -> Any:
        """A NamedSharding for every leaf of a (possibly abstract) state."""
        mesh, count = self.mesh, len(self.devices)

        def spec(path, leaf):
            if self.mode != "fsdp":
                return NamedSharding(mesh, P())
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            axis = next((a for regex, a in self.rules if re.search(regex, name)), None)
            shape = np.shape(leaf)
            even = [i for i, n in enumerate(shape) if n % count == 0]
            if axis == -1:
                axis = max(even, key=lambda i: shape[i], default=None)
            if axis is None or axis not in even:
                return NamedSharding(mesh, P())
            return NamedSharding(mesh, P(*[AXIS if i == axis else None for i in range(len(shape))]))

        return jax.tree_util.tree_map_with_path(spec, state)

    def place(self, tree: Any) -> Any:
        """Puts equal host values of every process on the devices, sharded as a state."""
        return jax.tree.map(_from_equal_hosts, tree, self.state_shardings(tree))

    def replicate(self, tree: Any) -> Any:
        """The same, one whole copy per device."""
        whole = NamedSharding(self.mesh, P())
        return jax.tree.map(lambda v: _from_equal_hosts(v, whole), tree)

    def replicate_key(self, seed: int) -> jax.Array:
        """A random key on every device."""
        data = self.replicate(np.asarray(jax.random.key_data(jax.random.key(seed))))
        return jax.random.wrap_key_data(data)

    def place_batch(self, batch: Any) -> Any:
        """This process's [k, local batch, ...] arrays as one dispatch on the devices."""
        spec = P(AXIS) if self.mode == "pmap" else P(None, AXIS)
        sharding = NamedSharding(self.mesh, spec)
        return jax.tree.map(
            lambda v: jax.make_array_from_process_local_data(sharding, v), self._split(batch)
        )

    def _split(self, batch: Any) -> Any:
        """For pmap a leading axis of this process's devices."""
        if self.mode != "pmap":
            return batch
        n = self.local_count
        return jax.tree.map(
            lambda v: np.moveaxis(v.reshape(v.shape[0], n, -1, *v.shape[2:]), 1, 0), batch
        )

    def per_device(self, f: Callable) -> Callable:
        """f(params, collections, batch, resident, key) on each device's share of the batch."""
        if self.mode == "pmap":
            return f  # the whole dispatch runs per device already
        specs = (P(), P(), P(AXIS), P(), P())
        return jax.shard_map(f, mesh=self.mesh, in_specs=specs, out_specs=P(), check_vma=False)

    def compile(
        self, dispatch: Dispatch, state: TrainState, batch: Any, resident: Any, key: Any
    ) -> Any:
        """`dispatch(state, batch, resident, key)` for arguments like these; donates the state.

        `batch` is this process's, from the pipeline; what is compiled is called with
        `place_batch(batch)`. Returns when every process has compiled: Gloo waits 30 seconds for
        the others of a first collective, and then gives up for good.
        """
        if self.mode == "pmap":
            everywhere = jax.process_count() > 1
            run = jax.pmap(
                dispatch,
                axis_name=AXIS,
                in_axes=(None, 0, None, None),
                out_axes=None,
                donate_argnums=0,
                devices=None if everywhere else self.devices,
            )
            # Lowered for host-local batches but called with global arrays: called directly, pmap
            # would return host-local states, which no checkpoint of many processes can hold.
            lowered = run.lower(state, self._split(batch), resident, key)
        else:
            whole = NamedSharding(self.mesh, P())
            run = jax.jit(
                dispatch, donate_argnums=0, out_shardings=(self.state_shardings(state), whole)
            )
            lowered = run.lower(state, self.place_batch(batch), resident, key)
        compiled = lowered.compile()
        distributed.barrier("compiled")
        return compiled

    def local(self, tree: Any) -> Any:
        """Whole arrays on one of this process's devices, for evaluation and export."""
        if self.mode == "fsdp":
            whole = NamedSharding(self.mesh, P())
            tree = jax.jit(lambda t: t, out_shardings=jax.tree.map(lambda _: whole, tree))(tree)
        return jax.tree.map(lambda v: v.addressable_data(0), tree)


def of_config(config: Any) -> Sharding:
    """The sharding that a `config.train` asks for.

    Raises:
      UserError: an unknown mode, or more devices than there are.
    """
    count = config.devices
    if not 0 <= count <= jax.device_count():
        raise UserError(f"train.devices = {count}: there are {jax.device_count()}")
    return Sharding(config.mode, config.fsdp, jax.devices()[: count or None])


def _from_equal_hosts(value: Any, sharding: NamedSharding) -> jax.Array:
    value = np.asarray(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])

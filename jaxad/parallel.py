"""Two ways to spread one program over all devices: `jit` of `shard_map`, and `pmap`.

Both take the same functions, which see one device's part of the batch and an axis name to reduce
over; where there is one device, the part is the whole and there is no axis. The collectives are
those that the functions ask for and no others: the compiler places none.
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxad.errors import UserError
from jaxad.types import Tree

MODES = ("jit", "pmap")
_AXIS = "data"


@dataclasses.dataclass(frozen=True)
class Parallel:
    """How arrays lie on the devices, and how functions are compiled for them.

    Attributes:
        mode: `jit` or `pmap`.
        devices: all devices of all processes, those of a process beside each other.
    """

    mode: str
    devices: tuple[jax.Device, ...]

    @property
    def axis_name(self) -> str | None:
        """The axis that functions reduce over; None where they see the global batch."""
        return _AXIS if len(self.devices) > 1 else None

    @property
    def is_local(self) -> bool:
        """Whether all devices are this process's."""
        return len(self._local_devices) == len(self.devices)

    def local(self) -> "Parallel":
        """The same over this process's devices alone."""
        return Parallel(self.mode, tuple(self._local_devices))

    @property
    def _local_devices(self) -> list[jax.Device]:
        return [d for d in self.devices if d.process_index == jax.process_index()]

    @property
    def _mesh(self) -> Mesh:
        return _mesh(self.devices)

    def _sharding(self, *axes: str) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec(*axes))

    def check_batch_size(self, field: str, batch_size: int) -> None:
        """Raises a UserError where the devices cannot share a batch evenly."""
        if batch_size < 1 or batch_size % len(self.devices):
            raise UserError(
                f"{field}: {batch_size} images cannot be shared by {len(self.devices)} devices; "
                f"choose a multiple of {len(self.devices)}."
            )

    @property
    def _one_part_each(self) -> NamedSharding:
        """pmap's layout: the first axis is this process's devices."""
        return NamedSharding(_mesh(self._local_devices), PartitionSpec(_AXIS))

    def round_up(self, batch_size: int) -> int:
        """The least multiple of the number of devices that is not below `batch_size`."""
        return -(-batch_size // len(self.devices)) * len(self.devices)

    def put_replicated(self, tree: Tree) -> Tree:
        """The same tree on every device."""
        if self.mode == "pmap":
            count = len(self._local_devices)
            stacked = jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), tree)
            return jax.device_put(stacked, self._one_part_each)
        return jax.device_put(tree, self._sharding())

    def put_batch(self, batch: dict[str, np.ndarray]) -> Tree:
        """This process's part of a batch, spread over its devices."""
        if self.mode == "pmap":
            count = len(self._local_devices)
            parts = {name: x.reshape(count, -1, *x.shape[1:]) for name, x in batch.items()}
            return jax.device_put(parts, self._one_part_each)
        sharding = self._sharding(_AXIS)
        return {
            name: jax.make_array_from_process_local_data(sharding, array)
            for name, array in batch.items()
        }

    def get_replicated(self, tree: Tree) -> Tree:
        """A replicated tree as NumPy arrays."""
        if self.mode == "pmap":
            tree = jax.tree.map(lambda x: x.addressable_shards[0].data[0], tree)
        return jax.device_get(tree)

    def get_per_example(self, tree: Tree) -> Tree:
        """Per-example results of the global batch, in order, as NumPy arrays [B, ...]."""
        if not self.is_local:
            from jax.experimental import multihost_utils

            tree = multihost_utils.process_allgather(tree, tiled=True)
        tree = jax.device_get(tree)
        if self.mode == "pmap":
            tree = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
        return tree

    def compile_reduce(
        self, function: Callable[..., Any], *, donate_state: bool = False
    ) -> Callable[[Tree, Tree], Any]:
        """Compiles f(state, batch) whose results are the same on every device."""
        donate = (0,) if donate_state else ()
        if self.mode == "pmap":
            return jax.pmap(function, axis_name=_AXIS, donate_argnums=donate, devices=self.devices)
        return jax.jit(self._mapped(function, PartitionSpec()), donate_argnums=donate)

    def compile_per_example(self, function: Callable[..., Any]) -> Callable[[Tree, Tree], Any]:
        """Compiles f(state, batch) whose results have the batch as their first axis."""
        if self.mode == "pmap":
            return jax.pmap(function, axis_name=_AXIS, devices=self.devices)
        return jax.jit(self._mapped(function, PartitionSpec(_AXIS)))

    def _mapped(self, function: Callable[..., Any], out: PartitionSpec) -> Callable[..., Any]:
        return jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=(PartitionSpec(), PartitionSpec(_AXIS)),
            out_specs=out,
            # As in pmap: a gradient is one device's own until the function sums it.
            check_vma=False,
        )

    def prefetch(self, batches: Iterable[dict[str, np.ndarray]], depth: int = 2) -> Iterator[Tree]:
        """Batches on the devices; `depth` of them, the one in use included, are there at once."""
        queue: collections.deque[Tree] = collections.deque()
        for batch in batches:
            queue.append(self.put_batch(batch))
            if len(queue) >= depth:
                yield queue.popleft()
        yield from queue


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Devices in their order: `jax.make_mesh` may choose another one."""
    return Mesh(np.asarray(devices), (_AXIS,), axis_types=(AxisType.Auto,))


def make_parallel(mode: str, devices: Sequence[jax.Device] | None = None) -> Parallel:
    """The parallelism that `config.parallel` names, over all devices unless told which.

    Raises:
        UserError: there is no such mode.
    """
    if mode not in MODES:
        raise UserError(f"config.parallel: unknown mode '{mode}'; known: {', '.join(MODES)}.")
    found = jax.devices() if devices is None else devices
    # A process's devices beside each other: its part of a batch is one piece of it, in order.
    return Parallel(mode, tuple(sorted(found, key=lambda device: device.process_index)))


def on_host() -> contextlib.AbstractContextManager[None]:
    """Inside, JAX computes on the host's processor, unless JAX_PLATFORMS leaves it out."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return contextlib.nullcontext()
    return jax.default_device(host)


def split_cpu(count: int) -> None:
    """Makes JAX see the CPU as so many devices, where JAX has not started yet.

    XLA runs the small operations of a small batch on one core; two devices on two cores share
    the batch. Without effect where a CPU is not what JAX runs on, or where XLA_FLAGS decide.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # JAX has started: it keeps the devices it has.
        jax.config.update("jax_num_cpu_devices", count)

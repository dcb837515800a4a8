"""Data parallelism over all devices: `jit` of `shard_map`, or `pmap`, for the same functions.

A function f(state, batch) sees the replicated state, its device's part of the batch, and the name
of the axis to reduce over. With one device the part is the whole batch and there is no axis. The
compiler inserts no collectives; the only ones are those in the function.

`Parallel` places arrays and compiles functions. Compiled functions are `Dispatched`, which limits
how many of them the devices have queued.
"""

import collections
import contextlib
import dataclasses
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxad.errors import UserError
from jaxad.runtime.watchdog import Watchdog
from jaxad.types import Tree

logger = logging.getLogger(__name__)

_AXIS = "data"

#: Programs that may be queued on the devices. On a CPU two keep the devices busy. XLA runs all CPU
#: devices of a process on one thread pool: with more than 32 queued programs, launches block the
#: threads that their partners in an all-reduce need, and the process hangs. On accelerators the
#: limit bounds the memory of queued batches.
_MOST_ON_CPU, _MOST_ON_ACCELERATORS = 2, 16

_REMEDIES = {
    "cpu": (
        "If it does not resume, press Ctrl-C twice and run the same command again with "
        "XLA_FLAGS=--xla_force_host_platform_device_count=1 before it."
    ),
    "": (
        "Check the devices and the other processes of this run. If it does not resume, press "
        "Ctrl-C twice and run the same command again."
    ),
}


class InFlight:
    """The programs that the devices of a platform have queued, at most `most`. Thread-safe."""

    def __init__(self, most: int, platform: str) -> None:
        self._most = most
        self._lock = threading.RLock()
        self._results: collections.deque[jax.Array] = collections.deque()
        self._watchdog = Watchdog(_REMEDIES.get(platform, _REMEDIES[""]))

    def send(self, program: Callable[[], Any], is_donated: bool) -> Any:
        """Dispatches a program once there is room for one more; its results may not be ready.

        If `is_donated`, the first result is donated to another program and cannot be waited for,
        but the others can.
        """
        with self._lock:
            self._wait_for(self._most - 1)
            results = program()
            tracked = jax.tree.leaves(results[1:] if is_donated else results)
            # All results of a program are ready at once; the smallest takes the least memory.
            arrays = [x for x in tracked if isinstance(x, jax.Array)]
            if arrays:
                self._results.append(min(arrays, key=lambda array: array.nbytes))
            return results

    def wait(self) -> None:
        """Waits until no program is queued."""
        with self._lock:
            self._wait_for(0)

    def _wait_for(self, count: int) -> None:
        """Waits until at most `count` programs are queued."""
        while len(self._results) > count:
            result = self._results.popleft()
            if not result.is_deleted():
                with self._watchdog.waiting():
                    result.block_until_ready()


@functools.cache
def _in_flight(platform: str) -> InFlight:
    """Returns the queue that all programs of the process share, as XLA's thread pool is shared."""
    return InFlight(_MOST_ON_CPU if platform == "cpu" else _MOST_ON_ACCELERATORS, platform)


class Dispatched:
    """A compiled f(state, batch) that waits while too many programs are queued."""

    def __init__(self, compiled: Any, in_flight: InFlight, donates_state: bool) -> None:
        self._compiled = compiled
        self._in_flight = in_flight
        self._donates_state = donates_state

    def __call__(self, state: Tree, batch: Tree) -> Any:
        """Dispatches the program; its results may not be ready."""
        return self._in_flight.send(lambda: self._compiled(state, batch), self._donates_state)

    def lower(self, state: Tree, batch: Tree) -> Any:
        """Lowers the function for these arguments; see `jax.jit(f).lower`."""
        return self._compiled.lower(state, batch)


@dataclasses.dataclass(frozen=True)
class Parallel:
    """The placement of arrays on the devices, and the compilation of functions for them.

    Attributes:
        mode: `jit` or `pmap`.
        devices: all devices of all processes, ordered by process.
    """

    mode: str
    devices: tuple[jax.Device, ...]

    @property
    def in_flight(self) -> InFlight:
        """The programs that this process has queued."""
        return _in_flight(self.devices[0].platform)

    @property
    def axis_name(self) -> str | None:
        """The name of the axis that functions reduce over; None for one device."""
        return _AXIS if len(self.devices) > 1 else None

    @property
    def is_local(self) -> bool:
        """Whether all devices belong to this process."""
        return len(self._local_devices) == len(self.devices)

    def local(self) -> "Parallel":
        """Returns the same placement, restricted to the devices of this process."""
        return Parallel(self.mode, tuple(self._local_devices))

    @property
    def _local_devices(self) -> list[jax.Device]:
        return [d for d in self.devices if d.process_index == jax.process_index()]

    def _sharding(self, *axes: str) -> NamedSharding:
        return NamedSharding(_mesh(self.devices), PartitionSpec(*axes))

    def check_batch_size(self, field: str, batch_size: int) -> None:
        """Raises a UserError if the devices cannot share a batch evenly."""
        if batch_size < 1 or batch_size % len(self.devices):
            raise UserError(
                f"{field}: {batch_size} images cannot be split evenly over {len(self.devices)} "
                f"devices; choose a multiple of {len(self.devices)}."
            )

    @property
    def _pmap_sharding(self) -> NamedSharding:
        """The layout of pmap: the first axis is spread over the devices of this process."""
        return NamedSharding(_mesh(self._local_devices), PartitionSpec(_AXIS))

    def round_up(self, batch_size: int) -> int:
        """Returns the least multiple of the number of devices that is at least `batch_size`."""
        return -(-batch_size // len(self.devices)) * len(self.devices)

    def put_replicated(self, tree: Tree) -> Tree:
        """Copies a tree of arrays to every device."""
        if self.mode == "pmap":
            count = len(self._local_devices)
            stacked = jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), tree)
            return jax.device_put(stacked, self._pmap_sharding)
        return jax.device_put(tree, self._sharding())

    def put_batch(self, batch: dict[str, np.ndarray]) -> Tree:
        """Spreads this process's part of a batch over its devices."""
        if self.mode == "pmap":
            count = len(self._local_devices)
            parts = {name: x.reshape(count, -1, *x.shape[1:]) for name, x in batch.items()}
            return jax.device_put(parts, self._pmap_sharding)
        sharding = self._sharding(_AXIS)
        return {
            name: jax.make_array_from_process_local_data(sharding, array)
            for name, array in batch.items()
        }

    def get_replicated(self, tree: Tree) -> Tree:
        """Returns a replicated tree as NumPy arrays."""
        self.in_flight.wait()
        if self.mode == "pmap":
            tree = jax.tree.map(lambda x: x.addressable_shards[0].data[0], tree)
        return jax.device_get(tree)

    def get_per_example(self, tree: Tree) -> Tree:
        """Returns per-example results of the global batch, in order, as NumPy arrays [B, ...]."""
        self.in_flight.wait()
        if not self.is_local:
            from jax.experimental import multihost_utils

            tree = multihost_utils.process_allgather(tree, tiled=True)
        tree = jax.device_get(tree)
        if self.mode == "pmap":
            tree = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
        return tree

    def compile_reduce(
        self, function: Callable[..., Any], *, donate_state: bool = False
    ) -> Dispatched:
        """Compiles f(state, batch) whose results are the same on every device.

        If the state is donated, f returns (new state, other results).
        """
        return self._compile(function, PartitionSpec(), donate_state)

    def compile_per_example(self, function: Callable[..., Any]) -> Dispatched:
        """Compiles f(state, batch) whose results have the batch as their first axis."""
        return self._compile(function, PartitionSpec(_AXIS), donate_state=False)

    def _compile(
        self, function: Callable[..., Any], out: PartitionSpec, donate_state: bool
    ) -> Dispatched:
        donate = (0,) if donate_state else ()
        if self.mode == "pmap":
            compiled = jax.pmap(
                function, axis_name=_AXIS, donate_argnums=donate, devices=self.devices
            )
        else:
            mapped = jax.shard_map(
                function,
                mesh=_mesh(self.devices),
                in_specs=(PartitionSpec(), PartitionSpec(_AXIS)),
                out_specs=out,
                # As in pmap: a gradient belongs to one device until the function sums it.
                check_vma=False,
            )
            compiled = jax.jit(mapped, donate_argnums=donate)
        return Dispatched(compiled, self.in_flight, donate_state)

    def prefetch(self, batches: Iterable[dict[str, np.ndarray]]) -> Iterator[Tree]:
        """Yields batches on the devices; at most two exist at once, with the one in use."""
        queue: collections.deque[Tree] = collections.deque()
        for batch in batches:
            queue.append(self.put_batch(batch))
            if len(queue) > 1:
                yield queue.popleft()
        yield from queue


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Makes a mesh that keeps the order of the devices, which `jax.make_mesh` may change."""
    return Mesh(np.asarray(devices), (_AXIS,), axis_types=(AxisType.Auto,))


def make_parallel(mode: str, devices: Sequence[jax.Device] | None = None) -> Parallel:
    """Returns the parallelism `jit` or `pmap`, by default over all devices of all processes."""
    devices = jax.devices() if devices is None else devices
    # Ordered by process, so that a process's part of a batch is one slice of it.
    return Parallel(mode, tuple(sorted(devices, key=lambda device: device.process_index)))


def host_device() -> jax.Device | None:
    """Returns the CPU as a device of JAX; None if JAX_PLATFORMS excludes it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def on_host() -> contextlib.AbstractContextManager[None]:
    """Makes JAX compute on the CPU inside the block, unless JAX_PLATFORMS excludes it."""
    host = host_device()
    return contextlib.nullcontext() if host is None else jax.default_device(host)


def split_cpu(count: int) -> None:
    """Makes JAX see the CPU as `count` devices; has no effect once JAX has started.

    XLA runs the small operations of a small batch on one core; two devices on two cores share the
    batch. Accelerators are not affected, and a count in XLA_FLAGS takes precedence.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", count)


def warn_of_crowded_cpu() -> None:
    """Warns if there are more CPU devices than cores; starts JAX."""
    devices = jax.local_devices()
    cores = num_cores()
    if devices[0].platform == "cpu" and len(devices) > cores:
        logger.warning(
            f"warning: {len(devices)} CPU devices share {cores} core{'s' * (cores > 1)}, which is "
            f"slower; use at most {cores} (config.cpu_devices)."
        )


def num_cores() -> int:
    """Returns the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

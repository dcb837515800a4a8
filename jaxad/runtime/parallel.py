"""Two ways to spread one program over all devices: `jit` of `shard_map`, and `pmap`.

Both take the same functions, which see one device's part of the batch and an axis name to reduce
over; where there is one device, the part is the whole and there is no axis. The collectives are
those that the functions ask for and no others: the compiler places none.

Every program is sent to the devices through `Dispatched`, which bounds how many are under way.
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

#: Programs that may be under way at once. On a CPU two keep the devices busy. XLA runs all CPU
#: devices of a process on one pool of threads; with more than 32 programs under way, launches wait
#: on the threads that the partners in an all-reduce need, and the process hangs. On accelerators
#: the bound limits the memory of batches that wait.
_MOST_ON_CPU, _MOST_ON_ACCELERATORS = 2, 16

_REMEDIES = {
    "cpu": (
        "If it does not go on, press Ctrl-C twice and start the same command again with "
        "XLA_FLAGS=--xla_force_host_platform_device_count=1 before it."
    ),
    "": (
        "Look at the devices and at the other processes of this run; if it does not go on, press "
        "Ctrl-C twice and start the same command again."
    ),
}


class InFlight:
    """The results that the devices still compute; there are never more than `most`.

    Threads may share it.

    Args:
        most: how many programs may be under way.
        platform: of the devices, such as `cpu`.
    """

    def __init__(self, most: int, platform: str) -> None:
        self._most = most
        self._lock = threading.RLock()
        self._results: collections.deque[jax.Array] = collections.deque()
        self._watchdog = Watchdog(_REMEDIES.get(platform, _REMEDIES[""]))

    def send(self, program: Callable[[], Any], tracked: Callable[[Any], Tree]) -> Any:
        """Sends a program to the devices once there is room for one more.

        Args:
            program: sends it and returns its results, which may not be there yet.
            tracked: the part of the results that nobody takes over before they are there.

        Returns:
            The results.
        """
        with self._lock:
            self._wait_for(self._most - 1)
            results = program()
            # All results of a program are there at once; the smallest takes the least memory.
            arrays = [x for x in jax.tree.leaves(tracked(results)) if isinstance(x, jax.Array)]
            if arrays:
                self._results.append(min(arrays, key=lambda array: array.nbytes))
            return results

    def wait(self) -> None:
        """Returns when no program is under way."""
        with self._lock:
            self._wait_for(0)

    def _wait_for(self, count: int) -> None:
        """Returns when at most `count` programs are under way."""
        while len(self._results) > count:
            result = self._results.popleft()
            if not result.is_deleted():
                with self._watchdog.waiting():
                    result.block_until_ready()


@functools.cache
def _in_flight(platform: str) -> InFlight:
    """The one of this process: XLA's limit is for all programs of a process."""
    return InFlight(_MOST_ON_CPU if platform == "cpu" else _MOST_ON_ACCELERATORS, platform)


class Dispatched:
    """A compiled f(state, batch) that waits while too many programs are under way."""

    def __init__(self, compiled: Any, in_flight: InFlight, donates_state: bool) -> None:
        self._compiled = compiled
        self._in_flight = in_flight
        self._donates_state = donates_state

    def __call__(self, state: Tree, batch: Tree) -> Any:
        """Sends the program to the devices; its results may not be there yet."""

        def tracked(results: Any) -> Tree:
            # The next call takes the new state over; what else there is can be waited for.
            return results[1] if self._donates_state else results

        return self._in_flight.send(lambda: self._compiled(state, batch), tracked)

    def lower(self, state: Tree, batch: Tree) -> Any:
        """Lowers the function for these arguments, as `jax.jit(f).lower` does."""
        return self._compiled.lower(state, batch)


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
    def in_flight(self) -> InFlight:
        """What this process's devices compute, for this and all other layouts."""
        return _in_flight(self.devices[0].platform)

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
        self.in_flight.wait()
        if self.mode == "pmap":
            tree = jax.tree.map(lambda x: x.addressable_shards[0].data[0], tree)
        return jax.device_get(tree)

    def get_per_example(self, tree: Tree) -> Tree:
        """Per-example results of the global batch, in order, as NumPy arrays [B, ...]."""
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

        Args:
            function: to compile.
            donate_state: whether the state's memory becomes the results'; f then returns
                (new state, others).
        """
        donate = (0,) if donate_state else ()
        if self.mode == "pmap":
            compiled = jax.pmap(
                function, axis_name=_AXIS, donate_argnums=donate, devices=self.devices
            )
        else:
            compiled = jax.jit(self._mapped(function, PartitionSpec()), donate_argnums=donate)
        return Dispatched(compiled, self.in_flight, donate_state)

    def compile_per_example(self, function: Callable[..., Any]) -> Dispatched:
        """Compiles f(state, batch) whose results have the batch as their first axis."""
        if self.mode == "pmap":
            compiled = jax.pmap(function, axis_name=_AXIS, devices=self.devices)
        else:
            compiled = jax.jit(self._mapped(function, PartitionSpec(_AXIS)))
        return Dispatched(compiled, self.in_flight, donates_state=False)

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
    """The parallelism that `config.parallel` names, over all devices unless some are given."""
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


def warn_of_crowded_cpu() -> None:
    """Prints a warning where there are more CPU devices than cores; call it once JAX may start."""
    devices = jax.local_devices()
    cores = num_cores()
    if devices[0].platform == "cpu" and len(devices) > cores:
        logger.warning(
            f"warning: {len(devices)} CPU devices share {cores} core{'s' * (cores > 1)}, which "
            f"takes longer; use at most {cores} (config.cpu_devices)."
        )


def num_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""The measurements of one system in `versus_torch.py`, side by side."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import sides
from machine_load import load_of_others
from result_rows import COLUMNS, Row, mean_rate
from sides import Case, Process, Side, SideError

_SECONDS = 1.0  # minimum length of a measurement
_PAUSE = 0.3  # seconds between sides: threads of OpenMP spin for some milliseconds after their work
_MATRIX_OPERATIONS = 2 * 2048**3


def in_turn(
    sides_of_row: dict[str, Callable[[], float]], repeats: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Measures the sides of a row in turn; returns their values and why sides failed."""
    values: dict[str, list[float]] = {name: [] for name in sides_of_row}
    failed: dict[str, str] = {}
    for repeat in range(repeats):
        order = list(sides_of_row)
        for name in order if repeat % 2 == 0 else order[::-1]:
            if name in failed:
                continue
            try:
                values[name].append(sides_of_row[name]())
            except SideError as error:
                failed[name], values[name] = str(error), []
            time.sleep(_PAUSE)
    return values, failed


class Measurement:
    """The measurement of one system: its rows in order.

    Args:
        done: rows that an earlier run measured, by name.
    """

    def __init__(
        self, case: Case, sides_by_name: dict[str, Side], options: Any, done: dict[str, Row]
    ):
        self._case, self._sides, self._options = case, sides_by_name, options
        self._done, self._servers = done, {}

    def rows(self) -> Iterator[Row]:
        """Yields the rows as they are measured."""
        if self._options.only != "fresh":
            try:
                yield from self._throughput()
            finally:
                for server in self._servers.values():
                    server.stop()
        if self._options.fresh_repeats and self._options.only in ("", "fresh"):
            yield from self._memory()
            if self._case.phases:
                yield from self._first_updates()

    def _row(self, name: str, higher: bool, measure: Callable[[], Any]) -> Row:
        """Measures a row, unless it is done, between two looks at the processor's load."""
        if name in self._done:
            return self._done[name]
        numbers = [server.number for server in self._servers.values()]
        before = load_of_others(numbers)
        values, failed = measure()
        after = "" if before else load_of_others(numbers)
        void = f"{before} before it" if before else f"{after} after it" if after else ""
        if void:
            print(f"void: {void}: {name}", file=sys.stderr)
        return Row(name, higher, values, failed, void)

    def _throughput(self) -> Iterator[Row]:
        tasks: dict[str, list[str]] = {}
        broken: dict[str, str] = {}
        for name, side in self._sides.items():
            self._servers[name] = Process(sides.serve, side, self._case)
        for name, server in self._servers.items():
            try:
                tasks[name] = server.receive()
            except SideError as error:
                broken[name] = str(error)
        rows: dict[str, Row] = {}
        names = [task for task in next(iter(tasks.values()), []) if task != "flops"]
        only = self._options.only
        if names and only not in ("", *names):
            raise SideError(f"--only={only}: choose from {', '.join(names)}, fresh")
        for task in names:
            if self._options.only not in ("", task):
                continue
            unit = "1/s" if task == "matrix product" else "images/s"
            rows[task] = self._row(f"{task}, {unit}", True, lambda task=task: self._in_turn(task))
            rows[task].failed |= broken
            yield rows[task]
            if (
                "train" not in rows
                and self._case.shares
                and self._case.shares.keys() <= rows.keys()
            ):
                rows["train"] = _mean_row(self._case, rows)
                yield rows["train"]
        needed = {"matrix product", "train from features"}
        if needed <= rows.keys() and "flops" in tasks.get("jaxad", []):
            flops = self._servers["jaxad"].ask("flops", 1) / self._case.batch_size
            yield _share_row(flops, rows)

    def _in_turn(self, task: str) -> tuple[dict[str, list[float]], dict[str, str]]:
        size = self._case.size(task)
        counts: dict[str, int] = {}

        def measure(name: str) -> float:
            server = self._servers[name]
            if name not in counts:  # compile, warm up, and find how many calls take long enough
                server.ask(task, 2)
                counts[name] = max(1, round(_SECONDS / server.ask(task, 1)))
                time.sleep(_PAUSE)
            return size * counts[name] / server.ask(task, counts[name])

        return in_turn(
            {name: lambda name=name: measure(name) for name in self._servers},
            self._options.repeats,
        )

    def _fresh(
        self, function: Callable[..., None], *args: Any, environment: dict[str, str] | None = None
    ) -> dict[str, Callable[[], float]]:
        return {
            name: lambda side=side: sides.answer(
                function, side, self._case, *args, environment=environment
            )
            for name, side in self._sides.items()
        }

    def _memory(self) -> Iterator[Row]:
        for kind in ("train" if self._case.phases else "fit", "score"):
            measured = self._fresh(sides.peak_memory, kind)
            yield self._row(
                f"peak memory, {kind}, MiB", False,
                lambda measured=measured: in_turn(measured, self._options.fresh_repeats),
            )  # fmt: skip

    def _first_updates(self) -> Iterator[Row]:
        """Yields the times with an empty cache of programs, and then with the filled one."""
        names = [f"first update, {cache} cache, s" for cache in ("empty", "filled")]
        if all(name in self._done for name in names):
            yield from (self._done[name] for name in names)
            return
        folders = [tempfile.TemporaryDirectory() for _ in range(self._options.fresh_repeats)]

        def measure() -> tuple[dict[str, list[float]], dict[str, str]]:
            values: dict[str, list[float]] = {name: [] for name in self._sides}
            failed: dict[str, str] = {}
            for folder in folders:
                path = folder.name
                environment = {
                    "XDG_CACHE_HOME": path, "JAX_COMPILATION_CACHE_DIR": f"{path}/jax",
                    "TORCHINDUCTOR_CACHE_DIR": f"{path}/torch",
                }  # fmt: skip
                measured = self._fresh(sides.first_update, environment=environment)
                once, failures = in_turn(measured, 1)
                failed |= failures
                for name, seconds in once.items():
                    values[name] += seconds
            return {name: [] if name in failed else v for name, v in values.items()}, failed

        for name in names:  # both or neither
            self._done.pop(name, None)
        yield from (self._row(name, False, measure) for name in names)
        for folder in folders:
            folder.cleanup()


def _mean_row(case: Case, rows: dict[str, Row]) -> Row:
    """Returns a run's images per second from those of its kinds of updates."""
    parts = {task: rows[task] for task in case.shares}
    values = {
        side: [
            mean_rate(dict(zip(parts, rates, strict=True)), case.shares)
            for rates in zip(*(row.values[side] for row in parts.values()), strict=True)
        ]
        for side in COLUMNS
        if all(row.values.get(side) for row in parts.values())
    }
    failed = {side: reason for row in parts.values() for side, reason in row.failed.items()}
    void = next((row.void for row in parts.values() if row.void), "")
    return Row("train, images/s", True, values, failed, void)


def _share_row(flops: float, rows: dict[str, Row]) -> Row:
    """Returns the share of the fastest matrix product that an update from features reaches.

    `flops` are the operations of an update for each image.
    """
    products = rows["matrix product"].values.values()
    ceiling = max(statistics.median(values) for values in products if values) * _MATRIX_OPERATIONS
    updates = rows["train from features"]
    values = {
        side: [rate * flops / ceiling for rate in rates] for side, rates in updates.values.items()
    }
    void = updates.void or rows["matrix product"].void
    return Row(
        "update from features, share of the matrix product",
        True,
        values,
        dict(updates.failed),
        void,
    )

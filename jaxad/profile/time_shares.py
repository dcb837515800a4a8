"""Shares of the time of a traced program, by kind of operation and by layer.

A trace names the operations of the compiled program, and the program's HLO text names the layer
that each came from. A fused kernel is assigned to the layer of its last operation.
"""

import collections
import re
from collections.abc import Mapping
from pathlib import Path

import jax

from jaxad.profile.program_costs import OPERATION

_ORIGIN = re.compile(r'op_name="([^"]*)"')
#: Operations whose time is that of the operations inside them.
_HOLDERS = ("while", "call", "conditional")
_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
#: Names in the path of an operation that JAX adds.
_STRUCTURE = {"shard_map", "while", "body", "cond", "closed_call", "checkpoint", "remat"}

#: Operations outside of layers: losses, optimiser, random numbers.
NO_LAYER = "(no layer)"
BETWEEN_DEVICES = "(between devices)"


def operation_seconds(folder: Path) -> dict[str, float]:
    """Sums the seconds of each operation over devices, in a folder of `jax.profiler.trace`.

    Returns:
        HLO operation -> seconds; empty if the trace of the backend does not name operations.
    """
    seconds: dict[str, float] = collections.defaultdict(float)
    for path in sorted(folder.rglob("*.xplane.pb")):
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        for event in (event for plane in planes for line in plane.lines for event in line.events):
            operation = dict(event.stats).get("hlo_op")
            # Other events have the name too: `wait for ...`, `end: ...`.
            if operation is not None and event.name == operation:
                seconds[str(operation)] += event.duration_ns * 1e-9
    return seconds


def shares(seconds: Mapping[str, float], text: str) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the shares of the time by kind of operation and by layer, largest first.

    Args:
        seconds: operation -> seconds; see `operation_seconds`.
        text: the HLO text of the compiled program.

    Returns:
        JAX primitive, such as `conv_general_dilated`, -> share; and layer -> share, with
        ` backward` after the layer for its gradient. The shares sum to 1; or both are empty.
    """
    origins = _origins(text)
    kinds: dict[str, float] = collections.defaultdict(float)
    layers: dict[str, float] = collections.defaultdict(float)
    for operation, duration in seconds.items():
        if operation in origins:
            kind, layer = origins[operation]
            kinds[kind] += duration
            layers[layer] += duration
    return _normalised(kinds), _normalised(layers)


def _origins(text: str) -> dict[str, tuple[str, str]]:
    """Returns operation -> (primitive, layer)."""
    origins = {}
    for line in text.splitlines():
        operation = OPERATION.match(line)
        if not operation or operation["kind"] in _HOLDERS:
            continue
        origin, kind = _ORIGIN.search(line), operation["kind"]
        if kind.startswith(_COLLECTIVES):
            origins[operation["name"]] = (kind, BETWEEN_DEVICES)  # sums over all layers
        elif origin:
            origins[operation["name"]] = (primitive(origin[1]), layer(origin[1]))
        else:
            origins[operation["name"]] = (kind, NO_LAYER)
    return origins


def primitive(origin: str) -> str:
    """Returns the last part of a path like `jit(train_step)/jvp(Net)/stem/conv_general_dilated`."""
    return origin.rpartition("/")[2]


def layer(origin: str) -> str:
    """Returns the modules in a path like `jit(f)/transpose(jvp(Net))/stem/conv_general_dilated`."""
    parts = [part for part in origin.split("/")[:-1] if part not in _STRUCTURE]
    # A method is named without its class: `Modules.encode` is `encode`.
    modules = [part.rpartition(".")[2] for part in parts if "(" not in part and ")" not in part]
    if not modules:
        return NO_LAYER
    return "/".join(modules) + (" backward" if "transpose(" in origin else "")


def _normalised(seconds: Mapping[str, float]) -> dict[str, float]:
    total = sum(seconds.values())
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return {name: duration / total for name, duration in ordered if total > 0}

"""Where the time of a traced program goes, by kind of operation and by layer.

A trace names the operations of the compiled program; the program's text says of each which of our
layers it came from. A fused kernel counts where its last operation came from.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

_LINE = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = .*? (?P<kind>[a-z][a-z0-9\-]*)\(")
_ORIGIN = re.compile(r'op_name="([^"]*)"')
#: Their time is that of the operations inside them.
_HOLDERS = ("while", "call", "conditional")
_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
#: Names in an operation's path that are JAX's own.
_STRUCTURE = {"shard_map", "while", "body", "cond", "closed_call", "checkpoint", "remat"}

#: What comes from no layer: losses, optimiser, random numbers.
NO_LAYER = "(no layer)"
BETWEEN_DEVICES = "(between devices)"


def operation_seconds(folder: Path) -> dict[str, float]:
    """Seconds of each operation of the compiled program in a trace, summed over devices.

    Args:
        folder: that `jax.profiler.trace` wrote to.

    Returns:
        HLO operation -> seconds; empty where the backend's trace does not name them.
    """
    seconds: dict[str, float] = {}
    for path in sorted(folder.rglob("*.xplane.pb")):
        for name, duration in _events(path):
            seconds[name] = seconds.get(name, 0.0) + duration
    return seconds


def _events(path: Path) -> Iterator[tuple[str, float]]:
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                # Other events carry the name too: `wait for ...`, `end: ...`.
                if operation is not None and event.name == operation:
                    yield str(operation), event.duration_ns * 1e-9


def shares(seconds: Mapping[str, float], text: str) -> tuple[dict[str, float], dict[str, float]]:
    """The parts of the time by kind of operation and by layer, largest first.

    Args:
        seconds: by operation, see `operation_seconds`.
        text: the compiled program's, in HLO's text form.

    Returns:
        JAX's primitive (`conv_general_dilated`) -> share, and layer, ` backward` behind it where
        the gradient was computed, -> share; both sum to 1, or are empty.
    """
    origins = _origins(text)
    kinds: dict[str, float] = {}
    layers: dict[str, float] = {}
    for operation, duration in seconds.items():
        if operation in origins:
            kind, layer = origins[operation]
            kinds[kind] = kinds.get(kind, 0.0) + duration
            layers[layer] = layers.get(layer, 0.0) + duration
    return _normalised(kinds), _normalised(layers)


def _origins(text: str) -> dict[str, tuple[str, str]]:
    """(primitive, layer) of each operation of a program."""
    found = {}
    for line in text.splitlines():
        operation = _LINE.match(line)
        if not operation or operation["kind"] in _HOLDERS:
            continue
        origin, kind = _ORIGIN.search(line), operation["kind"]
        if kind.startswith(_COLLECTIVES):
            found[operation["name"]] = (kind, BETWEEN_DEVICES)  # of all layers together
        elif origin:
            found[operation["name"]] = (primitive(origin[1]), layer(origin[1]))
        else:
            found[operation["name"]] = (kind, NO_LAYER)
    return found


def primitive(origin: str) -> str:
    """The last part of `jit(train_step)/jvp(Net)/stem/conv_general_dilated`."""
    return origin.rpartition("/")[2]


def layer(origin: str) -> str:
    """The modules in `jit(train_step)/transpose(jvp(Net))/stem/conv_general_dilated`."""
    parts = [part for part in origin.split("/")[:-1] if part not in _STRUCTURE]
    # A method by its name: `Modules.encode` is `encode`.
    modules = [part.rpartition(".")[2] for part in parts if "(" not in part and ")" not in part]
    if not modules:
        return NO_LAYER
    return "/".join(modules) + (" backward" if "transpose(" in origin else "")


def _normalised(seconds: Mapping[str, float]) -> dict[str, float]:
    total = sum(seconds.values())
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return {name: duration / total for name, duration in ordered if total > 0}

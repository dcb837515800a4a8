"""What a compiled program costs, by the compiler's own account; nothing is run.

XLA counts operations of the optimised program of one device, from the shapes: a multiplication and
an addition are two, a convolution's taps that fall on padding or between the rows of a stride are
none, a transcendental function counts apart. The body of a loop is counted once, however often it
runs. Bytes accessed are what every kernel reads and writes, as if nothing stayed in a cache between
two kernels; what is inside a fused kernel is free. Fusion is that of the backend that compiled it.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax

#: Bytes of a number, by HLO's name of its type.
_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip

_OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (?P<types>.*?) (?P<name>[a-z][a-z0-9\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
#: Operations that move or compute nothing.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}


@dataclasses.dataclass(frozen=True)
class ProgramCosts:
    """One execution of a compiled program, on one of its devices.

    Attributes:
        flops: floating-point operations; None where the backend does not tell.
        transcendentals: exponentials, logarithms and their like; None where it does not tell.
        bytes_accessed: read and written by all kernels; None where it does not tell.
        peak_memory: bytes of arguments, results and temporaries that are there at once; None where
            it does not tell.
        all_reduces: bytes that each all-reduce sums, in the order of the program.
        kernels: operations of the main computation that compute or move something, a fused or a
            called one and a loop as one.
        loops: how many loops there are, whose bodies were counted once.
    """

    flops: float | None
    transcendentals: float | None
    bytes_accessed: float | None
    peak_memory: int | None
    all_reduces: tuple[int, ...]
    kernels: int
    loops: int


def program_costs(compiled: jax.stages.Compiled) -> ProgramCosts:
    """The costs of what `jax.jit(f).lower(...).compile()` (or `jax.pmap(f)`...) returns."""
    analysis = _analysis(compiled)
    text = compiled.as_text() or ""
    return ProgramCosts(
        flops=analysis.get("flops"),
        transcendentals=analysis.get("transcendentals", 0.0) if analysis else None,
        bytes_accessed=analysis.get("bytes accessed"),
        peak_memory=_peak_memory(compiled),
        all_reduces=all_reduces(text),
        kernels=sum(name not in _FREE for name in _main_operations(text)),
        loops=sum(name == "while" for _, name in _operations(text)),
    )


def all_reduces(text: str) -> tuple[int, ...]:
    """The bytes that each all-reduce of a program in HLO's text form sums."""
    return tuple(
        array_bytes(types)
        for types, name in _operations(text)
        if name in ("all-reduce", "all-reduce-start")
    )


def array_bytes(types: str) -> int:
    """The bytes of all arrays in a type as HLO writes it, `f32[3,4]{1,0}` or a tuple of such."""
    return sum(
        _BYTES[kind] * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes in _ARRAY.findall(types)
        if kind in _BYTES
    )


def _operations(text: str) -> list[tuple[str, str]]:
    """(type, operation) of every line of a program."""
    found = (_OPERATION.match(line) for line in text.splitlines())
    return [(match["types"], match["name"]) for match in found if match]


def _main_operations(text: str) -> list[str]:
    """The operations of the computation that is called from outside."""
    _, _, rest = text.partition("\nENTRY ")
    body, _, _ = rest.partition("\n}")
    return [name for _, name in _operations(body)]


def _analysis(compiled: jax.stages.Compiled) -> Mapping[str, Any]:
    """XLA's own; empty where the backend has none."""
    try:
        return compiled.cost_analysis() or {}
    except NotImplementedError:
        return {}


def _peak_memory(compiled: jax.stages.Compiled) -> int | None:
    try:
        memory = compiled.memory_analysis()
    except NotImplementedError:
        return None
    if memory is None:
        return None
    # Donated arguments become results in place.
    arrays = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return int(arrays - memory.alias_size_in_bytes + memory.temp_size_in_bytes)

"""Costs of a compiled program, from XLA's analysis; nothing is run.

XLA counts the operations of the optimised program of one device from the shapes. A multiplication
and an addition are two operations; taps of a convolution on padding or between strides are none;
transcendental functions are counted separately. The body of a loop is counted once, however often
it runs. Bytes accessed are read and written by kernels, without caches between kernels; values
inside a fused kernel are free. Fusion depends on the backend.
"""

import dataclasses
import math
import re

import jax

#: HLO type -> bytes of a number.
_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip

#: A line of an HLO text: `name = types kind(...`.
OPERATION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<types>.*?) (?P<kind>[a-z][a-z0-9\-]*)\("
)
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
#: Operations that neither move nor compute anything.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}


@dataclasses.dataclass(frozen=True)
class ProgramCosts:
    """The costs of one execution of a compiled program, on one device.

    Values are None where the backend does not report them.

    Attributes:
        flops: floating-point operations.
        transcendentals: exponentials, logarithms, and similar functions.
        bytes_accessed: bytes that all kernels read and write.
        peak_memory: bytes of arguments, results, and temporaries that exist at once.
        all_reduces: bytes that each all-reduce sums, in the order of the program.
        kernels: operations of the main computation that compute or move something; a fusion, a call
            or a loop is one.
        loops: number of loops, whose bodies were counted once.
    """

    flops: float | None
    transcendentals: float | None
    bytes_accessed: float | None
    peak_memory: int | None
    all_reduces: tuple[int, ...]
    kernels: int
    loops: int


def program_costs(compiled: jax.stages.Compiled) -> ProgramCosts:
    """Returns the costs of a program that `lower(...).compile()` of `jax.jit(f)` or pmap gave."""
    try:
        analysis = compiled.cost_analysis() or {}
    except NotImplementedError:  # some backends have no analysis
        analysis = {}
    text = compiled.as_text() or ""
    _, _, entry = text.partition("\nENTRY ")
    main, _, _ = entry.partition("\n}")
    return ProgramCosts(
        flops=analysis.get("flops"),
        transcendentals=analysis.get("transcendentals", 0.0) if analysis else None,
        bytes_accessed=analysis.get("bytes accessed"),
        peak_memory=_peak_memory(compiled),
        all_reduces=all_reduces(text),
        kernels=sum(kind not in _FREE for _, kind in _operations(main)),
        loops=sum(kind == "while" for _, kind in _operations(text)),
    )


def all_reduces(text: str) -> tuple[int, ...]:
    """Returns the bytes that each all-reduce of a program sums, from its HLO text."""
    names = ("all-reduce", "all-reduce-start")
    return tuple(array_bytes(types) for types, kind in _operations(text) if kind in names)


def array_bytes(types: str) -> int:
    """Returns the bytes of all arrays in an HLO type: `f32[3,4]{1,0}` or a tuple of such types."""
    return sum(
        _BYTES[kind] * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes in _ARRAY.findall(types)
        if kind in _BYTES
    )


def _operations(text: str) -> list[tuple[str, str]]:
    """Returns (types, kind) of every operation of a program."""
    matches = (OPERATION.match(line) for line in text.splitlines())
    return [(match["types"], match["kind"]) for match in matches if match]


def _peak_memory(compiled: jax.stages.Compiled) -> int | None:
    try:
        memory = compiled.memory_analysis()
    except NotImplementedError:  # some backends have no analysis
        return None
    if memory is None:
        return None
    # Donated arguments and their results share memory.
    arrays = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return int(arrays - memory.alias_size_in_bytes + memory.temp_size_in_bytes)

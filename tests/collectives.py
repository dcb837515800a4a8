"""What a compiled program sends between devices, read from its text."""

import re

import numpy as np

COLLECTIVES = r"(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)"


def messages(text):
    """How many numbers each collective of a compiled program carries; only sums may be there."""
    operations = re.findall(rf"= (.*?) {COLLECTIVES}(?:-start)?\(", text)
    assert {name for _, name in operations} <= {"all-reduce"}
    return [
        sum(
            int(np.prod([int(n) for n in shape.split(",") if n] or [1]))
            for shape in re.findall(r"\[([\d,]*)\]", types)
        )
        for types, _ in operations
    ]

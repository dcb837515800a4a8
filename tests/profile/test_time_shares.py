"""Shares of time by kind and by layer, from HLO text and the times of operations."""

import pytest

from jaxad.profile.time_shares import BETWEEN_DEVICES, NO_LAYER, layer, operation_seconds, shares

TEXT = """
ENTRY %main {
  %dot.1 = f32[3] dot(%a, %b), metadata={op_name="jit(step)/jvp(Net)/stem/Dense_0/dot_general"}
  %fusion.2 = f32[3] fusion(%dot.1), metadata={op_name="jit(step)/transpose(jvp(Net))/stem/mul"}
  ROOT %copy.3 = (f32[3]{0}, f32[]) copy(%fusion.2)
  %all-reduce.4 = f32[3] all-reduce(%copy.3), metadata={op_name="jit(step)/a/b:jit(step)/c/d"}
  %while.5 = f32[3] while(%copy.3), metadata={op_name="jit(step)/while"}
}
"""


def test_shares_by_kind_and_layer():
    seconds = {"dot.1": 1.0, "fusion.2": 4.0, "copy.3": 3.0, "all-reduce.4": 2.0}
    # A loop holds operations that are counted, another program's are not in the text.
    kinds, layers = shares({**seconds, "while.5": 9.0, "dot.77": 9.0}, TEXT)
    assert kinds == {"mul": 0.4, "copy": 0.3, "all-reduce": 0.2, "dot_general": 0.1}
    assert layers == {
        "stem backward": 0.4, NO_LAYER: 0.3, BETWEEN_DEVICES: 0.2, "stem/Dense_0": 0.1
    }  # fmt: skip
    assert list(kinds) == ["mul", "copy", "all-reduce", "dot_general"]


def test_a_trace_without_operations_has_no_shares(tmp_path):
    assert operation_seconds(tmp_path) == {}
    assert shares({}, TEXT) == ({}, {})


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("jit(step)/jvp(Modules.split)/Modules.encode/stem/layers_0/add", "encode/stem/layers_0"),
        ("jit(step)/transpose(jvp(Net))/head/mul", "head backward"),
        ("jit(step)/shard_map/transpose(jvp(Net))/head/mul", "head backward"),
        ("jit(step)/shard_map/while/body/threefry2x32", NO_LAYER),
        ("jit(step)/mul", NO_LAYER),
        ("", NO_LAYER),
    ],
)
def test_the_layer_of_an_operation(origin, expected):
    assert layer(origin) == expected

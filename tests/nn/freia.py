"""Converts weights of FrEIA's blocks to variables of our flow."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.nn.flow import FlowSettings
from jaxad.types import Tree

#: Our names of a batch norm's arrays and torch's.
_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

#: Subnet -> our name of a layer -> its place in a torch Sequential with ReLU between layers.
_SEQUENTIAL = {
    "conv": {"conv_0": 0, "conv_1": 2},
    "dense": {"dense_0": 0, "dense_1": 2, "dense_2": 4},
}


def from_freia(tensors: Mapping[str, np.ndarray], settings: FlowSettings) -> dict[str, Tree]:
    """Returns the variables of a `Flow` from the state dict of FrEIA's `AllInOneBlock`s.

    Args:
        tensors: state dict of a `SequenceINN` of such blocks. A `conv` subnet has `subnet.0` and
            `subnet.2`, a `dense` one also `subnet.4`; a `resnet` one has `subnet.conv`,
            `subnet.norm` and `subnet.shortcut`.
        settings: settings of the flow: FrEIA's scales and half; `permutation` is `random` for its
            hard permutations and `orthogonal` for its soft ones.
    """

    def convert_layer(name: str) -> dict[str, np.ndarray]:
        kernel = tensors[f"{name}.weight"].transpose(2, 3, 1, 0)
        # A 1x1 convolution is a dense layer of ours.
        kernel = kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel
        return {"kernel": kernel, "bias": tensors[f"{name}.bias"]}

    params: dict[str, Tree] = {}
    permutations: dict[str, Tree] = {}
    statistics: dict[str, Tree] = {}
    for block in range(settings.num_blocks):
        start, name = f"module_list.{block}.", f"subnet_{block}"
        params[f"global_scale_{block}"] = tensors[f"{start}global_scale"].reshape(-1)
        params[f"global_offset_{block}"] = tensors[f"{start}global_offset"].reshape(-1)
        matrix = tensors[f"{start}w_perm"][:, :, 0, 0]
        is_order = settings.permutation == "random"
        permutations[f"block_{block}"] = (
            matrix.argmax(axis=1).astype(np.int32) if is_order else matrix
        )
        if settings.subnet in _SEQUENTIAL:
            params[name] = {
                layer: convert_layer(f"{start}subnet.{place}")
                for layer, place in _SEQUENTIAL[settings.subnet].items()
            }
        else:
            norm = {ours: tensors[f"{start}subnet.norm.{theirs}"] for ours, theirs in _NORM.items()}
            params[name] = {
                "conv": convert_layer(f"{start}subnet.conv"),
                "norm": {"scale": norm["scale"], "bias": norm["bias"]},
                "shortcut": convert_layer(f"{start}subnet.shortcut"),
            }
            statistics[name] = {"norm": {"mean": norm["mean"], "var": norm["var"]}}
    variables = {"params": params, "permutation": permutations}
    if statistics:
        variables["batch_stats"] = statistics
    return jax.tree.map(jnp.asarray, variables)

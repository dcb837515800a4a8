"""Weights of FrEIA's blocks as variables of our flow."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.errors import UserError
from jaxad.nn.flow.network import FlowSettings
from jaxad.types import Tree

#: Our names of a batch norm's arrays and torch's.
_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

#: Subnet -> our name of a layer -> its place in a torch Sequential with ReLU between layers.
_SEQUENTIAL = {
    "conv": {"conv_0": 0, "conv_1": 2},
    "dense": {"dense_0": 0, "dense_1": 2, "dense_2": 4},
}


def from_freia(
    tensors: Mapping[str, np.ndarray], settings: FlowSettings, prefix: str = "module_list.{block}."
) -> dict[str, Tree]:
    """Variables of a `Flow` from the weights of FrEIA's `AllInOneBlock`s.

    Args:
        tensors: the state dict of a `SequenceINN` of such blocks as NumPy arrays, in FrEIA's
            names. Of a `conv` subnet: `subnet.0` and `subnet.2` (a Sequential of Conv2d, ReLU,
            Conv2d); of a `dense` one also `subnet.4`; of a `resnet` one: `subnet.conv`,
            `subnet.norm` and `subnet.shortcut`.
        settings: of the flow: FrEIA's scales and half; `permutation` is `random` for its hard
            permutations and `orthogonal` for its soft ones.
        prefix: of a block's names.

    Returns:
        `params`, `permutation` and, of `resnet` subnets, `batch_stats`.

    Raises:
        UserError: the settings are not FrEIA's, a tensor is missing or left over, or a permutation
            is not of the kind that the settings name; names it.
    """
    freia = dataclasses.replace(
        FlowSettings(), num_blocks=settings.num_blocks, subnet=settings.subnet,
        permutation=settings.permutation,
    )  # fmt: skip
    if settings != freia or settings.permutation == "reverse":
        raise UserError(
            "FrEIA weights: FrEIA moves the second half, has scales of 0.1 and no permutation "
            f"'reverse'; the settings are {settings}."
        )
    left = dict(tensors)

    def take(name: str) -> np.ndarray:
        if name not in left:
            raise UserError(f"FrEIA weights: no tensor '{name}'.")
        return np.asarray(left.pop(name))

    def take_conv(name: str) -> dict[str, np.ndarray]:
        kernel = take(f"{name}.weight").transpose(2, 3, 1, 0)
        # A 1x1 convolution is a dense layer of ours.
        kernel = kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel
        return {"kernel": kernel, "bias": take(f"{name}.bias")}

    params: dict[str, Tree] = {}
    permutations: dict[str, Tree] = {}
    statistics: dict[str, Tree] = {}
    for block in range(settings.num_blocks):
        start, name = prefix.format(block=block), f"subnet_{block}"
        params[f"global_scale_{block}"] = take(f"{start}global_scale").reshape(-1)
        params[f"global_offset_{block}"] = take(f"{start}global_offset").reshape(-1)
        matrix = take(f"{start}w_perm")[:, :, 0, 0]
        permutations[f"block_{block}"] = _permutation_of(matrix, settings, f"{start}w_perm")
        left.pop(f"{start}w_perm_inv", None)  # the transpose
        if settings.subnet in _SEQUENTIAL:
            params[name] = {
                layer: take_conv(f"{start}subnet.{place}")
                for layer, place in _SEQUENTIAL[settings.subnet].items()
            }
        else:
            norm = {ours: take(f"{start}subnet.norm.{theirs}") for ours, theirs in _NORM.items()}
            left.pop(f"{start}subnet.norm.num_batches_tracked", None)
            params[name] = {
                "conv": take_conv(f"{start}subnet.conv"),
                "norm": {"scale": norm["scale"], "bias": norm["bias"]},
                "shortcut": take_conv(f"{start}subnet.shortcut"),
            }
            statistics[name] = {"norm": {"mean": norm["mean"], "var": norm["var"]}}
    if left:
        raise UserError(f"FrEIA weights: '{next(iter(left))}' has no place in these settings.")
    found = {"params": params, "permutation": permutations}
    return jax.tree.map(jnp.asarray, {**found, "batch_stats": statistics} if statistics else found)


def _permutation_of(matrix: np.ndarray, settings: FlowSettings, name: str) -> np.ndarray:
    """The order of channels that a matrix of FrEIA's stands for, or the rotation."""
    if settings.permutation == "random":
        order = matrix.argmax(axis=1).astype(np.int32)
        if (matrix != np.eye(len(matrix))[order]).any() or len(set(order)) != len(order):
            raise UserError(f"FrEIA weights: '{name}' is no permutation; is it a soft one?")
        return order
    if not np.allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-4):
        raise UserError(f"FrEIA weights: '{name}' is no rotation.")
    return matrix

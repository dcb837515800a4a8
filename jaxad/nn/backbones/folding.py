"""Converts a PyTorch state dict to Linen variables, with batch norms folded into convolutions.

A frozen encoder's batch norms use the statistics of its training, which makes them fixed affine
maps per channel. They are multiplied into the kernels when the weights are read: no statistics are
left that training could change.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from jaxad.errors import UserError
from jaxad.types import Tree

Tensors = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layer:
    """Place of a layer's tensors in a PyTorch state dict.

    Attributes:
        name: name of the Linen module, an `nn.Conv` or an `nn.Dense` with a bias.
        weights: prefix of torch's convolution or linear layer: `<weights>.weight`, OIHW or OI.
        norm: prefix of the batch norm behind it: `<norm>.weight`, `.bias`, `.running_mean` and
            `.running_var`; "" if there is none, and the layer has a bias `<weights>.bias`.
    """

    name: str
    weights: str
    norm: str

    def expected(self, kernel_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Returns tensor name -> shape in torch's layout; `kernel_shape` is HWIO or IO."""
        *window, inputs, outputs = kernel_shape
        shapes = {f"{self.weights}.weight": (outputs, inputs, *window)}
        if not self.norm:
            return {**shapes, f"{self.weights}.bias": (outputs,)}
        names = ("weight", "bias", "running_mean", "running_var")
        return {**shapes, **{f"{self.norm}.{name}": (outputs,) for name in names}}

    def folded(self, tensors: Tensors, epsilon: float) -> dict[str, np.ndarray]:
        """Returns kernel and bias, float32, computed in float64."""
        weight = tensors[f"{self.weights}.weight"].astype(np.float64)
        kernel = weight.transpose(*range(2, weight.ndim), 1, 0)
        if not self.norm:
            bias = tensors[f"{self.weights}.bias"]
            return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
        gain, offset, mean, variance = (
            tensors[f"{self.norm}.{name}"].astype(np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + epsilon)
        return {
            "kernel": (kernel * scale).astype(np.float32),
            "bias": (offset - mean * scale).astype(np.float32),
        }


def _problem(name: str, tensor: np.ndarray) -> str:
    """Returns why a tensor is unusable; "" if it is usable."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        return f"of type {tensor.dtype}"
    if not np.isfinite(tensor.astype(np.float64)).all():
        return "not finite"
    if name.endswith(".running_var") and (tensor.astype(np.float64) < 0).any():
        return "negative"
    return ""


def from_torch(
    tensors: Tensors,
    layers: Sequence[Layer],
    shapes: Mapping[str, Tree],
    *,
    epsilon: float,
    unused: Sequence[str],
    source: str,
) -> dict[str, dict[str, np.ndarray]]:
    """Converts the tensors of a state dict to layer name -> kernel and bias, float32.

    Args:
        tensors: tensors by torch's names.
        layers: layers to convert.
        shapes: layer name -> {`kernel`, ...} with `.shape`, those of the Linen module.
        epsilon: epsilon of the batch norms.
        unused: prefixes of tensors to ignore.
        source: name of the file, for messages.

    Raises:
        UserError: tensors are missing, misshapen, not finite or of another network; the message
            names them.
    """
    expected: dict[str, tuple[int, ...]] = {}
    for layer in layers:
        expected.update(layer.expected(shapes[layer.name]["kernel"].shape))
    extra = [
        name
        for name in tensors
        if name not in expected
        and not name.startswith(tuple(unused))
        and not name.endswith(".num_batches_tracked")  # a counter without use in inference
    ]
    misshapen = [
        f"{name} is {tensors[name].shape}, not {shape}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    unusable = [
        f"{name} is {problem}"
        for name in expected
        if name in tensors and (problem := _problem(name, tensors[name]))
    ]
    kinds = {
        "missing": [name for name in expected if name not in tensors],
        "misshapen": misshapen,
        "unusable": unusable,
        "unknown": extra,
    }
    problems = [
        f"{len(names)} {kind} ({', '.join(names)})" for kind, names in kinds.items() if names
    ]
    if problems:
        raise UserError(
            f"{source}: its tensors are not those of this backbone: {'; '.join(problems)}. Check "
            "config.model.backbone against the file."
        )
    return {layer.name: layer.folded(tensors, epsilon) for layer in layers}

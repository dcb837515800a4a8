"""Variables of systems of several Linen modules, side by side in every collection."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from jaxad.types import Tree, Variables

#: `TrainedModel.networks` of a system with one loss, which trains all parameters.
ONE_LOSS: Mapping[str, str] = {"model": ".*"}


def join(variables: Mapping[str, Mapping[str, Tree]]) -> Variables:
    """Converts network -> collection -> tree to collection -> network -> tree."""
    joined: dict[str, dict[str, Tree]] = {"params": {}}
    for network, collections in variables.items():
        for name, tree in collections.items():
            joined.setdefault(name, {})[network] = tree
    return joined


def apply(
    variables: Variables,
    network: str,
    module: nn.Module,
    *inputs: Any,
    train: bool = False,
    method: str | None = None,
) -> tuple[Any, Variables]:
    """Applies one network, or one of its methods, to its own part of the variables.

    Returns:
        The network's output, and all variables. If `train`, the network's part of every collection
        except the parameters is updated.
    """
    inner = {name: tree[network] for name, tree in variables.items() if network in tree}
    changing = [name for name in inner if name != "params"] if train else []
    output, updated = module.apply(inner, *inputs, mutable=changing, method=method)
    changed = {name: {**variables[name], network: updated[name]} for name in changing}
    return output, {**variables, **changed}


def state_of(variables: Variables) -> Variables:
    """Returns all collections except the parameters."""
    return {name: tree for name, tree in variables.items() if name != "params"}

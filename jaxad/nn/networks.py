"""Systems of several Linen modules: their variables side by side in every collection."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from jaxad.types import Tree, Variables


def join(variables: Mapping[str, Mapping[str, Tree]]) -> Variables:
    """Network -> collection -> tree, to collection -> network -> tree."""
    found: dict[str, dict[str, Tree]] = {"params": {}}
    for network, collections in variables.items():
        for name, tree in collections.items():
            found.setdefault(name, {})[network] = tree
    return found


def apply(
    variables: Variables, network: str, module: nn.Module, *inputs: Array, train: bool = False
) -> tuple[Any, Variables]:
    """Applies one network of several to its own variables.

    Returns:
        Its output; and the variables, in which this network's part of all collections but the
        parameters is updated if it trains.
    """
    own = {name: tree[network] for name, tree in variables.items() if network in tree}
    changing = [name for name in own if name != "params"] if train else []
    output, updated = module.apply(own, *inputs, mutable=changing)
    changed = {name: {**variables[name], network: updated[name]} for name in changing}
    return output, {**variables, **changed}


def state_of(variables: Variables) -> Variables:
    """All collections but the parameters."""
    return {name: tree for name, tree in variables.items() if name != "params"}

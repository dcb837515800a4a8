"""What is noted of arrays when they are saved, to notice when others are read back."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxad.types import Tree

#: Of every array, by its place in a tree: type and shape, and the SHA-256 of its bytes.
TreeDigests = Mapping[str, list[str]]


def of_tree(tree: Tree) -> dict[str, list[str]]:
    """The digests of a tree of arrays that the host can read."""
    return {
        place: [kind, hashlib.sha256(_bytes(leaf)).hexdigest()]
        for place, (kind, leaf) in _described(tree).items()
    }


def kind_difference(noted: TreeDigests, like: Tree) -> str:
    """The first array that has another type or shape in a tree, or is in one alone; "" if none."""
    there = {place: kind for place, (kind, _) in noted.items()}
    here = {place: kind for place, (kind, _) in _described(like).items()}
    for place in sorted({**there, **here}):
        if there.get(place) != here.get(place):
            wanted = here.get(place, "none")
            return f"{place} is {there.get(place, 'missing')}, the config wants {wanted}"
    return ""


def first_changed(noted: TreeDigests, tree: Tree) -> str | None:
    """The place of the first array that is not what was noted; None where all are."""
    now = of_tree(tree)
    return next((place for place, told in noted.items() if now.get(place) != list(told)), None)


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """A value for a JSON file, with a digest of itself."""
    return {"value": value, "digest": _digest(value)}


def unseal(sealed: Any) -> Any:
    """The value that `seal` took; None where it is not what it was."""
    if not isinstance(sealed, dict) or sealed.get("digest") != _digest(sealed.get("value")):
        return None
    return sealed["value"]


def _described(tree: Tree) -> dict[str, tuple[str, Any]]:
    """Of every array its type and shape, and itself."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): (f"{leaf.dtype}{list(leaf.shape)}", leaf)
        for path, leaf in leaves
    }


def _bytes(leaf: Any) -> memoryview:
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

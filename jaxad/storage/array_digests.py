"""SHA-256 digests of arrays: written when they are saved, compared when they are read."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxad.types import Tree

#: Path of each array in a tree -> its dtype and shape, and the SHA-256 of its bytes.
TreeDigests = Mapping[str, list[str]]


def digest_tree(tree: Tree) -> dict[str, list[str]]:
    """Digests every array of a tree that the host can read."""
    return {
        path: [_kind(leaf), hashlib.sha256(_bytes(leaf)).hexdigest()]
        for path, leaf in _leaves(tree).items()
    }


def tree_kinds(tree: Tree) -> dict[str, str]:
    """Returns path -> dtype and shape, such as `float32[3, 4]`, of every array of a tree."""
    return {path: _kind(leaf) for path, leaf in _leaves(tree).items()}


def kind_difference(kinds: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Describes the first array of another dtype or shape, or of one tree only; "" if none."""
    for path in sorted({**kinds, **expected}):
        kind, wanted = kinds.get(path, "missing"), expected.get(path, "none")
        if kind != wanted:
            return f"{path} is {kind}, the config needs {wanted}"
    return ""


def first_changed(saved: TreeDigests, tree: Tree) -> str | None:
    """Returns the path of the first array that differs from what was saved; None if none does."""
    current = digest_tree(tree)
    return next((path for path, digest in saved.items() if current.get(path) != list(digest)), None)


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Adds a digest to a value that is written as JSON."""
    return {"value": value, "digest": _digest(value)}


def unseal(sealed: Any) -> Any:
    """Returns the value that `seal` took; None if it was changed."""
    if not isinstance(sealed, dict) or sealed.get("digest") != _digest(sealed.get("value")):
        return None
    return sealed["value"]


def _leaves(tree: Tree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _bytes(leaf: Any) -> memoryview:
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

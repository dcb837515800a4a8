"""The installed closure of jaxad's run-time dependencies."""

import re
from collections.abc import Callable, Sequence
from importlib import metadata

from packaging.requirements import Requirement

ROOT = "jaxad"


def canonical(name: str) -> str:
    """As package indexes write names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(
    root: str = ROOT, find: Callable[[str], metadata.Distribution] = metadata.distribution
) -> dict[str, metadata.Distribution]:
    """A distribution's run-time dependencies and theirs, by name, without itself.

    Args:
        root: the distribution.
        find: gives an installed distribution by its name.

    Raises:
        PackageNotFoundError: one is not installed.
    """
    found: dict[str, metadata.Distribution] = {}
    asked: dict[str, set[str]] = {}
    waiting: list[tuple[str, Sequence[str]]] = [(root, ())]
    while waiting:
        name, extras = waiting.pop()
        name = canonical(name)
        if name in asked and asked[name].issuperset(extras):
            continue
        asked.setdefault(name, set()).update(extras)
        found[name] = find(name)
        for text in found[name].requires or ():
            needed = Requirement(text)
            extra_names = ("", *asked[name])
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in extra_names
            ):
                waiting.append((needed.name, tuple(needed.extras)))
    del found[canonical(root)]
    return dict(sorted(found.items()))

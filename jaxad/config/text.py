"""Configs as text: JSON, dotted paths, and what differs between two of them."""

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON, one field a line, in a fixed order."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The config that `to_json` wrote; lists come back as tuples.

    Raises:
        ValueError: the text is not a JSON object.
    """

    def tuples(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: tuples(item) for key, item in value.items()}
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError(f"a config is a JSON object, not {type(fields).__name__}")
    return ConfigDict(tuples(fields)).lock()


def flatten(config: ConfigDict, prefix: str = "config") -> dict[str, Any]:
    """All fields by their dotted path, as the command line names them."""
    flat: dict[str, Any] = {}
    for key in sorted(config):
        path = f"{prefix}.{key}"
        value = config[key]
        flat.update(flatten(value, path) if isinstance(value, ConfigDict) else {path: value})
    return flat


#: Fields that say where something lies.
PATHS = ("config.data.root", "config.data.test.root", "config.train.feature_cache")
_PLACES = (*PATHS, "config.data.on_error")  # splits.json tells who is learnt from
#: Fields that say on which machine a run is trained, and not what it computes.
_LAYOUT = ("config.cpu_devices", "config.parallel", "config.train.steps_per_dispatch")


def without_places(config: ConfigDict) -> ConfigDict:
    """The config without paths of the machine, which may name people: of what leaves it."""
    found = config.copy_and_resolve_references().unlock()
    # Of an encoder; elsewhere weights are numbers.
    for path in (*PATHS, "config.model.weights"):
        *groups, field = path.removeprefix("config.").split(".")
        group: Any = found
        for name in groups:
            group = group.get(name, ConfigDict())
        if isinstance(group.get(field), str):
            group[field] = ""
    return found.lock()


def difference(ours: ConfigDict, theirs: ConfigDict) -> list[str]:
    """The fields in which two configs differ, each as `path: theirs -> ours`.

    Where data and features lie does not count, nor what is done with bad files or how the run is
    spread over devices.
    """
    left, right = flatten(from_json(to_json(ours))), flatten(theirs)
    absent = "(absent)"
    return [
        f"{path}: {right.get(path, absent)!r} -> {left.get(path, absent)!r}"
        for path in sorted(left.keys() | right.keys())
        if path not in (*_PLACES, *_LAYOUT) and left.get(path, absent) != right.get(path, absent)
    ]

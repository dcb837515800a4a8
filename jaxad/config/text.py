"""Configs as text: JSON, dotted paths, and the difference between two configs."""

import json
from collections.abc import Container, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxad.config.field import Role
from jaxad.config.fields import FIELDS, find


def to_json(config: ConfigDict) -> str:
    """The config as JSON, one field per line, keys sorted, references resolved."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The config that `to_json` wrote, locked; lists become tuples.

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
    """All fields by their dotted path, as on the command line; paths are sorted."""
    flat: dict[str, Any] = {}
    for key in sorted(config):
        path = f"{prefix}.{key}"
        value = config[key]
        flat.update(flatten(value, path) if isinstance(value, ConfigDict) else {path: value})
    return flat


def without_paths(config: ConfigDict) -> ConfigDict:
    """The config with every path of this machine empty, for files that leave it.

    Paths may name people. Weights of encoders and initial weights are paths, too; weights of losses
    are numbers. A permission for paths (`data.allow_outside_root`) holds on this machine only.
    """
    config = config.copy_and_resolve_references().unlock()
    paths = [field.path for field in FIELDS if field.role == "path"]
    for path in (*paths, "init_from", "model.weights"):
        *groups, name = path.split(".")
        group = config
        for key in groups:
            group = group.get(key, ConfigDict())
        if isinstance(group.get(name), str | bool):
            group[name] = type(group[name])()
    return config.lock()


def difference(
    ours: ConfigDict, theirs: ConfigDict, roles: Container[Role] = ("setting", "evaluation")
) -> list[str]:
    """The fields of some roles in which two runs differ, each as `path: theirs -> ours`."""
    left, right = flatten(from_json(to_json(ours))), flatten(theirs)
    absent = "(absent)"
    return [
        f"{path}: {right.get(path, absent)!r} -> {left.get(path, absent)!r}"
        for path in sorted(left.keys() | right.keys())
        if left.get(path, absent) != right.get(path, absent) and _role(path) in roles
    ]


def _role(path: str) -> Role:
    field = find(path)
    return "setting" if field is None else field.role

"""Configs by name or file: `pchvae`, `pchvae:demo`, `configs/pchvae.py:demo`, `my/own.py:large`.

A config file defines `get_config(variant: str)`, which starts from `jaxad.config.base()`.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from jaxad.errors import UserError, suggest


def get_config(name: str) -> ConfigDict:
    """The config that a string such as `pchvae:demo` or `configs/pchvae.py:demo` names.

    Args:
        name: name of a shipped config or path of a `.py` file; then optionally a colon and the
            variant.

    Returns:
        A locked config: its fields can be changed, and no field can be added.

    Raises:
        UserError: there is no such config, or it has no such variant.
    """
    file_name, _, variant = name.partition(":")
    if not file_name:
        raise UserError(f"config '{name}': no name before the colon; {_known()}")
    module = _load(_find(file_name))
    if not hasattr(module, "get_config"):
        raise UserError(f"config '{file_name}': defines no get_config(variant); see {_known()}")
    return module.get_config(variant).lock()


def _load(path: Path) -> ModuleType:
    """Runs a config file as a module that is not in `sys.modules`."""
    spec = importlib.util.spec_from_file_location(f"jaxad_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # the path ends in .py
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _find(name: str) -> Path:
    """The file of a config: the user's own file first, then a shipped one."""
    if not name.endswith(".py"):
        path = _shipped_folder() / f"{name}.py"
        if not path.is_file():
            hint = suggest(name, _shipped_names())
            raise UserError(f"config '{name}': no such config;{hint} {_known()}")
        return path
    path = Path(name)
    if path.is_file():
        return path
    # `configs/pchvae.py` also works outside a checkout.
    relative = Path(*path.parts[1:]) if path.parts[0] == "configs" else path
    shipped = _shipped_folder() / relative
    if not shipped.is_file():
        raise UserError(f"config '{name}': no such file; {_known()}")
    return shipped


def _shipped_folder() -> Path:
    """`configs/` inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _shipped_names() -> list[str]:
    folder = _shipped_folder()
    return [
        path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.rglob("*.py"))
    ]


def _known() -> str:
    return f"known: {', '.join(_shipped_names())}."

"""From a config's name or file to the config: one resolver for every way of naming them.

`pchvae`, `pchvae:demo`, `configs/pchvae.py:demo` and a path to your own file all resolve through
`get_config`. A config file defines `get_config(variant: str)` and starts from `base()`.
"""

import difflib
import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from jaxad.errors import UserError


def _shipped_folder() -> Path:
    """configs/ inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _find(name: str) -> Path:
    """The file that the part of a config string before its colon names."""
    if name.endswith(".py"):
        path = Path(name)
        if path.is_file():
            return path
        # `configs/pchvae.py` also from outside a checkout.
        relative = Path(*path.parts[1:]) if path.parts[0] == "configs" else path
        shipped = _shipped_folder() / relative
        if shipped.is_file():
            return shipped
        raise UserError(f"config '{name}': no such file; {_known()}")
    shipped = _shipped_folder() / f"{name}.py"
    if not shipped.is_file():
        close = difflib.get_close_matches(name, _shipped_names(), n=1)
        hint = f" did you mean '{close[0]}'?" if close else ""
        raise UserError(f"config '{name}': no such config;{hint} {_known()}")
    return shipped


def _shipped_names() -> list[str]:
    folder = _shipped_folder()
    paths = sorted(folder.rglob("*.py"))
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    return [name for name in names if not name.endswith("__init__")]


def _known() -> str:
    return f"known: {', '.join(_shipped_names())}."


def get_config(name: str) -> ConfigDict:
    """The config that a string such as `pchvae:demo` or `configs/pchvae.py:demo` names.

    Args:
        name: a shipped config's name or a path to a `.py` file, then optionally a colon and the
            variant.

    Returns:
        A config whose fields can be changed and to which none can be added by mistake.

    Raises:
        UserError: there is no such config, or it has no such variant.
    """
    file_name, _, variant = name.partition(":")
    if not file_name:
        raise UserError(f"config '{name}': no name before the colon; {_known()}")
    path = _find(file_name)
    spec = importlib.util.spec_from_file_location(f"jaxad_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"config '{file_name}': not a Python file; name a .py file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"config '{file_name}': defines no get_config(variant); see {_known()}")
    return module.get_config(variant).lock()

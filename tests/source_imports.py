"""The imports in the package's source, read with `ast`."""

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "jaxad"


@dataclasses.dataclass(frozen=True)
class Import:
    """One import: in which module, of which module, and whether it runs with the module."""

    importer: str
    imported: str
    at_module_level: bool = True
    for_types_only: bool = False  # under `if TYPE_CHECKING:`
    line: int = 0


def _module_name(path: Path) -> str:
    parts = ("jaxad", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _targets(node: ast.Import | ast.ImportFrom, importer: str, is_package: bool) -> list[str]:
    """The modules that an import statement imports: `from jaxad import nn` is of jaxad.nn."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parents = importer.split(".")
        parents = parents[: len(parents) - node.level + (1 if is_package else 0)]
        base = ".".join([*parents, *([base] if base else [])])
    names = [f"{base}.{alias.name}" for alias in node.names]
    # A name of one of our modules that is no module is defined in it. Of other packages we
    # cannot know; the longer name is below the shorter one, so that every rule holds for both.
    ours = base == "jaxad" or base.startswith("jaxad.")
    return [name if not ours or name in MODULES else base for name in names]


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def read_imports(source: str, importer: str, is_package: bool = False) -> Iterator[Import]:
    """Every import in a module, also inside functions."""

    def visit(node: ast.AST, at_module_level: bool, for_types_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for target in _targets(node, importer, is_package):
                yield Import(importer, target, at_module_level, for_types_only, node.lineno)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_module_level = False
        if _is_type_checking(node):
            for_types_only = True
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_module_level, for_types_only)

    yield from visit(ast.parse(source), True, False)


@functools.cache
def all_imports() -> tuple[Import, ...]:
    return tuple(
        found
        for name, path in MODULES.items()
        for found in read_imports(path.read_text(), name, path.name == "__init__.py")
    )

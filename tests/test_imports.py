"""The direction of imports: the order of rooms and some rules, read against the source with `ast`.

Every rule carries an example that breaks it, so that a rule that catches nothing fails too.
"""

import ast
import dataclasses
from fnmatch import fnmatchcase

import pytest
from source_imports import MODULES, Import, all_imports, read_imports


@dataclasses.dataclass(frozen=True)
class Rule:
    """What the modules of a room may not import. A room is a module and all below it.

    Attributes:
        rooms: the modules that the rule is for; `*` for all.
        reason: why.
        example: an importer and an import that break the rule.
        never: modules that must not be imported.
        only: of jaxad, nothing but these.
        but: modules among `rooms` that are exempt.
        module_level_only: whether imports inside functions are free.
    """

    rooms: tuple[str, ...]
    reason: str
    example: tuple[str, str]
    never: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    but: tuple[str, ...] = ()
    module_level_only: bool = False


#: The rooms from the lowest to the highest: each imports its own and lower ones only, also inside
#: functions. `jaxad` itself is the package's `__init__`.
ROOMS = (
    "jaxad.errors",
    "jaxad.extension",
    "jaxad.types",
    "jaxad.runtime",
    "jaxad.storage",
    "jaxad.nn",
    "jaxad.models",
    "jaxad.config",
    "jaxad.data",
    "jaxad.calibration",
    "jaxad.detector",
    "jaxad.train",
    "jaxad.profile",
    "jaxad.evaluate",
    "jaxad.report",
    "jaxad.score",
    "jaxad.study",
    "jaxad.opening",
    "jaxad.run",
    "jaxad.api",
    "jaxad",
    "jaxad.command",
    "jaxad.cli",
)


def _room(module: str) -> int:
    """The place of a module's room in `ROOMS`."""
    name = ".".join(module.split(".")[:2])
    assert name in ROOMS, f"{module}: add its room to ROOMS"
    return ROOMS.index(name)


RULES = {
    "models": Rule(
        rooms=("jaxad.models", "jaxad.nn"),
        only=(
            "jaxad.errors",
            "jaxad.extension",
            "jaxad.types",
            "jaxad.storage.locations",
            "jaxad.storage.paths",
            "jaxad.nn",
            "jaxad.models",
        ),
        reason="a system is usable without our training, data, mesh and evaluation",
        example=("jaxad.models.hierarchical_vae", "jaxad.runtime.parallel"),
    ),
    "models take fields, not configs": Rule(
        rooms=("jaxad.nn", "jaxad.models"),
        never=("ml_collections",),
        reason="config/model.py reads the config; a model is a dataclass of its fields",
        example=("jaxad.models.hierarchical_vae", "ml_collections"),
    ),
    "data": Rule(
        rooms=("jaxad.data",),
        never=("jaxad.models", "jaxad.nn", "jaxad.config.model"),
        reason="batches are the same whatever is trained on them",
        example=("jaxad.data.pipeline.batching", "jaxad.models.hierarchical_vae"),
    ),
    "data readers": Rule(
        rooms=("jaxad.data.readers",),
        only=("jaxad.errors", "jaxad.runtime.cpu_tensorflow", "jaxad.data.readers"),
        reason="a reader knows one file: not how it is prepared, nor which data set it is of",
        example=("jaxad.data.readers.volumes", "jaxad.data.prepare.preprocess"),
    ),
    "data preparation": Rule(
        rooms=("jaxad.data.prepare",),
        only=("jaxad.errors", "jaxad.data.readers", "jaxad.data.prepare"),
        reason="images are prepared alike wherever they come from",
        example=("jaxad.data.prepare.cutting", "jaxad.data.files.items"),
    ),
    "data files": Rule(
        rooms=("jaxad.data.files",),
        only=(
            "jaxad.errors",
            "jaxad.types",
            "jaxad.runtime.interrupts",
            "jaxad.runtime.progress",
            "jaxad.storage.locations",
            "jaxad.storage.paths",
            "jaxad.data.readers",
            "jaxad.data.prepare",
            "jaxad.data.files",
        ),
        reason="openers.py and settings.py choose among data sets; files are one kind of them",
        example=("jaxad.data.files.normals", "jaxad.data.openers"),
    ),
    "report": Rule(
        rooms=("jaxad.report",),
        never=("jaxad.models.*", "jaxad.nn", "jaxad.train.loop", "jaxad.detector.restored"),
        reason="a report is made from a run's files, without building a model; it may read titles",
        example=("jaxad.report.page", "jaxad.models.ae_flow"),
    ),
    "exported files": Rule(
        rooms=("jaxad.detector.exported", "jaxad.score", "jaxad.calibration"),
        never=("jaxad.models", "jaxad.nn", "jaxad.train", "flax"),
        reason="a detector scores alike wherever its program comes from",
        example=("jaxad.detector.exported", "jaxad.models"),
    ),
    # Third-party packages with one door.
    "orbax": Rule(
        rooms=("*",),
        never=("orbax",),
        but=("jaxad.storage.checkpoint",),
        reason="its interface moves; one file follows it",
        example=("jaxad.train.loop", "orbax.checkpoint"),
    ),
    "distrax": Rule(
        rooms=("*",),
        never=("distrax",),
        but=("jaxad.nn.flow*",),
        reason="importing it loads TensorFlow, for seconds, unless jaxad.nn.flow hides that",
        example=("jaxad.models.hierarchical_vae", "distrax"),
    ),
    "tensorflow": Rule(
        rooms=("*",),
        never=("tensorflow", "tensorflow_datasets"),
        but=("jaxad.data.published", "jaxad.data.synthetic.icbm_synth", "jaxad.data.tfds.quiet"),
        module_level_only=True,
        reason="it takes seconds, and cpu_tensorflow must hide accelerators from it first",
        example=("jaxad.data.pipeline.batching", "tensorflow"),
    ),
    "private modules": Rule(
        rooms=("*",),
        never=("jax._src", "orbax.checkpoint._src", "flax._src", "*._src"),
        reason="private modules change without notice",
        example=("jaxad.storage.checkpoint", "orbax.checkpoint._src.handlers"),
    ),
    "configs": Rule(
        rooms=("*",),
        never=("configs", "jaxad.configs"),
        reason="configs are found by path, so that users' own files are their equals",
        example=("jaxad.run", "configs.pchvae"),
    ),
}


# --- Rules.


def _is_in(module: str, rooms: tuple[str, ...]) -> bool:
    """Whether a module is one of the rooms or below one of them."""
    return any(fnmatchcase(module, room) or fnmatchcase(module, f"{room}.*") for room in rooms)


def breaks(rule: Rule, found: Import) -> bool:
    """Whether an import breaks a rule."""
    if not _is_in(found.importer, rule.rooms) or _is_in(found.importer, rule.but):
        return False
    if rule.module_level_only and (not found.at_module_level or found.for_types_only):
        return False
    if _is_in(found.imported, rule.never):
        return True
    return (
        rule.only is not None
        and _is_in(found.imported, ("jaxad",))
        and not _is_in(found.imported, rule.only)
    )


def test_imports_point_downward():
    broken = [
        f"{MODULES[found.importer]}:{found.line} imports {found.imported}"
        for found in all_imports()
        if found.imported in MODULES and _room(found.imported) > _room(found.importer)
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("name", RULES)
def test_imports_keep_the_rule(name):
    rule = RULES[name]
    broken = [
        f"{MODULES[found.importer]}:{found.line} imports {found.imported}"
        for found in all_imports()
        if breaks(rule, found)
    ]
    assert not broken, f"{rule.reason}:\n" + "\n".join(broken)


@pytest.mark.parametrize("name", RULES)
def test_rule_catches_its_example_and_is_for_modules_that_exist(name):
    rule = RULES[name]
    assert breaks(rule, Import(*rule.example))
    for room in rule.rooms:
        assert any(_is_in(module, (room,)) for module in MODULES), room


def test_exemptions_and_functions_are_free():
    assert not breaks(RULES["orbax"], Import("jaxad.storage.checkpoint", "orbax.checkpoint"))
    assert not breaks(RULES["distrax"], Import("jaxad.nn.flow", "distrax"))
    assert not breaks(RULES["distrax"], Import("jaxad.nn.flow.bijectors", "distrax"))
    builder = Import("jaxad.data.synthetic.icbm_synth", "tensorflow_datasets")
    assert not breaks(RULES["tensorflow"], builder)
    inside_function = Import("jaxad.runtime.cpu_tensorflow", "tensorflow", at_module_level=False)
    assert not breaks(RULES["tensorflow"], inside_function)
    # `jaxad.nnx` would be a room of its own.
    assert not breaks(RULES["models"], Import("jaxad.nnx", "jaxad.runtime"))


def _cycle(imports: tuple[Import, ...]) -> list[str]:
    """The modules of one import cycle at module level; empty where there is none."""
    graph: dict[str, set[str]] = {}
    for found in imports:
        if not found.at_module_level or found.for_types_only:
            continue
        # Importing a.b.c runs a and a.b as well; those that hold the importer run already.
        parts = found.imported.split(".")
        runs = {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
        holders = {name for name in runs if found.importer.startswith(f"{name}.")}
        if found.imported != found.importer:
            holders.add(found.importer)
        graph.setdefault(found.importer, set()).update(runs - holders)

    finished: set[str] = set()

    def search(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for imported in sorted(graph.get(module, ())):
            cycle = search(imported, [*path, module])
            if cycle:
                return cycle
        finished.add(module)
        return []

    return next(filter(None, (search(module, []) for module in graph)), [])


def test_no_function_of_the_package_has_the_name_of_a_module():
    # Importing the module would put it in the function's place.
    exported = next(
        ast.literal_eval(line.value)
        for line in ast.parse(MODULES["jaxad"].read_text()).body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__all__"
    )
    assert "fit" in exported
    assert not {f"jaxad.{name}" for name in exported} & MODULES.keys()


def test_no_import_cycles_at_module_level():
    cycle = _cycle(all_imports())
    assert not cycle, " -> ".join(cycle)


def test_cycles_are_found():
    chain = (Import("a", "b.x"), Import("b.x", "c"))
    assert _cycle(chain) == []
    assert _cycle((*chain, Import("c", "a"))) == ["a", "b.x", "c", "a"]
    assert _cycle((*chain, Import("c", "a", at_module_level=False))) == []
    assert _cycle((*chain, Import("b", "a"))) == ["a", "b", "a"]  # through the package
    # A package that offers names of its modules, which import each other, is none.
    package = (Import("p", "p.page"), Import("p.page", "p.figures"))
    assert _cycle(package) == []
    assert _cycle((*package, Import("p.figures", "p.page"))) == ["p.page", "p.figures", "p.page"]


def test_every_form_of_import_is_read():
    source = """
import os, jax.numpy as jnp
from jaxad import nn, __version__
from jaxad.types import Batch
from . import loop
from ..data import pipeline
from orbax.checkpoint import _src
if TYPE_CHECKING:
    from jaxad import detector
try:
    import flax
except ImportError:
    pass
class Model:
    import optax
    def score(self):
        import tensorflow as tf
"""
    found = {
        (one.imported, one.at_module_level, one.for_types_only)
        for one in read_imports(source, "jaxad.train.step")
    }
    assert found == {
        ("os", True, False),
        ("jax.numpy", True, False),
        ("jaxad.nn", True, False),
        ("jaxad", True, False),
        ("jaxad.types", True, False),
        ("jaxad.train.loop", True, False),
        ("jaxad.data.pipeline", True, False),
        ("orbax.checkpoint._src", True, False),
        ("jaxad.detector", True, True),
        ("flax", True, False),
        ("optax", True, False),
        ("tensorflow", False, False),
    }
    (relative,) = read_imports("from .page import write_report", "jaxad.report", is_package=True)
    assert relative.imported == "jaxad.report.page"

"""Nothing that is read runs: no pickle, no code, and no file outside of what was named."""

import ast
import dataclasses
import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest

from jaxad.data.files.npz import read_npz
from jaxad.detector import exported
from jaxad.errors import UserError
from jaxad.score.maps import Places

PACKAGE = Path(__file__).parent.parent / "jaxad"


# --- What the source may not do.

#: Modules that run what they read.
MODULES = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle",
    "joblib.numpy_pickle", "code", "runpy",
}  # fmt: skip

#: Functions that do, by the end of their name.
CALLS = {
    "eval", "exec", "compile_command", "joblib.load", "torch.load", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "pd.read_pickle", "pandas.read_pickle", "np.fromregex", "os.system",
    "extractall", "unpack_archive",
}  # fmt: skip

#: Where one of them is meant to be.
MEANT = {
    # A config that is a Python file is the user's own program.
    ("jaxad/config/shipped.py", "exec_module"),
    # With `filter="data"`, files stay in the folder and are plain; tests try others.
    ("jaxad/storage/copies.py", "calls archive.extractall"),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    line: int
    what: str


def findings(source: str) -> Iterator[Finding]:
    """What a module does that would run what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [node.module or ""]
        elif isinstance(node, ast.Call):
            yield from call_findings(node)
            continue
        else:
            continue
        for name in names:
            if name in MODULES or name.split(".")[0] in MODULES or name in CALLS:
                yield Finding(node.lineno, f"imports {name}")


def call_findings(node: ast.Call) -> Iterator[Finding]:
    name = ast.unparse(node.func)
    last = name.rpartition(".")[2]
    options = {option.arg: ast.unparse(option.value) for option in node.keywords}
    if name in CALLS or last in ("extractall", "exec_module", "unpack_archive"):
        yield Finding(node.lineno, last if last == "exec_module" else f"calls {name}")
    if name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
        yield Finding(node.lineno, f"calls {name} without allow_pickle=False")
    if options.get("allow_pickle") == "True" or options.get("shell") == "True":
        yield Finding(node.lineno, f"calls {name} with {options}")


def test_the_package_unpickles_and_evaluates_nothing():
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 50
    found = {
        (path.relative_to(PACKAGE.parent).as_posix(), one.what)
        for path in paths
        for one in findings(path.read_text(encoding="utf-8"))
    }
    assert found == MEANT


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import dill",
        "import joblib.numpy_pickle",
        "from joblib import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.lib.npyio.NpzFile(file, allow_pickle=True)",
        "torch.load(path)",
        "yaml.load(text)",
        "eval(text)",
        "archive.extractall()",
        "subprocess.run(text, shell=True)",
    ],
)
def test_what_would_is_found(source):
    assert list(findings(source))


def test_what_would_not_is_not_found():
    source = (
        "import pickletools\nnp.load(path, allow_pickle=False)\nmodel.eval()\nyaml.safe_load(a)"
    )
    assert not list(findings(source))


# --- Files with pickles in them.


@dataclasses.dataclass
class Exploit:
    """Makes a file when it is unpickled."""

    place: Path

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.fixture
def exploit(tmp_path):
    found = Exploit(tmp_path / "it ran")
    yield found
    assert not found.place.exists()


def test_the_exploit_works(tmp_path):
    pickle.loads(pickle.dumps(Exploit(tmp_path / "it ran")))
    assert (tmp_path / "it ran").exists()


def objects(exploit):
    array = np.empty(1, object)
    array[0] = exploit
    return array


@pytest.mark.parametrize("name", ["image", "id", "stranger"])
def test_an_npz_file_with_objects_is_refused(name, exploit, tmp_path):
    arrays = {"image": np.zeros((1, 4, 4), np.uint8), name: objects(exploit)}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=r"a\.npz: is not an \.npz file, or has an array of Python"):
        read_npz(tmp_path / "a.npz", ())
    (tmp_path / "b.npz").write_bytes(pickle.dumps(exploit))
    with pytest.raises(UserError, match=r"b\.npz: is not an \.npz file"):
        read_npz(tmp_path / "b.npz", ())


def exported_file(path, program=b"", weights=None):
    """An archive whose digests are right: who writes it can count, too."""
    file = io.BytesIO()
    np.savez(file, **({"0": np.zeros(1)} if weights is None else {"0": weights}))
    members = {
        exported.PROGRAM: program,
        exported.WEIGHTS: file.getvalue(),
        exported.CONFIG: b"{}",
        exported.CARD: b"{}",
        exported.GOLDEN: file.getvalue(),
    }
    manifest = {
        "format": exported.FORMAT, "step": 1, "image_shape": [4, 4, 1], "num_parameters": 1,
        "num_latents": 1, "score_weights": {}, "batch_size": 2,
        "digests": {name: exported.digest(content) for name, content in members.items()},
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {exported.MANIFEST: json.dumps(manifest), **members}.items():
            archive.writestr(name, content)
    return path


def test_an_exported_file_with_objects_is_refused(exploit, tmp_path):
    path = exported_file(tmp_path / "a.jaxad", weights=objects(exploit))
    with pytest.raises(UserError, match=r"a\.jaxad': cannot be loaded \(Object arrays cannot be"):
        exported.load(path)


def test_an_exported_program_that_calls_python_is_refused(tmp_path):
    """Such a call holds an address in the memory of the process that wrote it."""

    name = "xla_ffi_python_cpu_callback"

    def score(weights, images):
        return {"image": jax.ffi.ffi_call(name, jax.ShapeDtypeStruct((2,), np.float32))(images)}

    arguments = ([np.zeros(1)], np.zeros((2, 4, 4, 1), np.float32))
    checks = [jax.export.DisabledSafetyCheck.custom_call(name)]
    program = jax.export.export(jax.jit(score), disabled_checks=checks)(*arguments)
    path = exported_file(tmp_path / "a.jaxad", bytes(program.serialize()))
    with pytest.raises(UserError, match=rf"cannot be loaded \(its program calls '{name}'\)"):
        exported.load(path)


@pytest.mark.parametrize(
    ("line", "calls"),
    [
        ("%0 = stablehlo.custom_call @shape_assertion(%1) {api_version = 2 : i32}", ""),
        ("stablehlo.custom_call @xla_ffi_python_cpu_callback(%1)", "xla_ffi_python_cpu_callback"),
        ('"stablehlo.custom_call"(%1) <{call_target_name = "mine"}> : () -> ()', "mine"),
        ('stablehlo.custom_call @"a.b"(%1)', "a.b"),
        ("stablehlo.custom_call", "stablehlo.custom_call"),
        ("%0 = stablehlo.add %1, %2", ""),
    ],
)
def test_calls_of_a_program(line, calls):
    if not calls:
        exported.check_calls(line)
        return
    with pytest.raises(ValueError, match=f"its program calls '{calls}'"):
        exported.check_calls(f"module {{\n  {line}\n}}")


# --- Names that lead elsewhere.


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/x",
        "..",
        ".",
        "",
        "a/../../../x",
        "a\\..\\x",
        "a\nb",
        "x" * 999,
        "~",
        "a\0b",
        "\0",
    ],
)
def test_maps_stay_in_their_folder(name, tmp_path):
    folder = tmp_path / "out/maps"
    path = Places(folder, [name, "other"]).of(name, "_map.png")
    assert path.resolve().is_relative_to(folder.resolve())
    assert path != folder and path.name.endswith("_map.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_members_of_an_exported_file_are_never_extracted(tmp_path):
    path = exported_file(tmp_path / "a.jaxad")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside", b"x")
        archive.writestr("/outside", b"x")
    with pytest.raises(UserError):
        exported.load(path)
    assert {one.name for one in tmp_path.iterdir()} == {"a.jaxad"}
    assert not (tmp_path.parent / "outside").exists()

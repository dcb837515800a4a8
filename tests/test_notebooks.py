"""The Colab notebooks: uniform, committed without outputs, and run from top to bottom."""

import ast
import importlib.util
import re
import types
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ["aeflow", "quickstart", "reproduce", "your_own_data"]

#: Notebook -> values of the small setting, assigned in the cell tagged `parameters`.
SMALL = {
    "quickstart": {"config_name": "pchvae:smoke"},
    "aeflow": {"config_name": "aeflow:smoke"},
    "your_own_data": {
        "config_name": "pchvae:smoke", "num_epochs": 1.0, "num_subjects": (4, 2, 3, 4),
    },
    "reproduce": {
        "study_name": "studies/pchvae_table1:smoke", "systems": ("highvae", "pchvae"),
    },
}  # fmt: skip

#: Lines allowed on stderr: progress bars, and the warning that the small setting causes.
EXPECTED = (
    re.compile(r".+: +\d+%\|.*\| \S+/\S+ \[.*\]"),
    re.compile(r"(WARNING:[\w.]+:)?\d+ normal patients?: too few for a false-positive rate of .*"),
)


def _load_prepare():
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "notebooks/prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prepare = _load_prepare()


def _read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def test_all_notebooks_are_listed():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_prepared(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    source = prepare.read_source()
    text = path.read_text(encoding="utf-8")
    assert text == prepare.prepared_text(path, source), "run python notebooks/prepare.py"
    notebook = _read(name)
    nbformat.validate(notebook)
    title, install = notebook.cells[:2]
    assert f"blob/main/notebooks/{name}.ipynb)" in title.source
    assert f'"git+{source}"' in install.source
    # Independent of prepare.py: no outputs and no path of a machine.
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    assert "/home/" not in text and "/tmp/" not in text


def test_readme_links_to_every_notebook_at_the_projects_address():
    source, readme = prepare.read_source(), (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == prepare.prepared_readme(readme, source)
    for name in NAMES:
        assert prepare.badge(source, name) in readme


def test_changing_the_address_changes_every_link():
    ours, theirs = prepare.read_source(), "https://github.com/another-owner/of-it"
    notebook = prepare.prepare(_read("quickstart"), theirs, "quickstart")
    assert ours not in nbformat.writes(notebook)
    assert "git+https://github.com/another-owner/of-it" in notebook.cells[1].source
    link = "https://colab.research.google.com/github/another-owner/of-it/blob/main/notebooks/quickstart.ipynb"
    assert link in notebook.cells[0].source
    assert link in prepare.prepared_readme((ROOT / "README.md").read_text(encoding="utf-8"), theirs)
    assert prepare.prepare(notebook, ours, "quickstart") == _read("quickstart")
    with pytest.raises(SystemExit, match="GitHub"):
        prepare.prepare(_read("quickstart"), "https://example.org/ad", "quickstart")


def test_outputs_and_editor_metadata_are_removed():
    notebook = _read("quickstart")
    cell = notebook.cells[2]
    cell.execution_count = 3
    cell.outputs = [nbformat.v4.new_output("stream", text="seen")]
    cell.metadata["execution"] = {"shell.execute_reply": "2020-01-01"}
    notebook.metadata["widgets"] = {}
    source = prepare.read_source()
    assert prepare.prepare(notebook, source, "quickstart") == _read("quickstart")


REQUIRES = [
    "jax>=0.8",
    "numpy>=2.0",
    'tensorflow-cpu>=2.19; sys_platform == "linux"',
    'tensorflow>=2.19; sys_platform != "linux"',
    'pytest>=8.3; extra == "test"',
    'jax[cuda12]>=0.8; extra == "cuda"',
]


@pytest.mark.parametrize(
    ("before", "after", "installed"),
    [
        # A bare runtime.
        ({}, {"jax": "0.9"}, ["jax>=0.8", "numpy>=2.0", "tensorflow-cpu>=2.19"]),
        # JAX for GPUs and TensorFlow, both new enough: both stay.
        (
            {"jax": "0.9", "jax-cuda12-plugin": "0.9", "tensorflow": "2.19.0"},
            {"jax": "0.9"},
            ["jax==0.9", "numpy>=2.0"],
        ),
        # An old JAX: its TPU plugin is renewed with it.
        (
            {"jax": "0.7", "libtpu": "0.0.20", "tensorflow": "2.18.0"},
            {"jax": "0.9"},
            ["jax>=0.8", "numpy>=2.0", "tensorflow-cpu>=2.19", "jax[tpu]==0.9"],
        ),
    ],
)
def test_install_cell_keeps_packages_of_the_runtime(before, after, installed, monkeypatch):
    commands = []
    distributions = [types.SimpleNamespace(name=n, version=v) for n, v in before.items()]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(metadata, "distributions", lambda: distributions)
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(metadata, "version", lambda name: after[name])
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
    code = prepare.install_code("https://github.com/another-owner/of-it")
    exec(code, {})
    assert all(command[1:5] == ["-m", "pip", "install", "--quiet"] for command in commands)
    first, *others = (command[5:] for command in commands)
    assert first == ["--no-deps", "git+https://github.com/another-owner/of-it"]
    assert [package for command in others for package in command] == installed


def test_install_cell_does_nothing_if_jaxad_is_installed(monkeypatch):
    monkeypatch.setattr("subprocess.run", None)  # calling it would fail
    exec(prepare.install_code("https://github.com/another-owner/of-it"), {})


def _at_small_setting(name):
    """Returns the notebook with the values of its parameter cell replaced."""
    notebook = _read(name)
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    assigned = {
        target.id for line in ast.parse(cell.source).body for target in getattr(line, "targets", [])
    }
    assert SMALL[name].keys() <= assigned  # otherwise it would run at its real setting
    lines = [f"{key} = {value!r}" for key, value in SMALL[name].items()]
    cell.source = "\n".join([cell.source, *lines])
    return notebook


def _check_outputs(notebook):
    """Checks that the outputs have no unexpected lines and show every figure."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("text", "") if output.output_type == "stream" else ""
            for line in map(str.strip, re.split(r"[\r\n]+", text)):
                if not any(pattern.fullmatch(line) for pattern in EXPECTED):
                    assert "warning" not in line.lower(), line
                    assert not line or output.name == "stdout", line
            if "<Figure" in output.get("data", {}).get("text/plain", ""):
                assert "image/png" in output.data  # not only its repr


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "quickstart" else pytest.mark.long) for name in NAMES],
)
def test_notebook_runs_from_top_to_bottom(
    name, tmp_path, monkeypatch, launch_environment, data_root
):
    for key, value in launch_environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_root))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the kernel runs in another folder
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # processes take longer to start than to work
    notebook = _at_small_setting(name)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    _check_outputs(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3

"""Writes the badge, install cell and metadata of all notebooks and removes outputs.

    python notebooks/prepare.py
    python notebooks/prepare.py --source=https://github.com/<owner>/<repository>

The project's address is `Source` of `[project.urls]` in pyproject.toml; `--source` changes it there
first. Links to the project's files, and links to Colab in README.md, follow.
"""

import argparse
import re
import tomllib
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent
BRANCH = "main"

_COLAB = "https://colab.research.google.com"
_LINK = re.compile(rf"{re.escape(_COLAB)}/github/[^)\s]*/notebooks/(\w+)\.ipynb")
_FILE = re.compile(rf"https://github\.com/[\w.-]+/[\w.-]+/blob/{BRANCH}/")
_BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)")

#: Code of the install cell; SOURCE stands for the project's address.
_INSTALL = """\
# @title Install jaxad (does nothing if it is already installed)
import importlib.metadata
import importlib.util
import subprocess
import sys

from packaging.requirements import Requirement


def pip_install(*arguments):
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments], check=True)


if importlib.util.find_spec("jaxad") is None:
    before = {str(d.name).lower(): d.version for d in importlib.metadata.distributions()}
    pip_install("--no-deps", "git+SOURCE")
    importlib.invalidate_caches()
    packages = []
    for needed in map(Requirement, importlib.metadata.requires("jaxad")):
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        # Keep the runtime's JAX and TensorFlow if they are new enough; one with GPU support works.
        is_satisfied = before.get(needed.name.removesuffix("-cpu"), "0") in needed.specifier
        if needed.name == "jax" and is_satisfied:
            packages.append(f"jax=={before['jax']}")
        elif needed.name != "tensorflow-cpu" or not is_satisfied:
            packages.append(f"{needed.name}{needed.specifier}")
    pip_install(*packages)
    # If JAX was too old, its GPU or TPU plugin is too.
    version = importlib.metadata.version("jax")
    plugins = {"jax-cuda12-plugin": "cuda12", "jax-cuda13-plugin": "cuda13", "libtpu": "tpu"}
    for plugin, extra in plugins.items():
        if plugin in before and before.get("jax") != version:
            pip_install(f"jax[{extra}]=={version}")"""

#: Fields of a cell's metadata to keep; running and editors leave others.
_KEPT = ("cellView", "jupyter", "tags")


def read_source(root: Path = ROOT) -> str:
    """Reads the project's address from pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]["Source"]


def repository(source: str) -> str:
    """Returns `<owner>/<repository>` of the project's address, as Colab needs it."""
    match = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", source)
    if match is None:
        raise SystemExit(
            f"error: {source}: Colab opens notebooks only from GitHub; give an address such as "
            "https://github.com/<owner>/<repository>."
        )
    return match[1]


def colab_link(source: str, name: str) -> str:
    """Returns the address at which Colab opens a notebook, named without suffix."""
    return f"{_COLAB}/github/{repository(source)}/blob/{BRANCH}/notebooks/{name}.ipynb"


def badge(source: str, name: str) -> str:
    """Returns the badge that opens a notebook in Colab, in Markdown."""
    return f"[![Open in Colab]({_COLAB}/assets/colab-badge.svg)]({colab_link(source, name)})"


def install_code(source: str) -> str:
    """Returns the code of the install cell."""
    return _INSTALL.replace("SOURCE", source.removesuffix("/"))


def prepare(notebook: NotebookNode, source: str, name: str) -> NotebookNode:
    """Returns a notebook with badge, install cell and metadata, without outputs.

    Args:
        notebook: starts with a Markdown cell whose first line is the title.
        source: the project's address.
        name: the notebook's name, without suffix.
    """
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        raise SystemExit(f"error: {name}.ipynb: start it with a Markdown cell, '# <title>'.")
    title, _, text = _BADGE.sub("", first.source).partition("\n")
    head = nbformat.v4.new_markdown_cell(
        f"{title}\n\n{badge(source, name)}\n\n{text.strip()}", id="title"
    )
    # Colab and JupyterLab show the cell folded.
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["install"]}
    install = nbformat.v4.new_code_cell(install_code(source), id="install", metadata=folded)
    rest = [cell for cell in notebook.cells[1:] if "install" not in cell.metadata.get("tags", [])]
    metadata = {
        "accelerator": "GPU",  # Colab's default for these notebooks, which also run on a CPU
        "colab": {"provenance": []},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    cells = [_clean(cell, source) for cell in (head, install, *rest)]
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def _clean(cell: NotebookNode, source: str) -> NotebookNode:
    metadata = {key: value for key, value in cell.metadata.items() if key in _KEPT}
    text = _FILE.sub(f"https://github.com/{repository(source)}/blob/{BRANCH}/", cell.source)
    is_code = cell.cell_type == "code"
    make = nbformat.v4.new_code_cell if is_code else nbformat.v4.new_markdown_cell
    return make(text.rstrip(), id=cell.id, metadata=metadata)


def prepared_text(path: Path, source: str) -> str:
    """Returns the expected content of a notebook's file."""
    return nbformat.writes(prepare(nbformat.read(path, as_version=4), source, path.stem)) + "\n"


def prepared_readme(text: str, source: str) -> str:
    """Returns README.md with links to Colab for the project's address."""
    return _LINK.sub(lambda match: colab_link(source, match[1]), text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", help="the project's new address, a GitHub repository's")
    source = parser.parse_args().source
    if source is not None:
        repository(source)  # exits if it is not an address on GitHub
        path = ROOT / "pyproject.toml"
        text = re.sub(r'(?m)^Source = ".*"$', f'Source = "{source}"', path.read_text())
        path.write_text(text)
    source = read_source()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        path.write_text(prepared_text(path, source))
    readme = ROOT / "README.md"
    readme.write_text(prepared_readme(readme.read_text(), source))


if __name__ == "__main__":
    main()

"""Writes what all notebooks share: badge, install cell, settings; takes out what running leaves.

    python notebooks/prepare.py
    python notebooks/prepare.py --source=https://github.com/<owner>/<repository>

The project's address stands once, as `Source` of `[project.urls]` in pyproject.toml; `--source`
changes it there first. Links to the project's files, and those of README.md to Colab, follow.
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

#: The install cell; SOURCE is the project's address.
_INSTALL = """\
# @title Install jaxad (does nothing where it is installed already)
import importlib.metadata
import importlib.util
import subprocess
import sys

from packaging.requirements import Requirement


def pip_install(*arguments):
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments], check=True)


if importlib.util.find_spec("jaxad") is None:
    before = {str(one.name).lower(): one.version for one in importlib.metadata.distributions()}
    pip_install("--no-deps", "git+SOURCE")
    importlib.invalidate_caches()
    needed = []
    for one in map(Requirement, importlib.metadata.requires("jaxad")):
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        # The runtime's JAX is kept, and its TensorFlow, which does as well as one without GPU.
        is_there = before.get(one.name.removesuffix("-cpu"), "0") in one.specifier
        if one.name == "jax" and is_there:
            needed.append(f"jax=={before['jax']}")
        elif one.name != "tensorflow-cpu" or not is_there:
            needed.append(f"{one.name}{one.specifier}")
    pip_install(*needed)
    # Where JAX was too old, what drives the GPU or TPU is renewed with it.
    version = importlib.metadata.version("jax")
    plugins = {"jax-cuda12-plugin": "cuda12", "jax-cuda13-plugin": "cuda13", "libtpu": "tpu"}
    for plugin, extra in plugins.items():
        if plugin in before and before.get("jax") != version:
            pip_install(f"jax[{extra}]=={version}")"""

#: Of a cell's metadata, what is not left behind by running or by an editor.
_KEPT = ("cellView", "jupyter", "tags")


def read_source(root: Path = ROOT) -> str:
    """The address of the project."""
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]["Source"]


def repository(source: str) -> str:
    """`<owner>/<repository>` of the project's address, which Colab knows notebooks by."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", source)
    if found is None:
        raise SystemExit(
            f"error: {source}: Colab opens notebooks of GitHub alone; give an address such as "
            "https://github.com/<owner>/<repository>."
        )
    return found[1]


def colab_link(source: str, name: str) -> str:
    """Where Colab opens the notebook of this name (without suffix)."""
    return f"{_COLAB}/github/{repository(source)}/blob/{BRANCH}/notebooks/{name}.ipynb"


def badge(source: str, name: str) -> str:
    """The badge that opens a notebook in Colab, in Markdown."""
    return f"[![Open in Colab]({_COLAB}/assets/colab-badge.svg)]({colab_link(source, name)})"


def install_code(source: str) -> str:
    """The code of the install cell."""
    return _INSTALL.replace("SOURCE", source.removesuffix("/"))


def prepare(notebook: NotebookNode, source: str, name: str) -> NotebookNode:
    """The notebook with badge, install cell and settings, without what running it left.

    Args:
        notebook: begins with a cell of Markdown, whose first line is the title.
        source: the address of the project.
        name: of the notebook, without suffix.
    """
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        raise SystemExit(f"error: {name}.ipynb: begin it with a cell of Markdown, '# <title>'.")
    title, _, text = _BADGE.sub("", first.source).partition("\n")
    head = nbformat.v4.new_markdown_cell(
        f"{title}\n\n{badge(source, name)}\n\n{text.strip()}", id="title"
    )
    # Colab and JupyterLab show the cell folded.
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["install"]}
    install = nbformat.v4.new_code_cell(install_code(source), id="install", metadata=folded)
    own = [one for one in notebook.cells[1:] if "install" not in one.metadata.get("tags", [])]
    metadata = {
        "accelerator": "GPU",  # what Colab starts with; the notebooks run without, too
        "colab": {"provenance": []},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    cells = [_clean(one, source) for one in (head, install, *own)]
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def _clean(cell: NotebookNode, source: str) -> NotebookNode:
    metadata = {key: value for key, value in cell.metadata.items() if key in _KEPT}
    text = _FILE.sub(f"https://github.com/{repository(source)}/blob/{BRANCH}/", cell.source)
    is_code = cell.cell_type == "code"
    make = nbformat.v4.new_code_cell if is_code else nbformat.v4.new_markdown_cell
    return make(text.rstrip(), id=cell.id, metadata=metadata)


def prepared_text(path: Path, source: str) -> str:
    """What a notebook's file should hold."""
    return nbformat.writes(prepare(nbformat.read(path, as_version=4), source, path.stem)) + "\n"


def prepared_readme(text: str, source: str) -> str:
    """README.md with links to Colab at the project's address."""
    return _LINK.sub(lambda found: colab_link(source, found[1]), text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", help="the project's new address, a GitHub repository's")
    source = parser.parse_args().source
    if source is not None:
        repository(source)  # says what is wrong with it
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

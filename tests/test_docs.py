"""Names in the documentation: every file, link, module and function that a page names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "docs/*.md")
    for path in ROOT.glob(pattern)
)

LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)")
FILE = re.compile(
    r"(?<![\w/.])(?:benchmarks|configs|docs|jaxad|notebooks|tests)/[\w/.-]*\.(?:py|md|ipynb)\b"
)
NAME = re.compile(r"(?<![\w/.-])jaxad(?:\.\w+)+")


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _exists(name: str) -> bool:
    """Whether a dotted name is a module of the package or is defined at the top of one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.is_file():
            rest = parts[end:]
            definition = rf'^(?:class |def |    ")?{rest[0] if rest else ""}\b'
            return not rest or re.search(definition, file.read_text(), re.M) is not None
    return False


def broken_names(text: str, page: Path) -> list[str]:
    """The links, files and dotted names of a page that do not exist."""
    broken = []
    for target, anchor in LINK.findall(text):
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(f"{target}#{anchor}")
    broken += [file for file in FILE.findall(text) if not (ROOT / file).exists()]
    return broken + [name for name in NAME.findall(text) if not _exists(name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_names_only_what_exists(page):
    assert not broken_names(page.read_text(encoding="utf-8"), page)


def test_pages_that_the_code_names_exist():
    sources = [*(ROOT / "jaxad").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]
    named = {page for path in sources for page in re.findall(r"docs/\w+\.md", path.read_text())}
    assert named and all((ROOT / page).is_file() for page in named)


def test_index_lists_every_page():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\((\w+\.md)\)", index))


def test_broken_names_are_found():
    text = (
        "[a](docs/none.md) [b](README.md#none) jaxad/none.py jaxad.types.none jaxad.none "
        "[c](docs/data.md#masks) tests/test_docs.py jaxad.types.Split jaxad.fit runs/x.jaxad.zip"
    )
    assert broken_names(text, ROOT / "README.md") == [
        "docs/none.md#", "README.md#none", "docs/none.md", "jaxad/none.py", "jaxad.types.none",
        "jaxad.none",
    ]  # fmt: skip

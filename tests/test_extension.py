"""Objects that a config names by module: found, or one line that says why not."""

import sys

import pytest

from jaxad.errors import UserError
from jaxad.extension import external_errors_named, is_external, load_object


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module in the current folder, which is not on the path."""
    (tmp_path / "outside_jaxad.py").write_text(
        "class Thing:\n"
        "    def answer(self):\n"
        "        import sibling_outside\n"
        "        return sibling_outside.answer\n"
        "    def fails(self):\n"
        "        return 1 / 0\n"
    )
    (tmp_path / "broken_outside.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "sibling_outside.py").write_text("answer = 42\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "outside_jaxad"
    for name in ("outside_jaxad", "sibling_outside"):
        sys.modules.pop(name, None)


def test_an_object_of_an_installed_package_leaves_the_path(module):
    before = list(sys.path)
    assert load_object("json:loads", "config.model.name")("1") == 1
    assert sys.path == before


def test_an_object_of_the_current_folder_can_import_from_there_later(module):
    thing = load_object(f"{module}:Thing", "config.model.name")
    assert thing().answer() == 42


def test_a_module_of_the_current_folder_comes_before_one_of_an_earlier_folder(
    module, tmp_path, monkeypatch
):
    load_object(f"{module}:Thing", "config.model.name")
    sys.modules.pop(module)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / f"{module}.py").write_text("number = 3\n")
    monkeypatch.chdir(tmp_path / "other")
    assert load_object(f"{module}:number", "config.model.name") == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("outside_jaxad:Missing", "has no 'Missing'"),
        ("broken_outside:Thing", "cannot be imported .*nothing_of_this_name"),
        ("no_such_module_anywhere:Thing", "cannot be imported .*no_such_module_anywhere"),
        (":Thing", "not of the form"),
        ("outside_jaxad:", "not of the form"),
        ("outside_jaxad:a b", "not of the form"),
    ],
)
def test_what_cannot_be_found_is_one_line(module, name, message):
    with pytest.raises(UserError, match=f"config.model.name: .*{message}") as error:
        load_object(name, "config.model.name")
    assert "\n" not in str(error.value)


def test_errors_that_come_through_external_code_are_one_line(module):
    thing = load_object(f"{module}:Thing", "config.model.name")
    names = ["pchvae", "tfds:mnist", f"{module}:Thing"]
    line = rf"^{module}:Thing: raised ZeroDivisionError: .* \({module}\.py, line 6\)\.$"
    with pytest.raises(UserError, match=line) as error, external_errors_named(names):
        thing().fails()
    assert isinstance(error.value.__cause__, ZeroDivisionError)  # the traceback is chained
    with pytest.raises(ZeroDivisionError), external_errors_named(names):
        _ = 1 / 0  # a bug of ours


def test_names_with_a_colon_are_external():
    assert is_external("a.b:C") and not is_external("pchvae")

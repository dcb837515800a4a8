"""Users without a home folder, or with one that cannot be written."""

import os
import tempfile
from pathlib import Path

import pytest

from jaxad.errors import UserError
from jaxad.runtime import compilation_cache
from jaxad.storage import home
from jaxad.storage.home import cache_folder
from jaxad.train import feature_cache

VARIABLES = ("MPLCONFIGDIR", "KERAS_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No variable is set; temporary files go to `tmp`, and `home` is the home folder."""
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")  # what a test sets is taken back
        monkeypatch.delenv(variable)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def homeless(clean, monkeypatch):
    """A user that the system does not know, as in some containers."""

    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    return clean


def test_a_home_folder_that_can_be_written_is_left_alone(clean, capsys):
    home.relocate_library_caches()
    assert home.cache_folder() == clean / "home/.cache"
    assert not any(variable in os.environ for variable in VARIABLES)
    assert capsys.readouterr() == ("", "")
    assert not list(clean.glob("*/*"))  # nothing is made


def test_without_a_home_folder(homeless, capsys):
    assert home.home_folder() is None and home.cache_folder() is None
    assert feature_cache.default_folder() is None
    home.relocate_library_caches()
    folder = homeless / "tmp" / f"jaxad-{os.getuid()}"
    assert Path(os.environ["MPLCONFIGDIR"]).parent == folder
    assert Path(os.environ["KERAS_HOME"]).parent == folder
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and str(folder) in printed


def test_programs_are_not_cached_without_a_home_folder(homeless, capsys):
    before = compilation_cache.jax.config.jax_compilation_cache_dir
    compilation_cache.jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert compilation_cache.enable_compilation_cache(cache_folder) is None
    finally:
        compilation_cache.jax.config.update("jax_compilation_cache_dir", before)
    printed = capsys.readouterr().err
    assert printed.startswith(
        "note: compiled programs are not cached (there is no folder for them)"
    )
    assert printed.count("\n") == 1


@pytest.mark.parametrize("variable", ["MPLCONFIGDIR", "HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"])
def test_a_file_in_the_place_of_a_folder(clean, monkeypatch, capsys, variable):
    (clean / "file").touch()
    monkeypatch.setenv(variable, str(clean / "file/below"))
    home.relocate_library_caches()
    moved = Path(os.environ["MPLCONFIGDIR"])
    assert moved.is_relative_to(clean / "tmp")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def read_only(homeless, monkeypatch):
    """There is no folder for temporary files, either."""

    def none():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    monkeypatch.setenv("TMPDIR", "")
    return homeless


def test_without_a_folder_for_temporary_files(read_only):
    """Libraries need one when they are imported."""
    assert home.temporary_folder() is None
    with pytest.raises(UserError, match="set TMPDIR or XDG_CACHE_HOME to a folder that can be wri"):
        home.relocate_library_caches()


def test_one_variable_is_enough_on_a_read_only_system(read_only, monkeypatch, capsys):
    cache = read_only / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    home.relocate_library_caches()
    assert os.environ["TMPDIR"] == tempfile.tempdir == str(cache / "jaxad/tmp")
    assert (cache / "jaxad/tmp").is_dir()
    assert Path(os.environ["KERAS_HOME"]).parent == cache / "jaxad"
    assert Path(os.environ["MPLCONFIGDIR"]).parent == cache / "jaxad"
    assert home.compiled_folder() == cache
    assert capsys.readouterr() == ("", "")


def test_temporary_files_do_not_go_to_the_current_folder(clean, monkeypatch):
    monkeypatch.chdir(clean)
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.setattr("tempfile.tempdir", str(clean))
    home.relocate_library_caches()
    assert tempfile.tempdir == str(clean)  # no other is named
    monkeypatch.setenv("XDG_CACHE_HOME", str(clean / "cache"))
    home.relocate_library_caches()
    assert tempfile.tempdir == str(clean / "cache/jaxad/tmp")


def test_compiled_programs_of_a_user_without_home_are_cached_in_a_temporary_folder(homeless):
    assert home.compiled_folder() == homeless / "tmp" / f"jaxad-{os.getuid()}"


def test_a_home_folder_that_cannot_be_written_has_no_cache(clean, monkeypatch):
    """Docker gives a user that the image does not know the home folder `/`."""
    (clean / "file").touch()
    monkeypatch.setenv("HOME", str(clean / "file"))
    assert home.cache_folder() is None
    assert home.compiled_folder() == clean / "tmp" / f"jaxad-{os.getuid()}"


def test_the_temporary_folder_of_another_user_is_not_taken(clean, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 4321)  # not the owner of what this test makes
    assert home.temporary_folder() is None


def test_a_cache_in_the_home_folder_of_an_unknown_user(clean, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "~nosuchuser/c")
    with pytest.raises(UserError, match=r"^\$XDG_CACHE_HOME: '~nosuchuser/c': there is no user"):
        home.cache_folder()

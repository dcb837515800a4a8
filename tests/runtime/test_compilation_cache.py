"""The compilation cache is enabled unless the user configures JAX otherwise."""

import errno
import os

import jax
import pytest

from jaxad.runtime import compilation_cache
from jaxad.storage.home import cache_folder


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """JAX without a cache folder; its settings are restored after the test."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
             "jax_enable_compilation_cache")  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_folder_depends_on_the_machine(fresh, monkeypatch):
    folder = compilation_cache.enable_compilation_cache(cache_folder)
    assert folder.parent == fresh / "jaxad" / "compiled" and folder.is_dir()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(compilation_cache.platform, "machine", lambda: "another")
    assert compilation_cache.enable_compilation_cache(cache_folder) != folder


def test_settings_of_the_user_take_precedence(fresh):
    jax.config.update("jax_compilation_cache_dir", "mine")
    assert compilation_cache.enable_compilation_cache(cache_folder) is None
    assert jax.config.jax_compilation_cache_dir == "mine"
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    assert compilation_cache.enable_compilation_cache(cache_folder) is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_cache_folder_that_cannot_be_written_is_no_error(fresh, monkeypatch):
    (fresh / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "file"))
    assert compilation_cache.enable_compilation_cache(cache_folder) is None
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_folder_on_a_full_disk_is_one_warning(fresh, monkeypatch, capsys, number):
    """JAX would warn at every program."""

    def refuse(**_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert compilation_cache.enable_compilation_cache(cache_folder) is None
    assert jax.config.jax_compilation_cache_dir is None
    printed = capsys.readouterr().err
    assert os.strerror(number) in printed and printed.count("\n") == 1

"""Compiled programs are kept, but where the user says otherwise."""

import jax
import pytest

from jaxad import compilation


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """JAX as it starts: told of no folder; what a test sets is taken back."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
             "jax_enable_compilation_cache")  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_user_s_cache_by_machine(fresh, monkeypatch):
    folder = compilation.keep_programs()
    assert folder.parent == fresh / "jaxad" / "compiled" and folder.is_dir()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(compilation.platform, "machine", lambda: "another")
    assert compilation.keep_programs() != folder


def test_what_the_user_says_stays(fresh):
    jax.config.update("jax_compilation_cache_dir", "mine")
    assert compilation.keep_programs() is None
    assert jax.config.jax_compilation_cache_dir == "mine"
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    assert compilation.keep_programs() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_home_that_cannot_be_written_is_no_error(fresh, monkeypatch):
    (fresh / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "file"))
    assert compilation.keep_programs() is None
    assert jax.config.jax_compilation_cache_dir is None

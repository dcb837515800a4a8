"""Paths that users write: home folders, names that are not UTF-8 or that look like patterns."""

import glob
import os
from pathlib import Path

import pytest
from etils import epath

from jaxad.errors import UserError
from jaxad.storage import paths

UNDECODABLE = os.fsdecode(b"x\xff")


def test_a_tilde_is_replaced_by_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/homes/ann")
    assert paths.expand("~") == Path("/homes/ann")
    assert paths.expand("~/runs/a") == paths.expand(Path("~/runs/a")) == Path("/homes/ann/runs/a")


@pytest.mark.parametrize("name", ["runs/a", "/runs/a", "runs/~", "a~b", ".", "lr=[0.1]", "", "-x"])
def test_other_paths_stay_as_they_are(name):
    assert paths.expand(name) == Path(name)


@pytest.mark.parametrize("name", ["~", "~ann", "~/~"])
def test_a_folder_whose_name_starts_with_a_tilde(monkeypatch, tmp_path, name):
    """Also if the path is expanded again."""
    monkeypatch.chdir(tmp_path)
    found = paths.expand(f"./{name}")
    assert found == tmp_path / name == paths.expand(found)


@pytest.mark.parametrize("name", ["~nosuchuser", "~nosuchuser/runs", "~+/x"])
def test_the_remedy_for_the_home_folder_of_an_unknown_user_works(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        paths.expand(name, "--workdir")
    first = name.split("/")[0]
    assert str(raised.value) == (
        f"--workdir: '{name}': there is no user '{first}'; write the path in full, or as "
        f"'./{name}' if a folder is really named '{first}'."
    )
    assert paths.expand(f"./{name}") == tmp_path / name


def test_a_user_without_a_home_folder(monkeypatch):
    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(UserError, match=r"^'~/x': this user has no home folder; write the path in"):
        paths.expand("~/x")
    assert paths.expand("x") == Path("x")


GOOD_NAMES = (
    "lr=[0.1]", "a**b", "a?b", "{a,b}", "100%", "a#b", "a b", "it's", 'a"b', "a\nb", "dot.",
    "-dash", "a~", "a:b", "n" * 255, "ümlaut", "gs", "a;b",
)  # fmt: skip


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_names_of_folders_that_checkpoints_can_be_written_to(tmp_path, name):
    paths.check_name(tmp_path / name, "workdir")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/runs/a\\b", "its path has a backslash"),
        ("/a\\b/run", "its path has a backslash"),
        (f"/runs/{UNDECODABLE}", r"workdir '/runs/x\\xff': its name is not UTF-8; rename it"),
        (f"/{UNDECODABLE}/run", "its name is not UTF-8"),
        ("/gs/bucket/run", "Orbax and TFDS take '/gs' for cloud storage"),
        ("/x/../s3/run", "Orbax and TFDS take '/s3' for cloud storage"),
    ],
)
def test_names_of_folders_that_cannot_be_used(path, message):
    with pytest.raises(UserError, match=message):
        paths.check_name(Path(path), "workdir")


def test_data_folders_may_have_a_backslash():
    paths.check_name(Path("/data/a\\b"), "data folder", for_checkpoints=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain ü", "plain ü"),
        (os.fsdecode(b"x\xff.png"), r"x\xff.png"),
        (os.fsdecode("ü".encode("latin-1")), r"\xfc"),
        ("\ud800", r"\xed\xa0\x80"),  # half of a pair, as JSON may hold one; no name of a file
    ],
)
def test_any_name_becomes_readable_text(name, text):
    assert paths.readable(name) == text
    text.encode()
    assert paths.is_undecodable(name) == (name != text)


@pytest.mark.parametrize("name", ["lr=[0.1]", "a*", "a**b", "[!x]", "a?", "plain"])
def test_epath_lists_the_folder_and_not_those_that_its_name_matches(tmp_path, name):
    paths.take_folders_literally()
    for folder in (name, "l", "ab", "axb", "ay"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"of {len(folder)}.txt").touch()
    found = list(epath.Path(tmp_path / name).glob("*.txt"))
    assert [Path(path) for path in found] == [tmp_path / name / f"of {len(name)}.txt"]
    assert isinstance(found[0], type(epath.Path(tmp_path)))
    assert not list(epath.Path(tmp_path / name).glob("*.csv"))
    below = epath.Path(tmp_path).glob(f"{glob.escape(name)}/of*")
    assert [path.name for path in below] == [f"of {len(name)}.txt"]


def test_patterns_that_epath_refuses_are_still_refused(tmp_path):
    paths.take_folders_literally()
    with pytest.raises(NotImplementedError):
        list(epath.Path(tmp_path).glob("**/x"))

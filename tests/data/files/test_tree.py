"""Trees of files: a fixed order, symbolic links, unreadable folders, fingerprints, draws."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxad.data.files.splitting import pick
from jaxad.data.files.tree import find_files, find_folders, fingerprint
from jaxad.data.readers.images import read_image
from jaxad.errors import DataError, UserError


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode(errors="surrogateescape"))


def _names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def test_files_below_a_folder(tmp_path):
    wanted = ["a/1.png", "a/2.PNG", "a b/é.png", "b.png", "b/c/d/1.png", "脳.png"]
    others = [".hidden/1.png", "b/.1.png", "b/c/1.png.txt", "b/notes.csv", "png"]
    _touch(tmp_path, *wanted, *others)
    (tmp_path / "empty.png").mkdir()
    found = find_files(tmp_path, (".png",))
    assert _names(found, tmp_path) == sorted(wanted, key=lambda name: name.split("/"))
    assert len(find_files(tmp_path, (".png", ".csv"))) == len(wanted) + 1
    assert len(find_files(tmp_path, ("",))) == len(wanted) + 3  # all except hidden ones


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"\xff\xfe.png")
    _touch(tmp_path, name)
    assert _names(find_files(tmp_path, (".png",)), tmp_path) == [name]
    assert len(fingerprint(tmp_path, [tmp_path / name])) == 8
    assert pick([name, "b"], (0.5,), 0) == pick(["b", name], (0.5,), 0)


def test_folders_right_below_a_folder(tmp_path):
    _touch(tmp_path, "b/c/1.png", "a/1.png", ".git/x", "file")
    assert _names(find_folders(tmp_path), tmp_path) == ["a", "b"]


def test_links_are_followed(tmp_path):
    _touch(tmp_path, "store/1.png", "root/2.png")
    root = tmp_path / "root"
    (root / "linked").symlink_to(tmp_path / "store")
    (root / "again").symlink_to(tmp_path / "store")  # a second link is no loop
    (root / "3.png").symlink_to(tmp_path / "store/1.png")
    found = find_files(root, (".png",))
    assert _names(found, root) == ["2.png", "3.png", "again/1.png", "linked/1.png"]


@pytest.mark.parametrize(
    ("link", "target"),
    [("a/up", "."), ("a/self", "a"), ("a/b/up", "a"), ("a/round", "a/round"), ("again", ".")],
)
def test_links_that_lead_back_are_refused(tmp_path, link, target):
    _touch(tmp_path, "a/b/1.png")
    (tmp_path / link).symlink_to(tmp_path / target)
    message = f"{link}: a symbolic link that leads back to itself; remove it\\.$"
    with pytest.raises(UserError, match=message) as raised:
        find_files(tmp_path, (".png",))
    assert "\n" not in str(raised.value)


def test_two_links_that_lead_to_each_other(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match="a: a symbolic link that leads back to itself"):
        find_files(tmp_path, (".png",))


def test_a_link_to_nothing_is_reported_when_it_is_read(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (path,) = find_files(tmp_path, (".png",))
    with pytest.raises(DataError, match=r"gone\.png: no such file; restore it or leave it out"):
        read_image(path)


@pytest.mark.parametrize("find", [lambda folder: find_files(folder, (".png",)), find_folders])
def test_what_is_no_folder(tmp_path, find):
    with pytest.raises(UserError, match="nowhere: no such folder; name an existing one"):
        find(tmp_path / "nowhere")
    _touch(tmp_path, "file")
    with pytest.raises(UserError, match="file: not a folder; name a folder"):
        find(tmp_path / "file")


def _deny(monkeypatch, method, is_denied):
    """Denies permission as a folder would; tests may run as root, who has every permission."""
    real = getattr(Path, method)

    def denied(self, **options):
        if is_denied(self):
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, **options)

    monkeypatch.setattr(Path, method, denied)


@pytest.mark.parametrize("find", [lambda folder: find_files(folder, (".png",)), find_folders])
def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch, find):
    _deny(monkeypatch, "iterdir", lambda path: path == tmp_path)
    with pytest.raises(UserError, match=r"Permission denied; make it readable\.$"):
        find(tmp_path)


def test_a_folder_whose_files_cannot_be_looked_at(tmp_path, monkeypatch):
    _touch(tmp_path, "a/1.png", "b/2.png")
    for method in ("stat", "lstat"):
        _deny(monkeypatch, method, lambda path: path.parent == tmp_path / "a")
    # Reading reports it by name, or skips it.
    found = find_files(tmp_path, (".png",))
    assert _names(found, tmp_path) == ["a/1.png", "b/2.png"]
    assert len(fingerprint(tmp_path, found)) == 8
    with pytest.raises(DataError, match=r"1\.png: Permission denied; make it readable or leave it"):
        read_image(found[0])


def test_a_fingerprint_changes_with_the_files(tmp_path):
    _touch(tmp_path, "a.png", "b/c.png")

    def taken(root=tmp_path):
        return fingerprint(root, find_files(root, (".png",)))

    first = taken()
    assert len(first) == 8 and int(first, 16) >= 0
    assert taken() == first
    found = find_files(tmp_path, (".png",))
    assert fingerprint(tmp_path, reversed(found)) == first
    shutil.copytree(tmp_path, tmp_path / "moved")  # keeps modification times
    assert taken(tmp_path / "moved") == first
    shutil.rmtree(tmp_path / "moved")

    seen = {first}
    _touch(tmp_path, "new.png")
    seen.add(taken())
    (tmp_path / "new.png").write_bytes(b"other")  # has another length
    seen.add(taken())
    os.utime(tmp_path / "new.png", (1, 1))
    seen.add(taken())
    (tmp_path / "new.png").rename(tmp_path / "renamed.png")
    seen.add(taken())
    assert len(seen) == 5
    (tmp_path / "renamed.png").unlink()
    assert taken() == first


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sets(st.text(max_size=5), max_size=30),
    st.lists(st.floats(0, 0.5), max_size=3).filter(lambda shares: sum(shares) <= 1),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_parts_that_are_drawn(keys, shares, seed, order):
    parts = pick(keys, shares, seed)
    assert len(parts) == len(shares) + 1
    assert set().union(*parts) == keys and sum(map(len, parts)) == len(keys)
    left = len(keys)
    for part, share in zip(parts, shares, strict=False):
        wanted = round(len(keys) * share)
        assert len(part) == min(left, max(wanted, 1 if share > 0 else 0))
        left -= len(part)
    shuffled = sorted(keys)
    order.shuffle(shuffled)
    assert pick(shuffled * 2, shares, seed) == parts


def test_another_seed_draws_others():
    keys = [f"patient {number}" for number in range(100)]
    drawn = [frozenset(pick(keys, (0.3,), seed)[0]) for seed in range(5)]
    assert len(set(drawn)) == 5 and {len(part) for part in drawn} == {30}
    # Adding a key moves hardly any other.
    more = pick([*keys, "new"], (0.3,), 0)[0]
    assert len(more - drawn[0]) <= 2

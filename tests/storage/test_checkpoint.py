"""Checkpoints: the last few and the best are kept, damage is found, incomplete ones are ignored."""

import errno
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.errors import RunError, UserError
from jaxad.storage import io_errors
from jaxad.storage.checkpoint import VALIDATION_LOSS, Checkpoints

LOSSES = {1: 5.0, 2: 1.0, 3: 4.0, 4: 3.0, 5: 2.0}


def trees(step):
    return {"params": {"w": jnp.full((3,), float(step))}}, {"step": jnp.asarray(step)}


@pytest.fixture
def folder(tmp_path):
    """The folder after five saves; the second one is the best, and three more are kept."""
    with Checkpoints(tmp_path / "checkpoints", keep_last=3) as checkpoints:
        for step, loss in LOSSES.items():
            checkpoints.save(step, *trees(step), {VALIDATION_LOSS: loss})
            checkpoints.wait()
    return tmp_path / "checkpoints"


def test_the_last_few_and_the_best_are_kept(folder):
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.steps == [2, 3, 4, 5]
        assert checkpoints.last_step == 5
        assert checkpoints.best_step == 2
        variables = checkpoints.restore_variables(2, trees(0)[0])
        np.testing.assert_array_equal(variables["params"]["w"], [2.0, 2.0, 2.0])


def test_a_save_without_metrics_is_the_last_and_not_the_best(folder):
    with Checkpoints(folder, keep_last=3) as checkpoints:
        checkpoints.save(6, *trees(6), {})
        checkpoints.wait()
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.last_step == 6
        assert checkpoints.best_step == 2


def test_a_save_that_was_killed_does_not_count(folder):
    (folder / "7.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(folder, keep_last=3) as checkpoints:
        assert checkpoints.last_step == 5
        # Orbax cleans up in a thread; the next save is the first to wait for it.
        checkpoints.save(8, *trees(8), {VALIDATION_LOSS: 9.0})
    assert not list(folder.glob("*tmp*"))


def test_variables_of_another_shape_are_named_with_their_folder(folder):
    with (
        Checkpoints(folder, read_only=True) as checkpoints,
        pytest.raises(UserError, match="checkpoints/5' does not fit its config .*other'"),
    ):
        checkpoints.restore_variables(5, {"params": {"other": jnp.zeros(2)}})


def test_the_first_checkpoint_is_read_back(tmp_path, monkeypatch, patient):
    """A file system that damages what is written ends the run at its first checkpoint."""
    real, read = Checkpoints._restore, []

    def lossy(self, step, likes):
        read.append(step)
        if len(read) == 1:
            flip(array_file(tmp_path / "a" / str(step)))
        return real(self, step, likes)

    monkeypatch.setattr(Checkpoints, "_restore", lossy)
    with (
        pytest.raises(RunError, match=r"checkpoint '.*a/1' was saved but cannot be read back \("),
        Checkpoints(tmp_path / "a") as checkpoints,
    ):
        checkpoints.save(1, *trees(1), {})
    with Checkpoints(tmp_path / "b") as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, *trees(step), {})
    with Checkpoints(tmp_path / "b") as checkpoints:
        checkpoints.save(4, *trees(4), {})
    assert read == [1, 1]  # the first of each folder alone


def test_a_first_checkpoint_that_is_missing(tmp_path, monkeypatch):
    """For example because the file system wrote it under another name."""
    monkeypatch.setattr(Checkpoints, "steps", [])
    with (
        pytest.raises(RunError, match=r"cannot be read back \(it is missing\); the run stops"),
        Checkpoints(tmp_path / "a") as checkpoints,
    ):
        checkpoints.save(1, *trees(1), {})


@pytest.mark.parametrize("saved", [0, 1, 3])
@pytest.mark.parametrize("rename", [True, False])
def test_a_missing_folder_is_not_reported_as_a_full_disk(tmp_path, saved, rename):
    folder = tmp_path / "run" / "checkpoints"
    with (
        pytest.raises(RunError, match="was deleted, moved or renamed .*Put it back under its name"),
        Checkpoints(folder) as checkpoints,
    ):
        for step in range(saved):
            checkpoints.save(step, *trees(step), {})
        checkpoints.wait()
        if rename:
            folder.parent.rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(folder.parent)
        checkpoints.save(9, *trees(9), {})
    assert not folder.exists()  # none is made in its place
    if rename:  # the remedy
        (tmp_path / "elsewhere").rename(folder.parent)
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(9, *trees(9), {})
            assert checkpoints.last_step == 9


def test_a_read_only_folder_is_not_reported_as_a_full_disk(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with (
        pytest.raises(RunError, match=r"\(Read-only file system\).*Make the folder writable, then"),
        Checkpoints(tmp_path / "a") as checkpoints,
    ):
        monkeypatch.setattr(checkpoints._manager, "save", refuse)
        checkpoints.save(1, *trees(1), {})


# --- Damage.


def flip(path):
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path):
    path.unlink()


@pytest.fixture
def patient(monkeypatch):
    """Shortens the wait for Orbax after a damaged file: these checkpoints are small."""
    monkeypatch.setattr(io_errors, "_LATE_SECONDS", 0.1)


def test_damaged_metrics_do_not_make_another_checkpoint_the_best(folder, capsys):
    """A damaged loss, now the least of all, is ignored with a warning."""
    (metrics,) = (folder / "3" / "metrics").rglob("metrics")
    metrics.write_text(metrics.read_text().replace("4.0", "0.5"))
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert checkpoints.best_step == 2
    assert "checkpoints/3' is damaged (its metrics are not" in capsys.readouterr().err


def files_below(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def array_file(step_folder, item="variables"):
    """Returns the largest file of an item, which has its arrays."""
    return max((step_folder / item / "d").iterdir(), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    "damage", [flip, *(pytest.param(one, marks=pytest.mark.long) for one in (cut, remove))]
)
def test_no_damage_to_any_file_gives_other_arrays(folder, tmp_path, patient, capsys, damage):
    """The arrays are those that were saved, in the newest checkpoint or the one before it."""
    found = set()
    for place in files_below(folder / "5"):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        damage(copy / "5" / place)
        with Checkpoints(copy, read_only=True) as checkpoints:
            step, variables, training = checkpoints.restore_newest(*trees(0))
        np.testing.assert_array_equal(variables["params"]["w"], np.full(3, step))
        assert training["step"] == step
        printed = capsys.readouterr().err
        assert (step == 5) == (printed == "")
        if step != 5:
            assert printed.startswith(f"warning: checkpoint '{copy / '5'}' is damaged (")
            assert printed.endswith("); step 4 is used instead.\n")
            assert printed.count("\n") == 1
        found.add(step)
        assert files_below(copy) == [  # nothing is changed by reading
            one for one in files_below(folder) if damage is not remove or one != "5" / place
        ]
        shutil.rmtree(copy)
    assert found == {4, 5}


def test_a_flipped_bit_in_an_array_is_found(tmp_path, patient, capsys):
    """Orbax does not find it: the file of the arrays has no checksums."""
    weights = np.random.default_rng(0).normal(size=(50, 300)).astype(np.float32)
    tree = {"params": {"w": weights}}
    with Checkpoints(tmp_path, keep_last=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, tree, {"step": jnp.asarray(step)}, {VALIDATION_LOSS: 1.0})
    files = [path for path in (tmp_path / "2/variables").rglob("*") if path.is_file()]
    flip(max(files, key=lambda path: path.stat().st_size))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        step, variables, _ = checkpoints.restore_newest(tree)
        assert "variables['params']['w'] is not what was saved" in capsys.readouterr().err
        assert step == 1
        np.testing.assert_array_equal(variables["params"]["w"], weights)
        with pytest.raises(
            UserError, match=r"checkpoint '.*2' is damaged \(.*choose another of the steps"
        ):
            checkpoints.restore_variables(2, tree)


def test_a_damaged_checkpoint_is_set_aside_and_its_step_saved_again(folder, patient, capsys):
    shutil.copytree(folder / "4", folder / "5.damaged")  # of an earlier time
    flip(array_file(folder / "5"))
    with Checkpoints(folder, keep_last=3) as checkpoints:
        step, variables, _ = checkpoints.restore_newest(*trees(0))
        assert step == checkpoints.last_step == 4
        checkpoints.save(5, *trees(5), {VALIDATION_LOSS: LOSSES[5]})
    assert "and set aside as '5.damaged-2'; step 4 is used instead" in capsys.readouterr().err
    with Checkpoints(folder, keep_last=3) as checkpoints:
        assert checkpoints.steps == [2, 3, 4, 5]
        assert checkpoints.restore_newest(*trees(0))[0] == 5
    assert (folder / "5.damaged").is_dir() and (folder / "5.damaged-2").is_dir()


def test_if_every_checkpoint_is_damaged_none_is_touched(folder, patient):
    for step in (2, 3, 4, 5):
        flip(array_file(folder / str(step)))
    before = files_below(folder)
    with (
        Checkpoints(folder, keep_last=3) as checkpoints,
        pytest.raises(UserError, match=r"every checkpoint in .* is damaged \(step 5: .*; step 4: "),
    ):
        checkpoints.restore_newest(*trees(0))
    assert files_below(folder) == before


def test_a_checkpoint_of_another_model_is_not_reported_as_damaged(folder):
    """Otherwise a newer version of a model would set every checkpoint aside."""
    other = {"params": {"w": jnp.zeros(2)}}
    with (
        Checkpoints(folder, keep_last=3) as checkpoints,
        pytest.raises(UserError, match=r"does not fit .*'w'\] is float32\[3\], .* float32\[2\]"),
    ):
        checkpoints.restore_newest(other, trees(0)[1])
    assert not list(folder.glob("*damaged*"))


@pytest.mark.parametrize("lost", ["digests", "digests/metadata"])
def test_a_checkpoint_that_lost_its_digests_is_damaged(folder, patient, capsys, lost):
    place = folder / "5" / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with Checkpoints(folder, keep_last=3) as checkpoints:
        assert checkpoints.restore_newest(*trees(0))[0] == 4
    printed = capsys.readouterr().err
    assert printed.startswith(f"warning: checkpoint '{folder / '5'}' is damaged (")
    assert printed.endswith("and set aside as '5.damaged'; step 4 is used instead.\n")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match=r"checkpoints in '.*checkpoints': not a folder"):
        Checkpoints(tmp_path / "checkpoints")


def test_a_file_without_permission_is_not_reported_as_damaged(folder, monkeypatch, patient):
    def restore(*arguments, **options):
        raise ValueError("PERMISSION_DENIED: Error opening 'w' [os_error_code='13']")

    with Checkpoints(folder, keep_last=3) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", restore)
        with pytest.raises(
            UserError, match=r"5' cannot be read \(Permission denied\); remove the cause"
        ):
            checkpoints.restore_newest(*trees(0))
    assert not list(folder.glob("*damaged*"))

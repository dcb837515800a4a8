"""Processes share work if they can be started; otherwise one does it. Arrays that they share."""

import errno
import os
import threading
from pathlib import Path

import joblib
import numpy as np
import pytest
from PIL import Image
from user_files import write_image

from jaxad.data.files import reading, workers
from jaxad.data.files.items import Item, Reading
from jaxad.data.files.reading import read_split
from jaxad.data.files.workers import reserve, shared_array
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.synthetic import icbm_synth


def refusing(number):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture
def asked_again():
    workers.can_start_processes.cache_clear()
    yield
    workers.can_start_processes.cache_clear()


#: What is missing -> the call that fails, and its error.
FAULTS = {
    "semaphores": ("multiprocessing.synchronize.SemLock.__init__", errno.ENOSPC),
    "read only": ("multiprocessing.synchronize.SemLock.__init__", errno.EROFS),
    "not built in": ("multiprocessing.synchronize.SemLock.__init__", errno.ENOSYS),
    "temporary files": ("tempfile.TemporaryFile", errno.ENOENT),
}


@pytest.fixture(params=FAULTS)
def no_processes(request, monkeypatch, asked_again):
    place, number = FAULTS[request.param]
    monkeypatch.setattr(place, refusing(number))
    return os.strerror(number)


def process_and_thread(_):
    return os.getpid(), threading.get_ident()


def run(**options):
    with workers.parallel(2, **options) as parallel:
        return {process for process, _ in parallel(
            joblib.delayed(process_and_thread)(one) for one in range(8)
        )}  # fmt: skip


def test_processes_share_much_work_and_threads_a_little(asked_again, capsys):
    assert os.getpid() not in run()
    assert run(few=True) == {os.getpid()}
    assert capsys.readouterr().err == ""


def test_without_processes_this_one_does_it_and_says_so_once(no_processes, capsys):
    assert run() == run() == run(few=True) == {os.getpid()}
    printed = capsys.readouterr().err
    assert printed.startswith("note: data are read by one process, which is slow, because no ")
    assert f"others can be started ({no_processes})." in printed
    assert printed.count("\n") == 1


def test_many_images_are_read_all_the_same(no_processes, tmp_path):
    """Enough items for processes: one file under many names."""
    path = write_image(tmp_path / "a.png")
    items = [Item(f"{number}", f"{number}", (path,), 0) for number in range(220)]
    split = read_split(items, Reading("image", Preparation(16, 1), Cutting()), "x")
    assert len(split) == 220 and np.ptp(split.images, axis=0).max() == 0


def test_items_without_an_image_leave_no_gap_in_the_shared_array(tmp_path):
    paths = [write_image(tmp_path / f"{value}.png", value) for value in range(1, 8)]
    Image.new("L", (20, 20), 0).save(tmp_path / "blank.png")
    paths[2] = tmp_path / "blank.png"
    items = [Item(f"{n}", f"{n}", (paths[n % 7],), 0) for n in range(7 * 60)]
    split = read_split(items, Reading("image", Preparation(16, 1), Cutting()), "x")
    assert split.images.base.shape == (420, 16, 16, 1)  # the shared array, not a copy
    assert split.ids == tuple(f"{n}" for n in range(420) if n % 7 != 2)
    values = [int(image[-1, -1, 0]) for image in split.images]
    assert values == [n % 7 + 1 for n in range(420) if n % 7 != 2]


def test_data_are_made_all_the_same(no_processes):
    """More subjects than one process would make alone."""
    config = icbm_synth.make_config(16, num_subjects=(12, 1, 1, 1))
    (examples,) = icbm_synth.make_examples(config, "train", 1)
    (expected,) = icbm_synth.make_examples(config, "train", 1, num_workers=1)
    assert examples == expected


# --- An array that processes fill.


def test_the_array_outlives_its_file():
    row = 2**20
    with shared_array((4, row), np.dtype(np.uint16)) as array:
        path = Path(array.filename)
        assert path.stat().st_size == 4 * row * 2
        assert path.stat().st_blocks * 512 < row * 2  # nothing is allocated yet
        assert reserve(array, 1, 2)
        assert 2 * row * 2 <= path.stat().st_blocks * 512 < 3 * row * 2
        array[1] = 7
    assert not path.parent.exists()
    assert (array[0] == 0).all() and (array[1] == 7).all()


def test_a_folder_that_is_full_after_all_is_passed_over(tmp_path, monkeypatch):
    """Without a folder that can be written, there is not an array, and images are sent."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(workers, "_folders", lambda: [tmp_path / "file", tmp_path])
    with shared_array((2, 3), np.dtype(np.uint8)) as array:
        assert Path(array.filename).is_relative_to(tmp_path)
    monkeypatch.setattr(workers, "_folders", lambda: [tmp_path / "file"])
    with shared_array((2, 3), np.dtype(np.uint8)) as array:
        assert array is None


def test_no_folder_for_temporary_files(monkeypatch):
    def none():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(workers, "_MEMORY", Path("/nonexistent"))
    monkeypatch.setattr("tempfile.gettempdir", none)
    with shared_array((2, 3), np.dtype(np.uint8)) as array:
        assert array is None


def test_an_image_without_a_place_is_sent(tmp_path, monkeypatch):
    """Another process took the memory: writing to it would kill this one."""
    path = write_image(tmp_path / "a.png")
    item = Item("a", "a", (path,), 0)
    how = Reading("image", Preparation(16, 1), Cutting())
    with shared_array((1, 16, 16, 1), np.dtype(np.uint8)) as array:
        (there,) = reading._read_chunk([item], how, array, 0)
        assert not isinstance(there, reading.Rows) and array.max() == 101

        def full(*_):
            raise OSError(errno.ENOSPC, "no space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        (sent,) = reading._read_chunk([item], how, array, 0)
    np.testing.assert_array_equal(sent.images, array)

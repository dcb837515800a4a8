"""Work is shared by processes where there can be any, and done by one where there can be none."""

import errno
import os
import threading

import joblib
import numpy as np
import pytest
from test_folders import write_image

from jaxad.data.files import workers
from jaxad.data.files.items import Item, Reading
from jaxad.data.files.reading import read_split
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


#: What there is none of, and what fails then.
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
    assert printed.startswith(f"note: no processes can share work on data here ({no_processes});")
    assert printed.count("\n") == 1


def test_many_images_are_read_all_the_same(no_processes, tmp_path):
    """As many as processes would read: the file of one image, under many names."""
    path = write_image(tmp_path / "a.png")
    items = [Item(f"{number}", f"{number}", (path,), 0) for number in range(220)]
    split = read_split(items, Reading("image", Preparation(16, 1), Cutting()), "x")
    assert len(split) == 220 and np.ptp(split.images, axis=0).max() == 0


def test_data_are_made_all_the_same(no_processes):
    """Of more subjects than one process makes where there can be others."""
    config = icbm_synth.make_config(16, num_subjects=(12, 1, 1, 1))
    (examples,) = icbm_synth.make_examples(config, "train", 1)
    (expected,) = icbm_synth.make_examples(config, "train", 1, num_workers=1)
    assert examples == expected

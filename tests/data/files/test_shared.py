"""An array that processes fill: its place is taken by who writes."""

import errno
import os
from pathlib import Path

import numpy as np
from test_folders import write_image

from jaxad.data.files import reading, shared
from jaxad.data.files.items import Item, Reading
from jaxad.data.files.shared import shared_array, take_place
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.prepare.preparation import Preparation


def test_the_array_outlives_its_file():
    row = 2**20
    with shared_array((4, row), np.dtype(np.uint16)) as array:
        path = Path(array.filename)
        assert path.stat().st_size == 4 * row * 2
        assert path.stat().st_blocks * 512 < row * 2  # no place is taken yet
        assert take_place(array, 1, 2)
        assert 2 * row * 2 <= path.stat().st_blocks * 512 < 3 * row * 2
        array[1] = 7
    assert not path.parent.exists()
    assert (array[0] == 0).all() and (array[1] == 7).all()


def test_a_folder_that_is_full_after_all_is_passed_over(tmp_path, monkeypatch):
    """Or none can be written: there is no array then, and images are sent."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(shared, "_places", lambda: [tmp_path / "file", tmp_path])
    with shared_array((2, 3), np.dtype(np.uint8)) as array:
        assert Path(array.filename).is_relative_to(tmp_path)
    monkeypatch.setattr(shared, "_places", lambda: [tmp_path / "file"])
    with shared_array((2, 3), np.dtype(np.uint8)) as array:
        assert array is None


def test_no_folder_for_temporary_files(monkeypatch):
    def none():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(shared, "_MEMORY", Path("/nonexistent"))
    monkeypatch.setattr("tempfile.gettempdir", none)
    with shared_array((2, 3), np.dtype(np.uint8)) as array:
        assert array is None


def test_an_image_without_a_place_is_sent(tmp_path, monkeypatch):
    """Room that another took meanwhile: writing there would end the process."""
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

"""Reading many files: bad ones are named, or skipped, counted and reported."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from user_files import data_config, write_image, write_mask, write_scan

from jaxad.data.files import reading
from jaxad.data.files.reading import describe_skipped
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.prepare.prepare_images import extrema_of, prepare_image, prepare_plain
from jaxad.data.readers.images import read_image, read_plain
from jaxad.data.sources import DataSet
from jaxad.errors import DataError, UserError
from jaxad.types import FilesRead


@pytest.fixture
def two_bad(mvtec):
    """The MVTec layout with one truncated and one empty training image, and a val folder."""
    path = mvtec / "train/good/03.png"
    path.write_bytes(path.read_bytes()[:40])
    (mvtec / "train/good/05.png").write_bytes(b"")
    (mvtec / "val/good").mkdir(parents=True)
    (mvtec / "train/good/00.png").rename(mvtec / "val/good/00.png")
    return mvtec


def test_a_bad_file_is_named_with_the_remedy(two_bad):
    with pytest.raises(
        DataError, match=r"0[35]\.png: (is empty|not a readable image).*(copy it again|leave it)"
    ) as raised:
        DataSet(data_config(two_bad)).split("train")
    assert str(raised.value).endswith(
        "Or leave out every bad file with --config.data.on_error=skip."
    )
    assert "\n" not in str(raised.value)


def test_skipped_files_are_counted_and_reported(two_bad, capsys):
    data_set = DataSet(data_config(two_bad, on_error="skip"))
    split = data_set.split("train")
    assert len(split) == 7 and split.files.count == 9
    assert [why.split(": ")[0][-6:] for why in split.files.skipped] == ["03.png", "05.png"]
    message = capsys.readouterr().err
    assert (
        message.startswith("folder train: skipped 2 of 9 files: ") and "05.png: is empty" in message
    )
    data_set.split("train")
    assert capsys.readouterr().err == ""  # reported once, when it is read


def test_a_split_of_bad_files_alone_is_refused(two_bad):
    for path in (two_bad / "train/good").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        UserError, match="none of 9 files gave a usable image; the first: .*is empty"
    ):
        DataSet(data_config(two_bad, on_error="skip")).split("train")


def test_only_the_first_skipped_files_are_listed():
    files = FilesRead(100, tuple(f"f{n}: bad" for n in range(7)), 0, {}, 0.0, 1.0)
    assert describe_skipped("x", files) == (
        "x: skipped 7 of 100 files: f0: bad | f1: bad | f2: bad | f3: bad | f4: bad | and 2 more"
    )
    assert describe_skipped("x", FilesRead(3, (), 0, {}, 0.0, 1.0)) == ""


def test_a_mask_of_another_size_is_named(mvtec):
    write_mask(mvtec / "ground_truth/crack/0_mask.png", shape=(20, 21))
    with pytest.raises(
        DataError, match=r"0_mask.png: the mask has shape \(20, 21\), but its image"
    ):
        DataSet(data_config(mvtec)).split("test")


def test_grey_scans_may_fill_three_channels(tmp_path):
    for number in range(3):
        write_scan(tmp_path / f"train/good/{number}.nii.gz", number)
    split = DataSet(data_config(tmp_path, "nifti", channels=3)).split("train")
    assert split.images.shape[-1] == 3
    np.testing.assert_array_equal(split.images[..., 0], split.images[..., 2])


def test_slices_are_the_same_whatever_the_number_of_files(tmp_path):
    """Reading in parallel changes neither the order nor the pixels."""
    for number in range(12):
        write_scan(tmp_path / f"train/good/{number:02d}.nii.gz", number)
    write_image(tmp_path / "unrelated.png")
    split = DataSet(data_config(tmp_path, "nifti")).split("train")
    assert list(split.ids) == sorted(split.ids)
    own = [name.startswith("train/good/07") for name in split.ids]
    for number in range(12):
        if number not in (6, 7):
            (tmp_path / f"train/good/{number:02d}.nii.gz").unlink()
    alone = DataSet(data_config(tmp_path, "nifti"))
    both = {name: alone.split(name) for name in ("train", "val")}
    found = next(one for one in both.values() if one.ids[0].startswith("train/good/07"))
    np.testing.assert_array_equal(found.images, split.images[own])


def test_many_images_are_read_by_processes_into_shared_memory(mvtec, monkeypatch):
    """Processes read what threads read; if one image has 16 bits, all have."""
    data = data_config(mvtec)
    alone = DataSet(data).split("train").images
    monkeypatch.setitem(reading._FEW, "image", 2)
    monkeypatch.setattr(reading, "_CHUNK_SIZES", (2, 2))
    shared = DataSet(data).split("train")
    np.testing.assert_array_equal(shared.images, alone)
    assert shared.images.dtype == np.uint8 and len(shared.ids) == 9
    first = mvtec / shared.ids[3]
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20)).save(first)
    mixed = DataSet(data).split("train").images
    assert mixed.dtype == np.uint16
    np.testing.assert_array_equal(mixed[4:], alone[4:].astype(np.uint16) * 257)
    first.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        DataSet(data).split("train")
    data.on_error = "skip"
    np.testing.assert_array_equal(DataSet(data).split("train").images, np.delete(alone, 3, axis=0))


def test_without_room_for_shared_memory_images_are_sent(mvtec, monkeypatch):
    alone = DataSet(data_config(mvtec)).split("train").images
    monkeypatch.setitem(reading._FEW, "image", 2)

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=0))
    np.testing.assert_array_equal(DataSet(data_config(mvtec)).split("train").images, alone)


def test_an_anomaly_outside_of_the_crop_is_refused(mvtec):
    """The crop keeps the middle 20 of 60 columns; the mask is at columns 4 to 8."""
    write_image(mvtec / "test/crack/0.png", shape=(20, 60))
    write_mask(mvtec / "ground_truth/crack/0_mask.png", shape=(20, 60))
    with pytest.raises(DataError, match=r"0_mask.png: marks only pixels that .*square=crop"):
        DataSet(data_config(mvtec, preprocess__square="crop")).split("test")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("square", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("bands", ["L", "RGB"])
def test_plain_images_are_prepared_as_others_to_the_bit(tmp_path, channels, square, bands):
    rng = np.random.default_rng(0)
    shape = (37, 53) if bands == "L" else (37, 53, 3)
    path = tmp_path / "a.jpg"
    Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
    settings = Preparation(16, channels, square=square)
    plain, pixels = read_plain(path), read_image(path)
    assert plain.mode == bands
    np.testing.assert_array_equal(
        prepare_plain(plain, settings.of_images(), "a"), prepare_image(pixels, settings, "a")
    )
    assert extrema_of(plain) == [(band.min(), band.max()) for band in np.moveaxis(pixels, -1, 0)]
    flat = Image.new(bands, (30, 20), 7 if bands == "L" else (7, 8, 9))
    with pytest.raises(DataError, match="is constant, every pixel is"):
        prepare_plain(flat, settings.of_images(), "a")


# --- Blank images.


def _write_blank(path, value=0):
    Image.new("L", (20, 20), value).save(path)


def test_blank_images_are_left_out_and_counted(mvtec, capsys):
    _write_blank(mvtec / "test/good/blank.png")
    _write_blank(mvtec / "test/crack/blank.png", 255)
    shutil.rmtree(mvtec / "ground_truth")  # an anomalous image without a mask
    split = DataSet(data_config(mvtec)).split("test")
    assert len(split) == 4 and split.files.count == 6
    assert split.files.blank == ("test/crack/blank.png", "test/good/blank.png")
    assert split.files.skipped == ()
    assert capsys.readouterr().err == (
        "note: folder test: 2 of 6 images are blank (every pixel has the same value) and are left "
        "out; the first: 'test/crack/blank.png'.\n"
    )


def test_an_image_that_is_blank_once_it_is_small_is_left_out(mvtec):
    pixels = np.zeros((400, 400), np.uint8)
    pixels[7, 7] = 1  # a shadow of the next slice, lost when 25 x 25 pixels become one
    Image.fromarray(pixels).save(mvtec / "test/good/edge.png")
    assert DataSet(data_config(mvtec)).split("test").files.blank == ("test/good/edge.png",)


def test_a_mark_in_a_blank_image_is_an_error(mvtec):
    _write_blank(mvtec / "test/crack/0.png")
    with pytest.raises(DataError, match=r"crack/0\.png: is constant, every pixel is"):
        DataSet(data_config(mvtec)).split("test")


def test_a_split_of_mostly_blank_images_is_refused(mvtec):
    for number in range(4):
        _write_blank(mvtec / f"test/good/blank {number}.png")
    assert len(DataSet(data_config(mvtec)).split("test")) == 4  # half of them
    _write_blank(mvtec / "test/good/blank 4.png")
    with pytest.raises(UserError, match=r"'test': 5 of 9 images are blank .*good/blank 0\.png'"):
        DataSet(data_config(mvtec)).split("test")


def test_a_split_of_blank_images_alone_is_refused(mvtec):
    for path in (mvtec / "test").rglob("*.png"):
        _write_blank(path)
    shutil.rmtree(mvtec / "ground_truth")
    with pytest.raises(UserError, match=r"none of 4 files gave .*'test/crack/0\.png' is blank"):
        DataSet(data_config(mvtec)).split("test")


def test_scans_with_a_background_of_noise_are_reported(tmp_path, capsys):
    for number in range(3):
        path = write_scan(tmp_path / f"train/good/{number}.nii.gz", number)
        scan = nib.load(path)
        noise = np.random.default_rng(number).uniform(0.01, 0.1, scan.shape).astype(np.float32)
        nib.save(nib.Nifti1Image(np.asarray(scan.dataobj) + noise, scan.affine), path)
    data = data_config(tmp_path, "nifti", preprocess__foreground="nonzero")
    assert DataSet(data).split("train").files.num_noisy == 2
    err = capsys.readouterr().err
    assert "warning: nifti train: in 2 of 2 files the background is noise instead of 0" in err
    # The remedy works.
    data = data_config(tmp_path, "nifti", preprocess__foreground="otsu")
    assert DataSet(data).split("train").files.num_noisy == 0
    assert capsys.readouterr().err == ""

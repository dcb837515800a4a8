"""DICOM series: the same scan as an equivalent NIfTI file, whatever the files are called."""

import re
import shutil
import sys

import numpy as np
import pydicom
import pytest
from samples import AXIAL, ORIENTATIONS, series_affine, write_nifti, write_series

from jaxad.data.files.folders import read_any_folder, read_folder
from jaxad.data.files.splitting import Splitting
from jaxad.data.readers.dicom import read_series
from jaxad.data.readers.nifti import read_nifti
from jaxad.errors import DataError, UserError

SPACING, ORIGIN = (0.75, 0.5, 2.5), (-10.0, -20.0, -30.0)


def _stored(count=5):
    """Returns [slices, rows, columns], all of different lengths."""
    return np.random.default_rng(0).integers(0, 2000, (count, 6, 8)).astype(np.uint16)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "series", _stored())


def _from_axial(slices):
    """Converts axial slices (columns to the left, rows to the back) to RAS+ voxels."""
    return slices.transpose(2, 1, 0)[::-1, ::-1]


def _by_height(folder):
    """Returns the files of an axial series from the lowest slice up."""
    return sorted(folder.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])


def _refused(folder, expected):
    with pytest.raises(DataError, match=expected) as raised:
        read_series(folder)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)
    assert re.search(
        "copy it again|leave it out|give each|name the folder|leave the folder out",
        str(raised.value),
    )


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_series_is_what_its_nifti_file_is(tmp_path, name):
    stored, orientation = _stored(), ORIENTATIONS[name]
    folder = write_series(tmp_path / "a b", stored, orientation, SPACING, ORIGIN)
    hounsfield = stored.astype(np.float32) * 2 - 1000
    path = write_nifti(
        tmp_path / "a.nii",
        hounsfield.transpose(2, 1, 0),  # [columns, rows, slices]
        series_affine(orientation, SPACING, ORIGIN),
    )
    series, expected = read_series(folder), read_nifti(path)
    np.testing.assert_array_equal(series.voxels, expected.voxels)
    np.testing.assert_allclose(series.affine, expected.affine, atol=1e-5)
    assert series.voxels.dtype == np.float32


def test_where_the_first_pixel_of_an_axial_slice_lies(tmp_path):
    stored = np.zeros((3, 4, 5), np.uint16)
    stored[0, 0, 0] = 7
    # Columns run to the patient's left, rows to the back, slices up.
    volume = read_series(write_series(tmp_path / "a", stored, AXIAL, rescale=None))
    assert volume.voxels.shape == (5, 4, 3)
    assert volume.voxels[-1, -1, 0] == 7 and volume.voxels.sum() == 7  # right, front, bottom


def test_each_slice_has_its_own_rescale(series):
    path = _by_height(series)[1]
    data = pydicom.dcmread(path)
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    data.save_as(path)
    expected = _stored() * 2.0 - 1000
    expected[1] = _stored()[1]
    np.testing.assert_array_equal(read_series(series).voxels, _from_axial(expected))


@pytest.mark.parametrize(
    "fields",
    [{"PhotometricInterpretation": "MONOCHROME1"}, {"WindowCenter": 40, "WindowWidth": 400}],
    ids=["shown inverted", "shown in a window"],
)
def test_how_it_is_shown_does_not_matter(tmp_path, series, fields):
    shown = write_series(tmp_path / "shown", _stored(), **fields)
    np.testing.assert_array_equal(read_series(shown).voxels, read_series(series).voxels)


def test_stored_values_without_a_rescale(tmp_path):
    voxels = read_series(write_series(tmp_path / "a", _stored(), rescale=None)).voxels
    np.testing.assert_array_equal(voxels, _from_axial(_stored()))


@pytest.mark.parametrize("names", ["{}.DCM", "{}.ima", "IM{}", "1.2.840.10008.{}"])
def test_names_of_slices(tmp_path, series, names):
    named = write_series(tmp_path / "named", _stored(), names=names)
    np.testing.assert_array_equal(read_series(named).voxels, read_series(series).voxels)


def test_other_files_and_folders_are_ignored(series):
    expected = read_series(series).voxels
    for name in ("notes.txt", "._0.dcm", "preview.png"):
        (series / name).write_bytes(b"no DICOM")
    (series / "thumbnails.dcm").mkdir()
    np.testing.assert_array_equal(read_series(series).voxels, expected)


def test_two_series_in_a_folder(series):
    write_series(series, _stored(), series="1.2.3.5", names="other{}.dcm")
    _refused(series, r"series: holds 2 DICOM series; give each its own folder\.$")


#: Not "copy it again": that would give the same slices.
_REMEDY = (
    "regularly-spaced.*: add missing slices, move away slices of other scans, or "
    r"leave the folder out\.$"
)


def test_a_missing_slice(series, tmp_path):
    path = _by_height(series)[2]
    path.rename(tmp_path / path.name)
    _refused(series, f"series: not a readable DICOM series .*{_REMEDY}")
    (tmp_path / path.name).rename(path)
    read_series(series)


def test_a_slice_that_is_there_twice(series):
    shutil.copy(series / "0.dcm", series / "copy.dcm")
    _refused(series, f"series: not a readable DICOM series .*{_REMEDY}")
    (series / "copy.dcm").unlink()
    read_series(series)


@pytest.mark.parametrize("kept", [0.98, 0.7, 0.3, 0.1])
def test_a_truncated_file_is_named(series, kept):
    content = (series / "3.dcm").read_bytes()
    (series / "3.dcm").write_bytes(content[: int(kept * len(content))])
    _refused(series, r"3\.dcm: not a readable DICOM file \(.*\); copy it again or leave it out\.$")


def test_files_that_are_no_slices_are_named(series):
    (series / "3.dcm").write_bytes(b"")
    _refused(series, r"3\.dcm: is empty \(0 bytes\)")
    (series / "3.dcm").write_bytes(b"what is this" * 100)
    _refused(series, r"3\.dcm: not a readable DICOM file")


def test_a_header_that_promises_more_than_is_read(series):
    data = pydicom.dcmread(series / "3.dcm")
    data.Rows = data.Columns = 65535
    data.save_as(series / "3.dcm")
    _refused(series, r"3\.dcm: its header promises 34,358,689,800 bytes")  # 65535 ** 2 * 8


def test_slices_of_different_sizes(series):
    data = pydicom.dcmread(series / "3.dcm")
    data.Rows, data.PixelData = 3, data.PixelData[: 3 * 8 * 2]
    data.save_as(series / "3.dcm")
    _refused(series, "series: not a readable DICOM series")


def test_folders_without_slices(tmp_path):
    _refused(tmp_path, "holds no DICOM files; name the folder of one series")
    _refused(tmp_path / "nowhere", "nowhere: not a readable folder")


@pytest.mark.parametrize("library", ["pydicom", "highdicom"])
def test_without_the_extra(series, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    with pytest.raises(UserError, match=r"pip install 'jaxad\[dicom\]'") as raised:
        read_series(series)
    assert "\n" not in str(raised.value)
    assert not isinstance(raised.value, DataError)  # no file is at fault: none is skipped


# --- Folders of series.


@pytest.fixture
def named_by_uid(tmp_path):
    """Series whose folders end in a number after a dot, two of them anomalous."""
    for number in range(1, 5):
        folder = tmp_path / ("train/good" if number < 3 else "test/ill")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"1.2.840.77.{number}"
        write_series(folder / name, _stored() + np.uint16(number), series=name, PatientID=name)
    return tmp_path


def _write_masks(root, *names):
    (root / "ground_truth/ill").mkdir(parents=True, exist_ok=True)
    shape = read_series(root / "test/ill/1.2.840.77.3").voxels.shape
    for name in names:
        write_nifti(root / "ground_truth/ill" / name, np.ones(shape, np.uint8))


@pytest.mark.parametrize("ending", ["", "_mask", "-seg"])
def test_series_that_are_named_by_uid_have_masks_of_their_own(named_by_uid, ending):
    _write_masks(named_by_uid, *(f"1.2.840.77.{n}{ending}.nii.gz" for n in (3, 4)))
    test = read_folder(named_by_uid, "dicom", Splitting())["test"]
    assert [item.mask.name for item in test] == [
        f"1.2.840.77.3{ending}.nii.gz", f"1.2.840.77.4{ending}.nii.gz",
    ]  # fmt: skip


def test_the_mask_of_a_series_is_not_that_of_another(named_by_uid):
    _write_masks(named_by_uid, "1.2.840.77.3.nii.gz")
    with pytest.raises(UserError, match=r"77\.4: has no mask .*add '1.2.840.77.4_mask.nii.gz'"):
        read_folder(named_by_uid, "dicom", Splitting())
    # The remedy works.
    _write_masks(named_by_uid, "1.2.840.77.4_mask.nii.gz")
    test = read_folder(named_by_uid, "dicom", Splitting())["test"]
    assert len({item.mask for item in test}) == 2


def test_a_series_of_labels_is_not_learnt_from(named_by_uid):
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 8)).astype(np.uint16)
    write_series(
        named_by_uid / "train/good/1.2.840.77.9_seg", labels, rescale=None, PatientID="seg"
    )
    with pytest.raises(UserError, match="77.9_seg: is a mask, not an image: .* move it away"):
        read_folder(named_by_uid, "dicom", Splitting())


@pytest.mark.parametrize(
    "name",
    ["._1.dcm", "Thumbs.db", "desktop.ini", ".DS_Store", "@eaDir/1.dcm", "__MACOSX/1.dcm"],
)
def test_hidden_files_beside_slices_are_ignored(series, name):
    expected = read_series(series).voxels
    (series / name).parent.mkdir(exist_ok=True)
    (series / name).write_bytes(b"x")
    np.testing.assert_array_equal(read_series(series).voxels, expected)
    assert read_any_folder(series, "dicom", Splitting())[0].paths == (series,)
    assert len(read_any_folder(series, "dicom", Splitting())) == 1

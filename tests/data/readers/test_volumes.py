"""NIfTI files: the same RAS+ scan, however the axes are stored."""

import gzip
import itertools
import struct

import nibabel as nib
import numpy as np
import pytest
from samples import write_nifti

from jaxad.data.prepare.cutting import Cutting, cut
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.readers.nifti import read_nifti
from jaxad.data.readers.volumes import check_same_grid
from jaxad.errors import DataError

#: X right, Y anterior, Z superior; all lengths differ, so that exchanged axes show.
SHAPE = (5, 6, 7)
RAS = np.array([[1, 0, 0, -20], [0, 2, 0, 5], [0, 0, 3, 40], [0, 0, 0, 1]], float)

#: Every order of axes, each forward or backward.
STORED = list(
    itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
)


def _scan(dtype=np.int16):
    return np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)


def _store(voxels, affine, order, ways):
    """Returns the voxels and the affine of the same scan with other axes."""
    stored = np.transpose(voxels, order)[tuple(slice(None, None, way) for way in ways)]
    to_first = np.zeros((4, 4))  # from indices of what is stored to those of `voxels`
    to_first[3, 3] = 1
    for axis, (place, way) in enumerate(zip(order, ways, strict=True)):
        to_first[place, axis] = way
        to_first[place, 3] = 0 if way > 0 else voxels.shape[place] - 1
    return stored, affine @ to_first


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_every_order_of_axes_gives_the_same_slices(tmp_path, plane):
    voxels = _scan()
    settings, cutting = Preparation(image_size=16, channels=1), Cutting(plane, min_lesion_pixels=0)
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 2:5, 3] = 1

    def slices(order, ways):
        paths = [
            write_nifti(tmp_path / f"{name}.nii", *_store(one, RAS, order, ways))
            for name, one in (("scan", voxels), ("mask", mask))
        ]
        volume, marked = (read_nifti(path) for path in paths)
        np.testing.assert_array_equal(volume.voxels, voxels)
        np.testing.assert_allclose(volume.affine, RAS, atol=1e-5)
        assert volume.grid.spacing == pytest.approx((1, 2, 3), abs=1e-5)
        return cut([volume], marked, settings, cutting)

    first = slices((0, 1, 2), (1, 1, 1))
    assert len(first.images) == SHAPE["xyz".index({"a": "z", "c": "y", "s": "x"}[plane[0]])]
    assert first.labels.sum() == {"axial": 1, "coronal": 3, "sagittal": 2}[plane]
    assert len(STORED) == 48
    for order, ways in STORED:
        other = slices(order, ways)
        np.testing.assert_array_equal(other.images, first.images)
        np.testing.assert_array_equal(other.labels, first.labels)
        np.testing.assert_array_equal(other.masks, first.masks)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_voxels_are_read_as_they_are(tmp_path, suffix, dtype):
    voxels = _scan(dtype)
    if dtype.startswith("i"):
        voxels = voxels - np.array(100, dtype)
    volume = read_nifti(write_nifti(tmp_path / f"été 1{suffix}", voxels, RAS))
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.voxels.dtype == dtype


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
@pytest.mark.parametrize("ways", [(1, 1, 1), (-1, -1, 1)])
def test_slope_and_intercept(tmp_path, dtype, ways):
    voxels = _scan(dtype)
    path = write_nifti(tmp_path / "a.nii", *_store(voxels, RAS, (0, 1, 2), ways))
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<ff", 0.5, -1000)  # scl_slope and scl_inter of the header
    path.write_bytes(content)
    np.testing.assert_array_equal(read_nifti(path).voxels, voxels * 0.5 - 1000)


def test_big_endian_and_second_version(tmp_path):
    voxels = _scan()
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(voxels.astype(">i2"), RAS, header), tmp_path / "big.nii")
    nib.save(nib.Nifti2Image(voxels, RAS), tmp_path / "two.nii")
    nib.save(nib.Nifti2Image(voxels, RAS), tmp_path / "two.nii.gz")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_nifti(path).voxels, voxels)


def test_content_tells_whether_a_file_is_zipped(tmp_path):
    plain, zipped = tmp_path / "a.nii.gz", tmp_path / "b.nii"
    content = write_nifti(tmp_path / "c.nii", _scan()).read_bytes()
    plain.write_bytes(content)
    zipped.write_bytes(gzip.compress(content))
    for path in (plain, zipped):
        np.testing.assert_array_equal(read_nifti(path).voxels, _scan())


def test_a_fourth_dimension_of_one_is_none(tmp_path):
    volume = read_nifti(write_nifti(tmp_path / "a.nii", _scan()[..., None], RAS))
    np.testing.assert_array_equal(volume.voxels, _scan())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 6, 7, 2), r"has 4 dimensions \(5, 6, 7, 2\), but a scan has 3; save each volume in"),
        ((5, 6, 7, 1, 3), "has 5 dimensions"),
        ((5, 6), "has 2 dimensions"),
    ],
)
def test_other_numbers_of_dimensions_are_refused(tmp_path, shape, expected):
    path = write_nifti(tmp_path / "a.nii", np.ones(shape, np.float32))
    with pytest.raises(DataError, match=rf"a\.nii: {expected}"):
        read_nifti(path)


@pytest.mark.parametrize("kind", ["complex", "rgb"])
def test_voxels_that_are_no_numbers_are_refused(tmp_path, kind):
    dtype = {"complex": np.complex64, "rgb": [("R", "u1"), ("G", "u1"), ("B", "u1")]}[kind]
    path = write_nifti(tmp_path / "a.nii", np.ones(SHAPE, dtype))
    with pytest.raises(DataError, match=r"a\.nii: holds .*; save it as integers or floats\.$"):
        read_nifti(path)


@pytest.mark.parametrize(
    "columns",
    [
        np.zeros((3, 3)),
        np.diag([1.0, np.nan, 1.0]),
        np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1.0]]),  # two axes that point the same way
        np.diag([1e9, 1, 1]),
    ],
    ids=["zeros", "nan", "singular", "kilometres"],
)
def test_an_affine_that_tells_no_orientation_is_refused(tmp_path, columns):
    path = write_nifti(tmp_path / "a.nii", _scan())
    content = bytearray(path.read_bytes())
    sform = np.concatenate([columns, np.zeros((3, 1))], axis=1)
    content[280:328] = sform.astype("<f4").tobytes()  # srow_x, srow_y and srow_z
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"its affine has no orientation .*; repair the header"):
        read_nifti(path)


def test_an_oblique_scan_is_turned_to_the_nearest_axes(tmp_path):
    angle = np.deg2rad(10)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for order, ways in STORED[::7]:
        path = write_nifti(tmp_path / "a.nii.gz", *_store(_scan(), turn @ RAS, order, ways))
        volume = read_nifti(path)
        np.testing.assert_array_equal(volume.voxels, _scan())
        np.testing.assert_allclose(volume.affine, turn @ RAS, atol=1e-5)
        # Lengths of steps along the axes of the scan, not of the patient.
        assert volume.grid.spacing == pytest.approx((1, 2, 3), abs=1e-5)


def test_a_mask_must_lie_on_the_grid_of_its_scan(tmp_path):
    scan = read_nifti(write_nifti(tmp_path / "scan.nii", _scan(), RAS))

    def mask(voxels, affine):
        return read_nifti(write_nifti(tmp_path / "mask.nii", voxels, affine))

    same = mask(*_store(_scan(np.uint8), RAS, (2, 0, 1), (1, -1, -1)))
    check_same_grid(scan, same, "mask")

    near, far = RAS.copy(), RAS.copy()
    near[:3, 3] += 0.4  # less than half a millimetre
    far[2, 3] += 3  # the next slice
    check_same_grid(scan, mask(_scan(), near), "mask")
    message = r"mask\.nii: the mask lies up to 3 mm away from the scan '.*scan\.nii'; resample it"
    with pytest.raises(DataError, match=message):
        check_same_grid(scan, mask(_scan(), far), "mask")

    # The same first voxel, but steps of 1.2 instead of 1 mm: (5 - 1) x 0.2 = 0.8 mm off at the end.
    wider = RAS @ np.diag([1.2, 1, 1, 1])
    with pytest.raises(DataError, match=r"lies up to 0\.8 mm away"):
        check_same_grid(scan, mask(_scan(), wider), "mask")

    message = (
        r"mask\.nii: the mask has shape \(5, 6, 8\), but the scan '.*' has \(5, 6, 7\); resample it"
    )
    with pytest.raises(DataError, match=message):
        check_same_grid(scan, mask(np.ones((5, 6, 8), np.uint8), RAS), "mask")

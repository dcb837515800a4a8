"""Masks and images that belong together: beside scans, in ground_truth/, beside one file."""

import shutil

import pytest
from user_files import (
    data_config,
    write_grey,
    write_image,
    write_label_map,
    write_mask,
    write_scan,
    write_scans,
)

from jaxad.data.replay import read_files, read_normals
from jaxad.data.sources import DataSet
from jaxad.errors import UserError

# --- Beside scans.


@pytest.mark.parametrize("root", ["", "train/good"])
def test_a_mask_of_two_scans_is_refused(tmp_path, root):
    for number in range(4):
        write_scan(tmp_path / root / f"p{number}.nii.gz", number)
    write_scan(tmp_path / root / "p0.nii")
    write_label_map(tmp_path / root / "p0_mask.nii.gz")
    with pytest.raises(UserError, match="p0_mask.nii.gz: has a name that fits both 'p0.nii' and"):
        DataSet(data_config(tmp_path, "nifti"))


@pytest.mark.parametrize("root", ["", "train/good"])
@pytest.mark.parametrize("ending", ["-seg", "_gt", "_segmentation", ".mask", "_mask_1"])
def test_the_mask_of_a_scan_is_not_learnt_from(tmp_path, root, ending):
    """BraTS 2023 has `x-seg.nii.gz` beside `x-t2f.nii.gz`."""
    for number in range(4):
        write_scan(tmp_path / root / f"p{number}-t2f.nii.gz", number)
    mask = write_label_map(tmp_path / root / f"p0{ending}.nii.gz")
    with pytest.raises(
        UserError, match=r"is named like a mask, and there is no scan 'p0' beside it"
    ) as e:
        DataSet(data_config(tmp_path, "nifti"))
    assert "name it p0-t2f_mask.nii.gz if it marks 'p0-t2f.nii.gz', or move it" in str(e.value)
    mask.rename(mask.with_name(f"p0-t2f{ending}.nii.gz"))
    if root:
        with pytest.raises(UserError, match="marks anomalous pixels of 'train/good/p0-t2f"):
            DataSet(data_config(tmp_path, "nifti")).check()
    else:
        test = DataSet(data_config(tmp_path, "nifti")).split("test")
        assert "p0-t2f.nii.gz" in test.groups and test.labels.any()


def test_scans_whose_names_all_have_the_word_are_scans(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"train/good/{number}_seg.nii.gz", number)
    assert len(DataSet(data_config(tmp_path, "nifti")).split("train").groups) == 3 * 12


@pytest.mark.parametrize("name", ["5_seg.nii.gz", "x_mask.nii.gz", "x_LABELS.nii"])
@pytest.mark.parametrize("layout", ["", "train/good"])
def test_a_mask_of_no_scan_is_refused(tmp_path, name, layout):
    """If it were ignored, the scan that it marks would be read as normal."""
    for number in range(4):
        write_scan(tmp_path / layout / f"scan{number}.nii.gz", number)
    write_scan(tmp_path / layout / name)
    with pytest.raises(UserError, match=f"{name}: is named like a mask, and there is no scan '"):
        DataSet(data_config(tmp_path, "nifti"))


def test_masks_are_found_however_their_names_are_written(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"scan{number}.nii.gz", number)
    composed, decomposed = "M\u00fcller", "Mu\u0308ller"
    write_scan(tmp_path / f"{composed}.nii.gz", 9, lesion=16)
    (tmp_path / f"{composed}_mask.nii.gz").rename(tmp_path / f"{decomposed}_SEG.nii.gz")
    data_set = DataSet(data_config(tmp_path, "nifti"))
    assert data_set.split("test").labels.sum() == 1
    shutil.copy(tmp_path / f"{decomposed}_SEG.nii.gz", tmp_path / f"{composed}_mask.nii.gz")
    with pytest.raises(UserError, match="already has a mask"):
        DataSet(data_config(tmp_path, "nifti"))


# --- In ground_truth/.


@pytest.mark.parametrize(
    "name", ["{}.png", "{}_MASK.png", "{}-seg.png", "{}.mask.png", "{}_gt.tif"]
)
def test_names_of_masks_in_ground_truth(mvtec, name):
    for number in range(2):
        folder = mvtec / "ground_truth/crack"
        (folder / f"{number}_mask.png").unlink()
        write_mask(folder / name.format(number))
    masks = DataSet(data_config(mvtec)).split("test").masks
    assert masks.any(axis=(1, 2)).tolist() == [True, True, False, False]


def test_versions_of_an_image_have_masks_of_their_own(mvtec):
    shutil.rmtree(mvtec / "ground_truth")
    shutil.rmtree(mvtec / "test/crack")
    for version in (1, 2):
        write_grey(mvtec / f"test/crack/scan.v{version}.png", version)
        write_mask(mvtec / f"ground_truth/crack/scan.v{version}_mask.png")
    items = DataSet(data_config(mvtec))
    assert items.split("test").masks.any(axis=(1, 2)).tolist() == [True, True, False, False]
    write_grey(mvtec / "test/crack/scan.v1.jpg", 3)
    with pytest.raises(UserError, match="v1_mask.png: has a name that fits both 'scan.v1.jpg' and"):
        DataSet(data_config(mvtec))


# --- Beside one file.


def test_the_mask_of_one_scan_is_looked_for_beside_it(tmp_path):
    write_scans(tmp_path, ("p0", "p1"), "p0_mask.nii.gz")
    data = data_config("", "nifti")
    with pytest.raises(UserError, match="p0_mask.nii.gz: marks anomalous pixels of 'p0.nii.gz'"):
        read_normals(tmp_path / "p0.nii.gz", data)
    with pytest.raises(UserError, match="p0_mask.nii.gz: is named like a mask, but a run on hcp"):
        read_normals(tmp_path / "p0.nii.gz", data_config("", "hcp"))
    assert len(read_normals(tmp_path / "p1.nii.gz", data)) == 12  # slices; the mask belongs to p0
    assert len(read_files(tmp_path / "p0.nii.gz", data)) == 12  # accepted for scoring


@pytest.mark.parametrize("mask", ["p0_SEG.nii.gz", "p0-label.nii.gz", "p0.gt.nii.gz"])
def test_other_spellings_of_the_mask_of_one_scan(tmp_path, mask):
    write_scans(tmp_path, ("p0", "p1"), mask)
    with pytest.raises(UserError, match=f"{mask}: marks anomalous pixels of 'p0.nii.gz'"):
        read_normals(tmp_path / "p0.nii.gz", data_config("", "nifti"))


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("x_seg.nii.gz", "there is no scan 'x' beside it; name it x_t2_mask.nii.gz if it marks"),
        ("mask_x_t2.nii.gz", "is a mask, not an image: 'x_t2.nii.gz' lies beside it; move masks"),
        ("segmentation.nii.gz", "is a mask, not an image: 'x_t2.nii.gz' lies beside it; move"),
    ],
)
def test_what_may_be_the_mask_of_one_scan_is_refused(tmp_path, mask, expected):
    write_scans(tmp_path, ("x_t2",), mask)
    with pytest.raises(UserError, match=f"{mask}: .*{expected}"):
        read_normals(tmp_path / "x_t2.nii.gz", data_config("", "nifti"))


def test_one_scan_with_two_masks_or_an_empty_one(tmp_path):
    write_scan(tmp_path / "p0.nii.gz", 0, lesion=0)
    assert len(read_normals(tmp_path / "p0.nii.gz", data_config("", "nifti"))) == 12
    shutil.copy(tmp_path / "p0_mask.nii.gz", tmp_path / "p0_seg.nii.gz")
    with pytest.raises(UserError, match="p0_seg.nii.gz: 'p0.nii.gz' already has a mask"):
        read_normals(tmp_path / "p0.nii.gz", data_config("", "nifti"))


@pytest.mark.parametrize("mask", ["0_mask.png", "mask-0.png", "0 ground truth.png"])
def test_the_mask_of_one_image_is_refused(tmp_path, mask):
    for number in range(2):
        write_image(tmp_path / f"{number}.png", 100 + number)
    write_mask(tmp_path / mask)
    with pytest.raises(UserError, match=f"{mask}: is a mask, not an image: '0.png' lies beside it"):
        read_normals(tmp_path / "0.png", data_config(""))
    assert len(read_normals(tmp_path / "1.png", data_config(""))) == 1

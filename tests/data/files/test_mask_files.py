"""Masks among images: found by their names, their neighbours and their content."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from test_folders import data_config, mvtec, write_mask, write_scan  # noqa: F401

from jaxad.data.files.mask_search import find_masks
from jaxad.data.replay import find_items, read_normals
from jaxad.data.sources import DataSet
from jaxad.errors import UserError


def write_grey(path, seed=0):
    """An image of some 200 different values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 20)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_label_map(path, seed=0):
    """A scan of the labels 0 to 3, as BraTS has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(0, 4, (16, 16, 16)).astype(np.uint8)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


@pytest.fixture
def photographs(tmp_path):
    """The MVTec layout of images with many values, without masks."""
    for number in range(6):
        write_grey(tmp_path / f"train/good/{number:02d}.png", number)
    for number in range(2):
        write_grey(tmp_path / f"test/good/g{number}.png", 10 + number)
        write_grey(tmp_path / f"test/crack/c{number}.png", 20 + number)
    return tmp_path


BESIDE = ["c0_gt.png", "c0_segmentation.png", "c0_mask_1.png", "c0.mask.png", "c0_mask.png",
          "c0-SEG.tif", "C0 Ground Truth.png", "c0Label.png", "c0_annotation.jpg",
          "mask_c0.png", "c0_mask2.png"]  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_a_mask_beside_its_image_is_refused(photographs, name):
    write_mask(photographs / "test/crack" / name)
    with pytest.raises(UserError, match="is a mask and no image: .*move masks of test") as raised:
        DataSet(data_config(photographs))
    assert name in str(raised.value) and "\n" not in str(raised.value)
    (photographs / "test/crack" / name).unlink()
    DataSet(data_config(photographs))


@pytest.mark.parametrize("split", ["train/good", "val/good", "test/good", "test/crack/deeper"])
@pytest.mark.parametrize("name", ["far_mask.png", "mask/far.png", "labels/far.tif"])
def test_a_label_map_that_is_named_so_is_refused_everywhere(photographs, split, name):
    """Its image is elsewhere, or not there at all."""
    write_grey(photographs / "val/good/v.png", 99)
    write_mask(photographs / split / name)
    with pytest.raises(UserError, match="is a mask and no image: by .* name.*, and it holds a lab"):
        DataSet(data_config(photographs))


def test_the_layout_of_busi(tmp_path):
    for number in range(4):
        write_grey(tmp_path / f"train/normal/normal ({number}).png", number)
    write_grey(tmp_path / "test/normal/normal (7).png", 7)
    write_grey(tmp_path / "test/benign/benign (1).png", 8)
    for name in ("benign (1)_mask.png", "benign (1)_mask_1.png"):
        write_mask(tmp_path / "test/benign" / name)
    with pytest.raises(UserError, match=r"\(1\)_mask.png: is a mask .*'benign \(1\).png' lies bes"):
        DataSet(data_config(tmp_path))
    # What the line says helps.
    (tmp_path / "ground_truth/benign").mkdir(parents=True)
    for path in (tmp_path / "test/benign").glob("*mask*"):
        path.rename(tmp_path / "ground_truth/benign" / path.name)
    with pytest.raises(UserError, match="has a mask already, .*join them into one"):
        DataSet(data_config(tmp_path))
    (tmp_path / "ground_truth/benign/benign (1)_mask_1.png").unlink()
    assert DataSet(data_config(tmp_path)).split("test").masks.any(axis=(1, 2)).tolist() == [
        True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["segovia_001.png", "gtx.png", "labelled.png", "roi_crop.png", "far_mask.png", "c0_1.png",
     "c0_left.png", "tumor/c0.png", "c0_vessels.png", "masked_c0.png", "c0_unmask.png", "c0.tif",
     "annotation 7.png", "label/1.png", "mask_r_cnn_001.png", "lesion/c0.png"],
)  # fmt: skip
def test_images_that_only_sound_like_masks_are_images(photographs, name, capsys):
    write_grey(photographs / "test/crack" / name, 77)
    assert f"test/crack/{name}" in DataSet(data_config(photographs)).split("test").ids
    assert capsys.readouterr().err == ""


def test_a_crop_beside_its_image_is_an_image_and_a_marked_region_is_not(photographs):
    write_grey(photographs / "test/crack/c0_roi.png", 5)
    DataSet(data_config(photographs))
    write_mask(photographs / "test/crack/c0_lesion.png")
    with pytest.raises(UserError, match="c0_lesion.png: is a mask and no image"):
        DataSet(data_config(photographs))


@pytest.mark.parametrize("word", ["{}_seg", "mask-{}", "Label {}", "roi{}"])
@pytest.mark.parametrize("write", [write_grey, lambda path, _: write_mask(path)])
def test_a_word_that_every_name_has_says_nothing(tmp_path, word, write, capsys):
    paths = [write(tmp_path / f"{word.format(number)}.png", number) for number in range(4)]
    assert find_masks(paths, "image", tmp_path) == []
    told = capsys.readouterr().err
    is_told = write is not write_grey
    assert ("holds a label map and is named as a mask, as all files are" in told) == is_told


def test_masks_are_found_whatever_every_other_name_says(tmp_path):
    """A folder of pairs, all of which have the word, is no folder of images."""
    paths = []
    for number in range(3):
        paths.append(write_grey(tmp_path / f"{number}.png", number))
        paths.append(write_mask(tmp_path / f"{number}_mask.png"))
    assert [mask.path for mask in find_masks(paths, "image", tmp_path)] == paths[1::2]
    # The images are not among what was asked for, but they are there.
    assert len(find_masks(paths[1::2], "image", tmp_path)) == 3


@pytest.mark.parametrize(
    ("image", "mask"),
    [("roi_{}", "roi_{}_mask"), ("label_{}", "label_{}_gt"), ("x{}_seg", "x{}_seg_label"),
     ("seg {}", "mask seg {}"), ("label_{}", "Ground Truth/label_{}")],
)  # fmt: skip
@pytest.mark.parametrize("write", [write_grey, lambda path, _: write_mask(path)])
def test_images_whose_own_names_have_the_word_have_masks_too(tmp_path, image, mask, write):
    paths = []
    for number in range(3):
        paths.append(write(tmp_path / f"{image.format(number)}.png", number))
        paths.append(write(tmp_path / f"{mask.format(number)}.png", 9 + number))
    assert [mask.path for mask in find_masks(paths, "image", tmp_path)] == paths[1::2]


# --- Scans.


def test_the_brain_mask_of_a_scan_in_the_root_is_no_scan(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"p{number}_T1.nii.gz", number)
    write_label_map(tmp_path / "p0_T1_brainmask.nii.gz")
    with pytest.raises(UserError, match="p0_T1_brainmask.nii.gz: is a mask and no image"):
        DataSet(data_config(tmp_path, "nifti"))


@pytest.mark.parametrize("root", ["", "train/good"])
def test_a_mask_of_two_scans_is_refused(tmp_path, root):
    for number in range(4):
        write_scan(tmp_path / root / f"p{number}.nii.gz", number)
    write_scan(tmp_path / root / "p0.nii")
    write_label_map(tmp_path / root / "p0_mask.nii.gz")
    with pytest.raises(UserError, match="p0_mask.nii.gz: marks 'p0.nii' and 'p0.nii.gz' by its"):
        DataSet(data_config(tmp_path, "nifti"))


@pytest.mark.parametrize("root", ["", "train/good"])
@pytest.mark.parametrize("ending", ["-seg", "_gt", "_segmentation", ".mask", "_mask_1"])
def test_the_mask_of_a_scan_is_not_learnt_from(tmp_path, root, ending):
    """BraTS 2023 has `x-seg.nii.gz` beside `x-t2f.nii.gz`."""
    for number in range(4):
        write_scan(tmp_path / root / f"p{number}-t2f.nii.gz", number)
    mask = write_label_map(tmp_path / root / f"p0{ending}.nii.gz")
    with pytest.raises(
        UserError, match=r"is named as a mask, and there is no scan 'p0' beside it"
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


@pytest.mark.parametrize("name", ["segmentation-0.nii", "mask_p0.nii.gz", "labelsTr/p0-t2f.nii.gz"])
def test_other_names_of_label_maps_of_scans(tmp_path, name):
    for number in range(4):
        write_scan(tmp_path / f"train/good/p{number}-t2f.nii.gz", number)
    write_label_map(tmp_path / "train/good" / name)
    with pytest.raises(UserError, match=r"is a mask and no image: .*name the mask of a scan <sc"):
        DataSet(data_config(tmp_path, "nifti"))


def test_a_mask_of_the_only_scan_of_a_folder(tmp_path):
    """KiTS has `imaging.nii.gz` and `segmentation.nii.gz` for each case."""
    for number in range(4):
        write_scan(tmp_path / f"train/good/{number}/imaging.nii.gz", number)
    write_label_map(tmp_path / "train/good/0/segmentation.nii.gz")
    with pytest.raises(UserError, match=r"0/segmentation.nii.gz: is a mask and no image: 'imaging"):
        DataSet(data_config(tmp_path, "nifti"))


def test_masks_in_a_folder_beside_scans_in_the_root_are_not_passed_over(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"{number}.nii.gz", number)
    write_label_map(tmp_path / "masks/0.nii.gz")
    with pytest.raises(
        UserError, match="folder 'masks', which would be passed over; put masks bes"
    ):
        DataSet(data_config(tmp_path, "nifti"))
    (tmp_path / "masks/0.nii.gz").rename(tmp_path / "0_mask.nii.gz")
    DataSet(data_config(tmp_path, "nifti"))


def test_scans_whose_names_all_have_the_word_are_scans(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"train/good/{number}_seg.nii.gz", number)
    assert len(DataSet(data_config(tmp_path, "nifti")).split("train").groups) == 3 * 12


# --- What is scored later.


def test_what_is_scored_leaves_masks_out_and_says_so(mvtec, capsys):  # noqa: F811 - a fixture
    data = data_config(mvtec)
    items = find_items(mvtec, data)
    assert len(items) == 14 and not any("ground_truth" in item.id for item in items)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "left out 2 of 16 files, which are masks; the first: " in told
    assert "ground_truth/crack/0_mask.png (it lies in ground_truth/)" in told


@pytest.mark.parametrize("folder", ["Ground_Truth", "GroundTruth", "ground truth", "masks", "GT"])
def test_folders_of_masks_are_left_out_however_they_are_called(mvtec, folder):  # noqa: F811
    (mvtec / "ground_truth").rename(mvtec / folder)
    assert len(find_items(mvtec, data_config(mvtec))) == 14


def test_masks_of_scans_are_left_out(tmp_path, capsys):
    for number in range(2):
        write_scan(tmp_path / f"p{number}/p{number}-t2f.nii.gz", number)
        write_label_map(tmp_path / f"p{number}/p{number}-seg.nii.gz")
    items = find_items(tmp_path, data_config(tmp_path, "nifti"))
    assert [item.id for item in items] == ["p0/p0-t2f.nii.gz", "p1/p1-t2f.nii.gz"]
    assert "left out 2 of 4 files" in capsys.readouterr().err


def test_a_mask_that_is_named_itself_is_refused(mvtec):  # noqa: F811 - a fixture
    path = write_mask(mvtec / "test/crack/0_mask.png")
    with pytest.raises(UserError, match="'0.png' lies beside it; name what it marks"):
        find_items(path, data_config(mvtec))
    assert len(find_items(mvtec / "test/crack/0.png", data_config(mvtec))) == 1


def test_normal_images_of_another_site_hold_no_mask(mvtec, tmp_path_factory):  # noqa: F811
    site = tmp_path_factory.mktemp("site")
    for number in range(3):
        write_grey(site / f"{number}.png", number)
    assert len(read_normals(site, data_config(mvtec))) == 3
    write_mask(site / "0_gt.png")
    with pytest.raises(UserError, match="0_gt.png: is a mask and no image: .*; move masks away"):
        read_normals(site, data_config(mvtec))
    (site / "0_gt.png").unlink()
    write_mask(site / "Ground Truth/0.png")
    with pytest.raises(UserError, match="holds Ground Truth/, so not all in it is normal"):
        read_normals(site, data_config(mvtec))


# --- Which image a mask in ground_truth/ marks.


@pytest.mark.parametrize(
    "name", ["{}.png", "{}_MASK.png", "{}-seg.png", "{}.mask.png", "{}_gt.tif"]
)
def test_names_of_masks_in_ground_truth(mvtec, name):  # noqa: F811 - a fixture
    for number in range(2):
        folder = mvtec / "ground_truth/crack"
        (folder / f"{number}_mask.png").unlink()
        write_mask(folder / name.format(number))
    masks = DataSet(data_config(mvtec)).split("test").masks
    assert masks.any(axis=(1, 2)).tolist() == [True, True, False, False]


def test_versions_of_an_image_have_masks_of_their_own(mvtec):  # noqa: F811 - a fixture
    shutil.rmtree(mvtec / "ground_truth")
    shutil.rmtree(mvtec / "test/crack")
    for version in (1, 2):
        write_grey(mvtec / f"test/crack/scan.v{version}.png", version)
        write_mask(mvtec / f"ground_truth/crack/scan.v{version}_mask.png")
    items = DataSet(data_config(mvtec))
    assert items.split("test").masks.any(axis=(1, 2)).tolist() == [True, True, False, False]
    write_grey(mvtec / "test/crack/scan.v1.jpg", 3)
    with pytest.raises(UserError, match="v1_mask.png: marks 'scan.v1.jpg' and 'scan.v1.png'"):
        DataSet(data_config(mvtec))

"""The search for masks among images: by their names, their neighbours and their content."""

import nibabel as nib
import numpy as np
import pytest
from user_files import data_config, write_grey, write_label_map, write_mask, write_scan

from jaxad.data.files.mask_search import find_masks, refuse_masks
from jaxad.data.readers import images
from jaxad.data.readers.images import read_image
from jaxad.data.replay import find_items, read_normals
from jaxad.data.sources import DataSet
from jaxad.errors import UserError


@pytest.fixture
def photographs(tmp_path):
    """The MVTec layout with images of many values and without masks."""
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
    with pytest.raises(UserError, match="is a mask, not an image: .*move masks of test") as raised:
        DataSet(data_config(photographs))
    assert name in str(raised.value) and "\n" not in str(raised.value)
    (photographs / "test/crack" / name).unlink()
    DataSet(data_config(photographs))


@pytest.mark.parametrize("split", ["train/good", "val/good", "test/good", "test/crack/deeper"])
@pytest.mark.parametrize("name", ["far_mask.png", "mask/far.png", "labels/far.tif"])
def test_a_label_map_that_is_named_so_is_refused_everywhere(photographs, split, name):
    """Its image is elsewhere or does not exist."""
    write_grey(photographs / "val/good/v.png", 99)
    write_mask(photographs / split / name)
    with pytest.raises(UserError, match="is a mask, not an image: by .* name.*, and it holds"):
        DataSet(data_config(photographs))


def test_the_layout_of_busi(tmp_path):
    for number in range(4):
        write_grey(tmp_path / f"train/normal/normal ({number}).png", number)
    write_grey(tmp_path / "test/normal/normal (7).png", 7)
    write_grey(tmp_path / "test/benign/benign (1).png", 8)
    for name in ("benign (1)_mask.png", "benign (1)_mask_1.png"):
        write_mask(tmp_path / "test/benign" / name)
    with pytest.raises(
        UserError, match=r"\(1\)_mask.png: is a mask, .*'benign \(1\).png' lies bes"
    ):
        DataSet(data_config(tmp_path))
    # The remedy works.
    (tmp_path / "ground_truth/benign").mkdir(parents=True)
    for path in (tmp_path / "test/benign").glob("*mask*"):
        path.rename(tmp_path / "ground_truth/benign" / path.name)
    with pytest.raises(UserError, match="already has a mask, .*merge them into one"):
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
    with pytest.raises(UserError, match="c0_lesion.png: is a mask, not an image"):
        DataSet(data_config(photographs))


@pytest.mark.parametrize("word", ["{}_seg", "mask-{}", "Label {}", "roi{}"])
@pytest.mark.parametrize("write", [write_grey, lambda path, _: write_mask(path)])
def test_a_word_that_every_name_has_says_nothing(tmp_path, word, write, capsys):
    paths = [write(tmp_path / f"{word.format(number)}.png", number) for number in range(4)]
    assert find_masks(paths, "image", tmp_path) == {}
    message = capsys.readouterr().err
    is_reported = write is not write_grey
    assert (
        "holds a label map and is named like a mask, but so are all files" in message
    ) == is_reported


def test_masks_are_found_whatever_every_other_name_says(tmp_path):
    """Pairs of images and masks are no images, even if all folders share a word."""
    paths = []
    for number in range(3):
        paths.append(write_grey(tmp_path / f"{number}.png", number))
        paths.append(write_mask(tmp_path / f"{number}_mask.png"))
    assert list(find_masks(paths, "image", tmp_path)) == paths[1::2]
    # The images are not among the given paths, but in the folder.
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
    assert list(find_masks(paths, "image", tmp_path)) == paths[1::2]


# --- Scans.


def test_the_brain_mask_of_a_scan_in_the_root_is_no_scan(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"p{number}_T1.nii.gz", number)
    write_label_map(tmp_path / "p0_T1_brainmask.nii.gz")
    with pytest.raises(UserError, match="p0_T1_brainmask.nii.gz: is a mask, not an image"):
        DataSet(data_config(tmp_path, "nifti"))


@pytest.mark.parametrize("name", ["segmentation-0.nii", "mask_p0.nii.gz", "labelsTr/p0-t2f.nii.gz"])
def test_other_names_of_label_maps_of_scans(tmp_path, name):
    for number in range(4):
        write_scan(tmp_path / f"train/good/p{number}-t2f.nii.gz", number)
    write_label_map(tmp_path / "train/good" / name)
    with pytest.raises(UserError, match=r"is a mask, not an image: .*name the mask of a scan <sc"):
        DataSet(data_config(tmp_path, "nifti"))


def test_a_mask_of_the_only_scan_of_a_folder(tmp_path):
    """KiTS has `imaging.nii.gz` and `segmentation.nii.gz` for each case."""
    for number in range(4):
        write_scan(tmp_path / f"train/good/{number}/imaging.nii.gz", number)
    write_label_map(tmp_path / "train/good/0/segmentation.nii.gz")
    with pytest.raises(UserError, match=r"0/segmentation.nii.gz: is a mask, not an image: 'imag"):
        DataSet(data_config(tmp_path, "nifti"))


def test_masks_in_a_folder_beside_scans_in_the_root_are_not_passed_over(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"{number}.nii.gz", number)
    write_label_map(tmp_path / "masks/0.nii.gz")
    with pytest.raises(UserError, match="folder 'masks', which would be ignored; put masks bes"):
        DataSet(data_config(tmp_path, "nifti"))
    (tmp_path / "masks/0.nii.gz").rename(tmp_path / "0_mask.nii.gz")
    DataSet(data_config(tmp_path, "nifti"))


# --- Images to score.


def test_what_is_scored_leaves_masks_out_and_says_so(mvtec, capsys):
    data = data_config(mvtec)
    items = find_items(mvtec, data)
    assert len(items) == 14 and not any("ground_truth" in item.id for item in items)
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "left out 2 of 16 files, which are masks; the first: " in message
    assert "ground_truth/crack/0_mask.png (it lies in ground_truth/)" in message


@pytest.mark.parametrize("folder", ["Ground_Truth", "GroundTruth", "ground truth", "masks", "GT"])
def test_folders_of_masks_are_left_out_however_they_are_called(mvtec, folder):
    (mvtec / "ground_truth").rename(mvtec / folder)
    assert len(find_items(mvtec, data_config(mvtec))) == 14


def test_masks_of_scans_are_left_out(tmp_path, capsys):
    for number in range(2):
        write_scan(tmp_path / f"p{number}/p{number}-t2f.nii.gz", number)
        write_label_map(tmp_path / f"p{number}/p{number}-seg.nii.gz")
    items = find_items(tmp_path, data_config(tmp_path, "nifti"))
    assert [item.id for item in items] == ["p0/p0-t2f.nii.gz", "p1/p1-t2f.nii.gz"]
    assert "left out 2 of 4 files" in capsys.readouterr().err


def test_a_mask_that_is_named_itself_is_refused(mvtec):
    path = write_mask(mvtec / "test/crack/0_mask.png")
    with pytest.raises(UserError, match="'0.png' lies beside it; name what it marks"):
        find_items(path, data_config(mvtec))
    assert len(find_items(mvtec / "test/crack/0.png", data_config(mvtec))) == 1


def test_normal_images_of_another_site_hold_no_mask(mvtec, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    for number in range(3):
        write_grey(site / f"{number}.png", number)
    assert len(read_normals(site, data_config(mvtec))) == 3
    write_mask(site / "0_gt.png")
    with pytest.raises(UserError, match="0_gt.png: is a mask, not an image: .*; move masks away"):
        read_normals(site, data_config(mvtec))
    (site / "0_gt.png").unlink()
    write_mask(site / "Ground Truth/0.png")
    with pytest.raises(UserError, match="holds Ground Truth/, so it does not hold only normal"):
        read_normals(site, data_config(mvtec))


@pytest.mark.parametrize("shared", ["Kvasir-SEG", "labels", "mask data/x"])
@pytest.mark.parametrize("folder", ["masks", "seg", "annotated", "ROIs"])
def test_a_word_in_a_folder_of_all_files_hides_no_mask(tmp_path, shared, folder):
    paths = [write_grey(tmp_path / f"train/good/{shared}/images/{n}.png", n) for n in range(7)]
    masks = [write_mask(tmp_path / f"train/good/{shared}/{folder}/{n}.png") for n in range(7)]
    assert list(find_masks([*paths, *masks], "image", tmp_path)) == masks
    with pytest.raises(UserError, match=r"holds a label map \(and 6 more files\)"):
        refuse_masks([*paths, *masks], "image", tmp_path, "move them")
    with pytest.raises(UserError, match=r"holds a label map \(and 1 more file\)"):
        refuse_masks([*paths, *masks[:2]], "image", tmp_path, "move them")
    assert find_masks(paths, "image", tmp_path) == {}


def test_the_warning_looks_at_files_at_even_distances(tmp_path, capsys):
    paths = [write_grey(tmp_path / f"seg_{n:02d}.png", n) for n in range(30)]
    assert find_masks(paths, "image", tmp_path) == {} and capsys.readouterr().err == ""
    write_mask(paths[-1])
    assert find_masks(paths, "image", tmp_path) == {}
    err = capsys.readouterr().err
    assert "seg_29.png: holds a label map" in err and "20 of 30 files were looked at, 1 of" in err


@pytest.mark.parametrize(
    "name",
    ["c0_brainmask.png", "segmask_c0.png", "c0_tumormask.png", "c0_binmask.png", "imagemask_0.png",
     "c0_MRIMask.png", "c0CTSeg.png", "IMAGEMask.png", "c0_1stHO.png", "c0_manual1.png",
     "1st_manual/far.png", "c0_HE.tif", "c0_MA.tif", "c0_OD.tif", "c0_superpixels.png",
     "c0_attribute_globules.png", "c0_lbl.png", "c0_annotated.png", "c0_bin.png", "c0_binary.png",
     "c0_vessels.png", "c0_outlined.png", "wmparc.png", "far_ribbon.png", "c0_pveseg.png",
     "c0_otsu.png", "otsu_c0.png", "c0_cup-disc 2.png", "c0.tif", "c0_lesion.png",
     "far_lesion.png", "IMD002_lesion/IMD002_x.png", "contours/far.png"],
)  # fmt: skip
def test_label_maps_of_public_data_sets(photographs, name):
    """CHASE, DRIVE, IDRiD, ISIC, FreeSurfer, PH2, and suffixes that are on no list."""
    for number in range(6):
        write_grey(photographs / f"train/good/c{number}.png", 50 + number)
    write_mask(photographs / "train/good" / name)
    with pytest.raises(UserError, match="is a mask, not an image") as raised:
        DataSet(data_config(photographs))
    assert name in str(raised.value) and "\n" not in str(raised.value)


def test_the_layout_of_ph2(tmp_path):
    paths, masks = [], []
    for number in range(3):
        folder = tmp_path / f"IMD00{number}"
        name = f"IMD00{number}_Dermoscopic_Image/IMD00{number}.bmp"
        paths.append(write_grey(folder / name, number))
        masks.append(write_mask(folder / f"IMD00{number}_lesion/IMD00{number}_lesion.bmp"))
        masks.append(write_mask(folder / f"IMD00{number}_roi/IMD00{number}_R1_Label1.bmp"))
    assert list(find_masks([*paths, *masks], "image", tmp_path)) == masks


def test_images_that_are_label_maps_themselves_have_copies(tmp_path):
    """Silhouettes and drawings are images whose copies have nearly the same name."""
    paths = [write_mask(tmp_path / f"{name}.png") for name in ("a", "a_flipped", "b", "b_left")]
    paths.append(write_grey(tmp_path / "c.png"))
    paths.append(tmp_path / "c_black.png")
    write_mask(paths[-1], marked=False)
    assert find_masks(paths, "image", tmp_path) == {}


# --- How many files are looked at.


@pytest.fixture
def looked_at(monkeypatch):
    """The files whose pixels were read."""
    looked = []

    def read(path):
        looked.append(path)
        return read_image(path)

    monkeypatch.setattr(images, "read_image", read)
    return looked


def test_names_decide_before_contents(tmp_path, looked_at):
    names = ["img", "img2", "img_3", "x", "x_1", "x 2", "p_t1", "p_t2", "a1", "a2", "b-1"]
    paths = [write_grey(tmp_path / f"{name}.png", seed) for seed, name in enumerate(names)]
    assert find_masks(paths, "image", tmp_path) == {} and looked_at == []


@pytest.mark.parametrize(
    "names", ["masks/{}.png", "p{}/masks/x.png", "{}_far_mask.png", "{}_HE.png", "p{}_lesion/x.png"]
)
@pytest.mark.parametrize("write", [write_grey, lambda path, _: write_mask(path)])
def test_a_sample_decides_for_files_that_are_named_alike(tmp_path, names, write, looked_at):
    paths = [write(tmp_path / names.format(n), n) for n in range(50)]
    paths += [write_grey(tmp_path / f"{n}.png", n) for n in range(50)]
    masks = find_masks(paths, "image", tmp_path)
    assert len(set(looked_at) & set(paths[:50])) == 20
    assert list(masks) == ([] if write is write_grey else paths[:50])
    if masks:
        assert "20 of 50 files that are named alike hold label maps" in masks[paths[0]]


def test_a_mixed_sample_has_all_files_looked_at(tmp_path, looked_at):
    paths = [write_grey(tmp_path / f"labels/{n:02d}.png", n) for n in range(50)]
    for path in (paths[0], paths[1]):  # the sample holds only the first
        write_mask(path)
    paths.append(write_grey(tmp_path / "x.png"))
    assert list(find_masks(paths, "image", tmp_path)) == paths[:2]
    assert len(looked_at) == 50


# --- Scans.


def test_masks_of_freesurfer(tmp_path):
    rng = np.random.default_rng(0)
    seeds, places = rng.integers(0, 24, (40, 3)), np.indices((24, 24, 24))
    distances = [((places.T - seed) ** 2).sum(axis=-1) for seed in seeds]
    cells = (1000 + np.argmin(distances, axis=0)).astype(np.int16)
    paths = [write_scan(tmp_path / "p0_T1.nii.gz")]
    for name in ("p0_aparc+aseg", "p0_wmparc", "p0_ribbon", "p0_T1_brainmask", "labels/p0"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(cells, np.eye(4)), path)
        paths.append(path)
    assert list(find_masks(paths, "nifti", tmp_path)) == paths[1:]

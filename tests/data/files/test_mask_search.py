"""The search for masks: words of all files and of some, neighbours, samples of many files."""

import nibabel as nib
import numpy as np
import pytest
from test_folders import data_config, write_mask, write_scan
from test_mask_files import photographs, write_grey  # noqa: F401 - a fixture

from jaxad.data.files.mask_files import refuse_masks
from jaxad.data.files.mask_search import find_masks
from jaxad.data.readers import images
from jaxad.data.readers.images import read_image
from jaxad.data.sources import DataSet
from jaxad.errors import UserError

# --- Words of all files, of some, and none.


@pytest.mark.parametrize("shared", ["Kvasir-SEG", "labels", "mask data/x"])
@pytest.mark.parametrize("folder", ["masks", "seg", "annotated", "ROIs"])
def test_a_word_in_a_folder_of_all_files_hides_no_mask(tmp_path, shared, folder):
    paths = [write_grey(tmp_path / f"train/good/{shared}/images/{n}.png", n) for n in range(7)]
    masks = [write_mask(tmp_path / f"train/good/{shared}/{folder}/{n}.png") for n in range(7)]
    assert [mask.path for mask in find_masks([*paths, *masks], "image", tmp_path)] == masks
    with pytest.raises(UserError, match=r"holds a label map \(and 6 more files\)"):
        refuse_masks([*paths, *masks], "image", tmp_path, "move them")
    with pytest.raises(UserError, match=r"holds a label map \(and 1 more file\)"):
        refuse_masks([*paths, *masks[:2]], "image", tmp_path, "move them")
    assert find_masks(paths, "image", tmp_path) == []


def test_the_warning_looks_at_files_at_even_distances(tmp_path, capsys):
    paths = [write_grey(tmp_path / f"seg_{n:02d}.png", n) for n in range(30)]
    assert find_masks(paths, "image", tmp_path) == [] and capsys.readouterr().err == ""
    write_mask(paths[-1])
    assert find_masks(paths, "image", tmp_path) == []
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
def test_label_maps_of_public_data_sets(photographs, name):  # noqa: F811 - a fixture
    """CHASE, DRIVE, IDRiD, ISIC, FreeSurfer, PH2, and additions that nobody has a list of."""
    for number in range(6):
        write_grey(photographs / f"train/good/c{number}.png", 50 + number)
    write_mask(photographs / "train/good" / name)
    with pytest.raises(UserError, match="is a mask and no image") as raised:
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
    assert [mask.path for mask in find_masks([*paths, *masks], "image", tmp_path)] == masks


def test_images_that_are_label_maps_themselves_have_copies(tmp_path):
    """Silhouettes and drawings: names alone say nothing."""
    paths = [write_mask(tmp_path / f"{name}.png") for name in ("a", "a_flipped", "b", "b_left")]
    paths.append(write_grey(tmp_path / "c.png"))
    paths.append(tmp_path / "c_black.png")
    write_mask(paths[-1], marked=False)
    assert find_masks(paths, "image", tmp_path) == []


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
    assert find_masks(paths, "image", tmp_path) == [] and looked_at == []


@pytest.mark.parametrize(
    "names", ["masks/{}.png", "p{}/masks/x.png", "{}_far_mask.png", "{}_HE.png", "p{}_lesion/x.png"]
)
@pytest.mark.parametrize("write", [write_grey, lambda path, _: write_mask(path)])
def test_a_sample_decides_for_files_that_are_named_alike(tmp_path, names, write, looked_at):
    paths = [write(tmp_path / names.format(n), n) for n in range(50)]
    paths += [write_grey(tmp_path / f"{n}.png", n) for n in range(50)]
    masks = find_masks(paths, "image", tmp_path)
    assert len(set(looked_at) & set(paths[:50])) == 20
    assert [mask.path for mask in masks] == ([] if write is write_grey else paths[:50])
    if masks:
        assert "20 of 50 files that are named alike hold label maps" in masks[0].why


def test_a_mixed_sample_has_all_files_looked_at(tmp_path, looked_at):
    paths = [write_grey(tmp_path / f"labels/{n:02d}.png", n) for n in range(50)]
    for path in (paths[0], paths[1]):  # of which the sample has the first alone
        write_mask(path)
    paths.append(write_grey(tmp_path / "x.png"))
    assert [mask.path for mask in find_masks(paths, "image", tmp_path)] == paths[:2]
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
    assert [mask.path for mask in find_masks(paths, "nifti", tmp_path)] == paths[1:]

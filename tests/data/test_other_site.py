"""Labelled data of another site: layouts, and the preparation of the run's own data."""

import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from user_files import SIZE, data_config, write_grey, write_image, write_mask, write_scan

from jaxad.data.other_site import Site, read_site
from jaxad.data.replay import read_files
from jaxad.data.sources import DataSet
from jaxad.data.synthetic import template
from jaxad.errors import UserError


def labels_of(split):
    return dict(zip(split.ids, split.labels.tolist(), strict=True))


def write_classes(root):
    for number in range(2):
        write_grey(root / f"good/{number}.png", number)
        write_grey(root / f"crack/{number}.png", 9 + number)
    return root


@pytest.mark.parametrize("intensity", ["range", "percentile"])
def test_images_are_those_that_a_run_on_the_same_files_tests(mvtec, intensity):
    for seed, path in enumerate(sorted(mvtec.glob("t*/*/*.png"))):
        write_grey(path, seed)
    preparation = {"preprocess__intensity": intensity, "preprocess__square": "crop"}
    own = DataSet(data_config(mvtec, **preparation)).split("test")
    data = data_config("elsewhere", **preparation)
    site = read_site(Site(str(mvtec), label="b"), data)
    assert [*site.tests] == ["b"] and site.normals is None and site.data_set == "folder"
    split = site.tests["b"]
    np.testing.assert_array_equal(split.images, own.images)
    np.testing.assert_array_equal(split.masks, own.masks)
    assert labels_of(split) == labels_of(own)


def test_scans_are_cut_as_those_of_the_run(tmp_path):
    for number in range(4):
        write_scan(tmp_path / f"own/{number}.nii.gz", number, lesion=16 * (number == 3) or None)
        write_scan(tmp_path / f"site/{number}.nii.gz", number, lesion=16 * (number == 3) or None)
    data = data_config(tmp_path / "own", "nifti", volume__spacing=2.0)
    own = DataSet(data)
    split = read_site(Site(str(tmp_path / "site")), data).tests["site"]
    # All scans in the root are tested, also those without a mask.
    assert {name.partition(".")[0] for name in split.groups} == set("0123")
    assert split.positions is None
    rows = [place for place, group in enumerate(split.groups) if group.startswith("3")]
    tested = own.split("test")
    expected = [place for place, group in enumerate(tested.groups) if group.startswith("3")]
    np.testing.assert_array_equal(split.images[rows], tested.images[expected])
    np.testing.assert_array_equal(split.labels[rows], tested.labels[expected])
    (tmp_path / "site/3_mask.nii.gz").unlink()
    with pytest.raises(UserError, match="no scan has a mask beside it.*use --mode=score"):
        read_site(Site(str(tmp_path / "site")), data)


def test_scans_of_a_run_on_a_published_data_set(tmp_path):
    """They have its cutting and depth; the folders of the site are those of any user."""
    for place, lesion in (("good/a", None), ("tumour/b", 16)):
        write_scan(tmp_path / f"site/{place}.nii.gz", 1, lesion=lesion)
    data = data_config(
        "", "hcp", volume__slices=(4, 9), volume__spacing=1.0, volume__field_of_view=16.0
    )
    split = read_site(Site(str(tmp_path / "site")), data).tests["site"]
    assert split.images.dtype == np.uint16
    assert split.images.shape[1:] == (SIZE, SIZE, 1)
    assert split.labels.sum() == 1  # one slice of b is marked
    data.root = str(tmp_path / "site")
    with pytest.raises(UserError, match="--test.root=.*: lies in the run's own data"):
        read_site(Site(str(tmp_path / "site/tumour"), label="b"), data)


def test_scans_of_a_run_on_embedded_brains(tmp_path):
    """They are read as `--mode=score` reads them, and the lesion labels its slices."""
    root = tmp_path / "site"
    for folder in ("good", "tumour"):
        (root / folder).mkdir(parents=True)
    shutil.copy(template.template_path("t1"), root / "good/a.nii.gz")
    brain = nib.load(root / "good/a.nii.gz")
    voxels, marked = brain.get_fdata(dtype=np.float32), np.zeros(brain.shape, np.uint8)
    x, y, z = (round(voxel) for voxel in template.CENTRE_VOXEL)
    marked[x - 8 : x + 9, y - 8 : y + 9, z - 8 : z + 9] = 1
    # Elsewhere, so that it is shifted together with its mask.
    affine = brain.affine.copy()
    affine[:3, 3] += (0, 40, 0)
    nib.save(nib.Nifti1Image(np.where(marked, 0.9, 1) * voxels, affine), root / "tumour/b.nii.gz")
    nib.save(nib.Nifti1Image(marked, affine), root / "tumour/b_mask.nii.gz")
    data = data_config("", "icbm_synth", image_size=64)
    site = read_site(Site(str(root)), data)
    assert site.data_set == "nifti"
    split = site.tests["site"]
    good = [place for place, group in enumerate(split.groups) if group.startswith("good")]
    expected = read_files(root / "good/a.nii.gz", data)
    np.testing.assert_array_equal(split.images[good], expected.images)
    assert split.images.dtype == np.uint8 and not split.labels[good].any()
    # The middle of the field of view: half a slice distance (3.47 mm) of tolerance at each end.
    num_anomalous = int(split.labels.sum())
    assert 3 <= num_anomalous <= 6
    middle = split.masks[split.labels == 1][num_anomalous // 2].astype(bool)
    rows, columns = np.nonzero(middle)
    assert abs(rows.mean() - 31.5) < 3 and abs(columns.mean() - 31.5) < 1
    with pytest.raises(UserError, match=r"'icbm_synth' takes prepared images or scans \(--test.na"):
        read_site(Site(str(root), "folder"), data)


def test_classes_in_the_root_and_their_masks(tmp_path, capsys):
    root = write_classes(tmp_path / "site")
    for number in range(2):
        write_mask(root / f"ground_truth/crack/{number}.png")
    (root / "crack/notes.txt").write_text("x")
    split = read_site(Site(str(root)), data_config("elsewhere")).tests["site"]
    assert split.labels.sum() == 2 and split.masks.any(axis=(1, 2)).sum() == 2
    assert "1 file is not read: 1 .txt" in capsys.readouterr().err
    write_image(root / "loose.png")
    with pytest.raises(UserError, match="loose.png: lies beside the folders of the classes"):
        read_site(Site(str(root)), data_config("elsewhere"))


def test_folders_that_name_no_class_give_no_labels(tmp_path):
    for number in range(2):
        write_grey(tmp_path / f"site/P{number}/x.png", number)
    with pytest.raises(UserError, match=r"--test.root '.*/site': its folders give no labels"):
        read_site(Site(str(tmp_path / "site")), data_config("elsewhere"))
    changes = {"normal_classes": ("P0",)}
    split = read_site(Site(str(tmp_path / "site"), changes=changes), data_config("x")).tests["site"]
    assert labels_of(split) == {"P0/x.png": 0, "P1/x.png": 1}


@pytest.mark.parametrize("folder", ["site", "site/test"])
def test_a_listed_class_that_a_site_lacks(tmp_path, folder):
    """Classes that are listed for the run need not be at the site."""
    write_classes(tmp_path / folder)
    root, data = str(tmp_path / "site"), data_config("x", normal_classes=("good", "no_tumor"))
    assert read_site(Site(root), data).tests["site"].labels.any()
    with pytest.raises(UserError, match="--test.normal_classes: 'god' .*did you mean 'good'"):
        read_site(Site(root, changes={"normal_classes": ("god",)}), data)


def test_good_at_a_site_is_no_anomaly_if_the_run_lists_other_words(tmp_path):
    """The remedy lists only classes that the site has."""
    write_classes(tmp_path / "site/test")
    root, data = str(tmp_path / "site"), data_config("x", normal_classes=("ok",))
    with pytest.raises(UserError, match="test/good: .*; set --test.normal_classes=good, or"):
        read_site(Site(root), data)
    split = read_site(Site(root, changes={"normal_classes": ("good",)}), data).tests["site"]
    assert {name.split("/")[1]: label for name, label in labels_of(split).items()} == {
        "good": 0, "crack": 1,
    }  # fmt: skip


def test_fields_that_data_do_not_use_are_refused(tmp_path):
    np.savez(tmp_path / "b.npz", image=np.zeros((1, SIZE, SIZE)), label=np.zeros(1))
    site = Site(str(tmp_path / "b.npz"), changes={"group_pattern": "P"})
    with pytest.raises(UserError, match="--test.group_pattern: has no effect on data set 'npz', o"):
        read_site(site, data_config("elsewhere"))


def test_each_test_split_of_a_site_has_a_name(tmp_path, capsys):
    root = write_classes(tmp_path / "site")
    lines = ["path,label,split", "good/0.png,0,test_a", "crack/0.png,1,test_b"]
    (root / "list.csv").write_text("\n".join([*lines, "good/1.png,0,train"]))
    site = Site(str(root / "list.csv"), calibrates=True)
    splits = read_site(site, data_config("elsewhere"))
    assert [*splits.tests] == ["list_a", "list_b"]
    assert splits.normals.ids == ("good/1.png",)
    assert "left out" not in capsys.readouterr().out
    read_site(Site(str(root / "list.csv")), data_config("elsewhere"))
    note = "1 files of train are left out, as only test splits are evaluated; .* --test.calibrate="
    assert re.search(note, capsys.readouterr().out)
    (root / "list.csv").write_text("path,label,split\ngood/1.png,0,train")
    with pytest.raises(UserError, match="has no test split, only train; put labelled images"):
        read_site(site, data_config("elsewhere"))


def test_0_and_1_are_labels_beside_the_normal_classes_of_the_run(tmp_path):
    root = write_classes(tmp_path / "site")
    (root / "list.csv").write_text("path,label\ngood/0.png,0\ncrack/0.png,1\n")
    data = data_config("elsewhere", normal_classes=("healthy",))
    assert read_site(Site(str(root / "list.csv")), data).tests["list"].labels.tolist() == [0, 1]
    data.normal_classes = ("1", "2")  # grades
    assert read_site(Site(str(root / "list.csv")), data).tests["list"].labels.tolist() == [1, 0]


def test_a_table_may_leave_its_folder_only_if_the_user_says_so(tmp_path):
    root = write_classes(tmp_path / "site")
    lines = ["path,label", f"{root / 'good/0.png'},0", f"{root / 'crack/0.png'},1"]
    table = tmp_path / "tables/list.csv"
    table.parent.mkdir()
    table.write_text("\n".join(lines))
    data = data_config("elsewhere", allow_outside_root=True)  # the run's own table may
    with pytest.raises(UserError, match="set --test.allow_outside_root=True"):
        read_site(Site(str(table)), data)
    site = Site(str(table), changes={"allow_outside_root": True})
    assert len(read_site(site, data).tests["list"]) == 2


def test_archives(tmp_path):
    images = np.random.default_rng(0).random((3, SIZE, SIZE), np.float32)
    file = tmp_path / "b.npz"
    np.savez(file, image=images, label=np.array([0, 1, 1]))
    for name in ("npz", "icbm_synth", "folder"):
        split = read_site(Site(str(file)), data_config("", name)).tests["b"]
        np.testing.assert_array_equal(split.images[..., 0], images)
    folder = tmp_path / "c"
    folder.mkdir()
    shutil.copy(file, folder / "test_x.npz")
    assert [*read_site(Site(str(folder)), data_config("", "npz")).tests] == ["c_x"]
    np.savez(file, image=images)
    with pytest.raises(UserError, match="has no array 'label' .*use --mode=score"):
        read_site(Site(str(file)), data_config("", "npz"))
    with pytest.raises(UserError, match="a run on 'npz' takes prepared images; give an .npz"):
        read_site(Site(str(folder), "folder"), data_config("", "npz"))
    np.savez(file, image=images[:, :8, :8], label=np.array([0, 1, 1]))
    with pytest.raises(UserError, match=r"b: .*\(8, 8, 1\)"):
        read_site(Site(str(file)), data_config("", "npz"))


@pytest.mark.parametrize(
    ("root", "label", "name"),
    [
        ("Klinik Süd (2)/", "", "Klinik_S_d_2"),
        ("b/list.csv", "", "list"),
        ("b/scan.v1", "", "scan.v1"),
        ("b", "x-1.y", "x-1.y"),
    ],
)
def test_names_of_evaluations(tmp_path, root, label, name):
    place = tmp_path / root
    place.parent.mkdir(exist_ok=True)
    place.touch() if root.endswith(".csv") else place.mkdir(exist_ok=True)
    assert Site(str(place), label=label).name == name


@pytest.mark.parametrize("label", ["", ".x", "a/b", "Test", "train", "ü", "x" * 81, "-x"])
def test_names_that_are_not_usable(tmp_path, label):
    (tmp_path / "test").mkdir()
    with pytest.raises(UserError, match="--test.as: '"):
        _ = Site(str(tmp_path / "test"), label=label).name


# --- `config.data.test`: the other data set need not have train.


def test_the_other_test_set_of_a_config_needs_only_test_images(mvtec, tmp_path_factory):
    site = write_classes(tmp_path_factory.mktemp("site"))
    table = site / "list.csv"
    table.write_text("path,label,split\ngood/0.png,0,test\ncrack/0.png,1,test\n")
    data = data_config(mvtec, test__name="folder", test__root=str(table))
    assert DataSet(data).split("test_folder").labels.tolist() == [0, 1]
    # Nothing is drawn: without the column, all rows are tested.
    table.write_text("path,label\ngood/0.png,0\ngood/1.png,0\ncrack/0.png,1\n")
    assert DataSet(data).split("test_folder").labels.tolist() == [0, 0, 1]
    table.unlink()
    data.test.root = str(site)
    assert len(DataSet(data).split("test_folder")) == 4
    (site / "test").mkdir()
    for name in ("good", "crack"):
        (site / name).rename(site / "test" / name)
    assert len(DataSet(data).split("test_folder")) == 4
    images = np.random.default_rng(0).random((2, SIZE, SIZE), np.float32)
    np.savez(site / "test_x.npz", image=images, label=np.array([0, 1]))
    data.test.name = "npz"
    assert len(DataSet(data).split("test_npz_x")) == 2

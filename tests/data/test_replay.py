"""Images that are scored later are prepared bit-identically to training images."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from user_files import SIZE, data_config, write_image, write_scan

from jaxad.data.replay import find_items, prepare_pixels, read_files, read_normals, read_rows_of
from jaxad.data.sources import DataSet
from jaxad.errors import DataError, UserError


def test_images_from_files_from_pixels_and_from_the_data_set_are_the_same(mvtec):
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 255, (30, 20), np.uint8)
        Image.fromarray(pixels).save(mvtec / f"train/good/{number:02d}.png")
    for square in ("pad", "crop", "stretch"):
        for intensity in ("range", "zscore", "percentile"):
            data = data_config(mvtec, preprocess__square=square, preprocess__intensity=intensity)
            split = DataSet(data).split("train")
            path = mvtec / split.ids[4]
            alone = read_files(path, data)
            assert alone.ids == (path.name,)
            np.testing.assert_array_equal(alone.images[0], split.images[4])
            pixels = np.asarray(Image.open(path))
            np.testing.assert_array_equal(prepare_pixels(pixels, data, None), alone.images)


def test_scans_from_files_from_voxels_and_from_the_data_set_are_the_same(tmp_path):
    for number in range(3):
        write_scan(tmp_path / f"train/good/{number}.nii.gz", number)
    data = data_config(tmp_path, "nifti", volume__spacing=2.0, volume__slices=(1, -1))
    split = DataSet(data).split("train")
    path = tmp_path / split.groups[0]
    own = np.array(split.groups) == split.groups[0]
    alone = read_files(path, data)
    np.testing.assert_array_equal(alone.images, split.images[own])
    np.testing.assert_array_equal(alone.positions, split.positions[own])
    image = nib.load(path)
    pixels = prepare_pixels(np.asarray(image.dataobj), data, image.affine)
    np.testing.assert_array_equal(pixels, alone.images)
    # The same scan stored upside down, and said so, is the same scan.
    flipped = np.asarray(image.dataobj)[:, :, ::-1]
    affine = np.diag([1.0, 1.0, -1.0, 1.0]) + np.array([[0, 0, 0, 0]] * 4)
    np.testing.assert_array_equal(prepare_pixels(flipped, data, affine), alone.images)


def test_files_of_another_kind_are_named_as_such(tmp_path):
    scan, image = write_scan(tmp_path / "a.nii.gz"), write_image(tmp_path / "b.png")
    images, scans = data_config("elsewhere"), data_config("elsewhere", "nifti")
    with pytest.raises(
        UserError, match=r"a.nii.gz: is a NIfTI scan; a run on 'folder' takes image"
    ):
        find_items(scan, images)
    with pytest.raises(UserError, match=r"b.png: is an image .*; a run on 'nifti' takes scans \("):
        find_items(image, scans)
    for name, data, message in (
        ("a.nii.gz", images, "is a NIfTI scan, but the data set holds images (.png"),
        ("b.png", scans, "is an image, but the data set holds scans (.nii, .nii.gz); leave it out"),
    ):
        table = tmp_path / "list.csv"
        table.write_text(f"path\n{name}\n")
        (rows,) = read_rows_of(find_items(table, data), data)
        assert message in rows.error
    image.write_bytes(b"x")
    (rows,) = read_rows_of(find_items(image, images), images)
    assert rows.error.endswith(
        "b.png: not a readable image (cannot identify image file); copy it again or leave it out."
    )


def test_files_of_another_site_have_their_own_group_pattern(mvtec, tmp_path_factory, capsys):
    site = tmp_path_factory.mktemp("site")
    for number in range(4):
        write_image(site / f"n00{number // 2}_s{number}.png", 90 + number)
    data = data_config(mvtec, group_pattern=r"(p\d+)_")
    # Without labels the file of an unknown patient is a patient: nothing stays without a score.
    assert read_files(site, data).groups == tuple(f"n00{n // 2}_s{n}.png" for n in range(4))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"note: {site}: config.data.group_pattern '(p\\d+)_' finds no patient in 4 of 4 " in line
    assert "such as 'n000_s0.png'; each of them counts as a patient of its own" in line
    assert "give --group_pattern or a table with a column group" in line
    (site / "photo.webp").write_bytes(b"RIFF")  # is not read
    find_items(site, data)
    assert "finds no patient in 4 of 4 files, such as 'n000_s0.png'" in capsys.readouterr().err
    (site / "photo.webp").unlink()
    # Calibration counts patients.
    remedy = "in 'n000_s0.png'; give --group_pattern=EXPRESSION .* or --normals=TABLE with a column"
    with pytest.raises(UserError, match=remedy):
        read_normals(site, data)
    with pytest.raises(UserError, match="--group_pattern: 'x' finds no patient .*change it .* or"):
        read_normals(site, data, group_pattern="x")
    with pytest.raises(UserError, match=r"--group_pattern: '\(' is not a valid regular"):
        read_files(site, data, group_pattern="(")
    groups = ("n000", "n000", "n001", "n001")
    assert read_normals(site, data, group_pattern=r"(n\d+)_").groups == groups
    assert read_files(site, data, group_pattern=r"(n\d+)_").groups == groups
    assert read_files(site / "n000_s0.png", data, group_pattern=r"(n\d+)_").groups == ("n000",)
    table = site / "site.csv"
    table.write_text("path\nn000_s0.png\nn000_s1.png\n")
    assert read_normals(table, data, group_pattern=r"(n\d+)_").groups == groups[:2]
    assert capsys.readouterr().err == ""


def test_a_group_pattern_without_effect_is_refused(mvtec, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    np.savez(site / "a.npz", image=np.random.default_rng(0).random((2, SIZE, SIZE), np.float32))
    with pytest.raises(UserError, match="--group_pattern: has no effect on '.*a.npz', whose array"):
        read_normals(site / "a.npz", data_config(mvtec), group_pattern="P")
    with pytest.raises(UserError, match="--group_pattern: has no effect on a run on 'oct2017'"):
        read_files(mvtec / "train", data_config("", "oct2017"), group_pattern="P")


def test_normals_from_a_folder_and_a_table(mvtec, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    for number in range(4):
        write_image(site / f"p{number // 2}/{number}.png", 90 + number)
    data = data_config(mvtec, group_pattern=r"p\d|t.*")
    split = read_normals(site, data)
    assert split.groups == ("p0", "p0", "p1", "p1") and not split.labels.any()
    table = site / "site.csv"
    table.write_text("path,label,group\np0/0.png,0,ann\np0/1.png,0,ann\np1/2.png,0,bob\n")
    assert sorted(read_normals(table, data).groups) == ["ann", "ann", "bob"]
    table.write_text("path,label,group\np0/0.png,0,ann\np0/1.png,1,eve\np1/2.png,0,bob\n")
    message = (
        "image 'p0/1.png' is labelled anomalous.* leave it out of --normals, whatever its split"
    )
    with pytest.raises(UserError, match=message):
        read_normals(table, data)


def test_unreadable_input_is_named(mvtec, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    data = data_config(mvtec)
    with pytest.raises(UserError, match="holds no images .*; name a folder that does"):
        read_files(empty, data)
    with pytest.raises(UserError, match="no such file"):
        read_files(empty / "x.png", data)
    data.name = "npz"
    with pytest.raises(UserError, match="a run on 'npz' takes prepared images"):
        read_files(empty, data)
    with pytest.raises(UserError, match=r"images: have shape \(3,\); give \[H, W\]"):
        prepare_pixels(np.zeros(3), data_config(mvtec), None)
    with pytest.raises(UserError, match=r"scan: has shape \(3, 3\); give one scan \[X, Y, Z\]"):
        prepare_pixels(np.zeros((3, 3)), data_config(mvtec, "nifti"), None)


def test_numbers_of_any_type_and_affines_of_another_shape(tmp_path):
    for number in range(3):
        write_scan(tmp_path / f"train/good/{number}.nii.gz", number)
    data = data_config(tmp_path, "nifti")
    voxels = np.zeros((16, 16, 16), np.int64)
    voxels[2:14, 2:14, 2:14] = np.random.default_rng(0).integers(100, 200, (12, 12, 12))
    expected = prepare_pixels(voxels.astype(np.int16), data, None)
    for dtype in (np.int64, np.uint64, np.float16, np.float32):
        np.testing.assert_array_equal(prepare_pixels(voxels.astype(dtype), data, None), expected)
    with pytest.raises(UserError, match=r"scan: is int64 with an affine of shape \(3, 3\)"):
        prepare_pixels(voxels, data, np.eye(3))


@pytest.mark.parametrize(
    ("dtype", "intensity"),
    [
        *((dtype, "range") for dtype in ("<u2", ">u2", ">f4", ">f8")),
        *((dtype, "zscore") for dtype in ("<u2", ">u2", ">i2", ">i4", ">f4", ">f8")),
        *((dtype, "percentile") for dtype in (">u2", ">i4", ">f8")),
    ],
)
def test_scans_of_any_byte_order_are_the_same(tmp_path, dtype, intensity):
    voxels = np.zeros((16, 16, 16), "<u2")
    voxels[2:14, 2:14, 2:14] = np.random.default_rng(0).integers(100, 30000, (12, 12, 12))
    data = data_config("", "nifti", preprocess__intensity=intensity)
    # Floats are in [0, 1], where their range is kept.
    scale = 65535 if intensity == "range" and "f" in dtype else 1
    written = voxels / scale if scale > 1 else voxels
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(np.dtype(dtype))
    image = nib.Nifti1Image(written.astype(dtype), np.eye(4), header)
    nib.save(image, tmp_path / "a.nii.gz")
    expected = prepare_pixels(voxels, data, None).astype(int)
    for images in (
        read_files(tmp_path / "a.nii.gz", data).images,
        prepare_pixels(written.astype(dtype), data, np.eye(4).astype(">f8")),
    ):
        np.testing.assert_allclose(images.astype(int), expected, atol=1)


def test_a_run_on_two_modalities_takes_both(tmp_path):
    data = data_config(tmp_path, "brats2017", channels=2, modality="t1,t2")
    data.volume.slices, data.volume.field_of_view = (0, 16), 16.0
    rng = np.random.default_rng(0)
    both = np.zeros((16, 16, 16, 2))
    both[2:14, 2:14, 2:14] = rng.uniform(1, 2, (12, 12, 12, 2))
    images = prepare_pixels(both, data, None)
    assert images.shape == (12, SIZE, SIZE, 2) and (images[..., 0] != images[..., 1]).any()
    with pytest.raises(UserError, match=r"scan: has shape .*; give \[X, Y, Z, 2\], t1,t2"):
        prepare_pixels(both[..., 0], data, None)
    with pytest.raises(UserError, match="a run on the modalities t1,t2 cannot read files"):
        read_files(tmp_path, data)


def test_patients_are_found_in_names_like_those_of_a_published_data_set(tmp_path):
    for name in ("NORMAL-7-1", "NORMAL-7-2", "NORMAL-8-1"):
        write_image(tmp_path / f"{name}.png")
    split = read_normals(tmp_path, data_config("", "oct2017"))
    assert split.groups == ("7", "7", "8") and split.images.dtype == np.uint8


def test_the_run_s_own_data_are_refused_as_normals(mvtec):
    data = data_config(mvtec)
    for place in ("", "train/good", "test/good"):
        with pytest.raises(UserError, match="lies in the run's own data.*none of its splits"):
            read_normals(mvtec / place, data)


def test_normals_that_hold_masks_are_refused(tmp_path):
    data = data_config(tmp_path / "mine")
    write_image(tmp_path / "site/good/0.png")
    (tmp_path / "site/ground_truth").mkdir()
    with pytest.raises(UserError, match="holds ground_truth/, so it does not hold only normal"):
        read_normals(tmp_path / "site", data)
    scans = tmp_path / "scans"
    for number in range(3):
        write_scan(scans / f"{number}.nii.gz", number, lesion=16 if number == 1 else None)
    with pytest.raises(UserError, match=r"1_mask.nii.gz: marks anomalous pixels of '1.nii.gz'"):
        read_normals(scans, data_config(tmp_path / "mine", "nifti"))


@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_in_colour_is_one_image(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    data = data_config("", channels=channels)
    assert prepare_pixels(pixels, data, None).shape == (1, 16, 16, channels)
    assert prepare_pixels(np.stack([pixels] * 2), data, None).shape == (2, 16, 16, channels)


@pytest.mark.parametrize("intensity", ["range", "zscore"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_image_that_is_constant_once_it_is_prepared(mvtec, intensity, dtype):
    pixels = np.full((20, 40), 7, dtype)
    pixels[:, :4] = 200  # outside of the middle
    Image.fromarray(pixels).save(mvtec / "test/good/wide.png")
    changes = {"preprocess__square": "crop", "preprocess__intensity": intensity}
    if intensity == "zscore":  # of the fixture's images, `otsu` would leave a single pixel
        changes["preprocess__foreground"] = "all"
    with pytest.raises(DataError, match=r"test/good/wide.png: has only one value .*square=crop"):
        DataSet(data_config(mvtec, **changes)).split("test")
    data = data_config(mvtec, **changes, on_error="skip")
    assert "test/good/wide.png" not in DataSet(data).split("test").ids
    with pytest.raises(DataError, match="wide.png: has only one value after"):
        read_files(mvtec / "test/good/wide.png", data_config("", **changes))
    # The suggested remedy works.
    changes["preprocess__square"] = "pad"
    assert "test/good/wide.png" in DataSet(data_config(mvtec, **changes)).split("test").ids

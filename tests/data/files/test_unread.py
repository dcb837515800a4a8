"""Files in a data folder that are not read are reported."""

import shutil

import numpy as np
import pytest
from PIL import Image
from user_files import data_config, write_image, write_mask, write_scan

from jaxad.data.files.unread import find_unread
from jaxad.data.replay import find_items, read_files, read_normals
from jaxad.data.sources import DataSet
from jaxad.errors import DataError, UserError


def _touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("something")


# --- What is read.


@pytest.mark.parametrize("suffix", [".pgm", ".ppm", ".pnm", ".bmp", ".jfif", ".jpe", ".PGM"])
def test_images_of_simple_formats_are_read(mvtec, suffix):
    pixels = np.tile(np.arange(20, dtype=np.uint8), (20, 1))
    image = Image.fromarray(pixels)
    written = {".ppm": "PPM", ".bmp": "BMP"}.get(suffix, "JPEG" if "j" in suffix else "PPM")
    image = image.convert("RGB") if suffix == ".ppm" else image
    image.save(mvtec / f"test/good/new{suffix}", format=written, quality=100)
    data = data_config(mvtec, image_size=20)
    split = DataSet(data).split("test")
    own = split.images[split.ids.index(f"test/good/new{suffix}"), ..., 0]
    np.testing.assert_allclose(own.astype(int), pixels, atol=2 if written == "JPEG" else 0)


def test_pgm_and_pbm_take_their_whole_range(mvtec):
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20)
    head = b"P5\n20 20\n"
    for name, most, dtype in (("deep", 65535, ">u2"), ("ten_bits", 1023, ">u2")):
        path = mvtec / f"test/good/{name}.pgm"
        path.write_bytes(head + f"{most}\n".encode() + pixels.astype(dtype).tobytes())
    Image.fromarray(pixels % 3 == 0).save(mvtec / "test/good/bits.pbm")
    split = DataSet(data_config(mvtec, image_size=20)).split("test")
    own = {name: split.images[split.ids.index(name), ..., 0] for name in split.ids}
    np.testing.assert_array_equal(own["test/good/deep.pgm"], pixels)
    np.testing.assert_allclose(own["test/good/ten_bits.pgm"], pixels * (65535 / 1023), atol=1)
    np.testing.assert_array_equal(own["test/good/bits.pbm"], 65535 * (pixels % 3 == 0))


def test_colour_that_would_lose_its_depth_is_refused(mvtec):
    pixels = np.arange(1200, dtype=">u2").reshape(20, 20, 3) * 50
    (mvtec / "test/good/deep.ppm").write_bytes(b"P6\n20 20\n65535\n" + pixels.tobytes())
    with pytest.raises(DataError, match=r"deep.ppm: PNM with 16-bit colour.*convert it to PNG"):
        DataSet(data_config(mvtec)).split("test")


# --- What is reported.


def test_files_are_counted_by_suffix_and_hidden_ones_are_not(mvtec):
    used = list(mvtec.rglob("*.png"))
    assert not find_unread(mvtec, "image", used)
    _touch(mvtec, "notes.txt", "train/a.TXT", "test/crack/x.json", ".hidden.dcm", "more/README")
    _touch(mvtec, "LICENSE", "Thumbs.db", ".cache/x.gif", "test/unknown")
    unread = find_unread(mvtec, "image", used)
    assert unread.counts == {".txt": 2, "without suffix": 1, ".json": 1}
    assert not unread.others
    assert str(unread).startswith(f"{mvtec}: 4 files are not read: 2 .txt, 1 ")


def test_names_with_dots_do_not_fill_the_line(mvtec):
    used = list(mvtec.rglob("*.png"))
    _touch(mvtec, *(f"1.2.840.{number}" for number in range(30)))
    assert find_unread(mvtec, "image", used).counts == {"without suffix": 30}
    _touch(mvtec, *(f"of.patient{number}" for number in range(20)))
    assert find_unread(mvtec, "image", used).listed.endswith(", 9 others")  # 12 of 21


def test_what_holds_no_data_is_a_note(mvtec, capsys):
    DataSet(data_config(mvtec))
    assert capsys.readouterr().err == ""
    _touch(mvtec, "notes.txt", "train/good/00.json")
    DataSet(data_config(mvtec)).check()
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "note: " in message and "2 files are not read: 1 .txt, 1 .json; the first: 'n" in message


def test_images_in_other_places_are_reported(mvtec, capsys):
    write_image(mvtec / "0.png")
    write_image(mvtec / "ground_truth/crack/7_mask.png")
    DataSet(data_config(mvtec))
    assert "2 files are not read: 2 .png" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["logo.gif", "a.dcm", "more/x.svs", "y.png"])
def test_files_of_folders_that_are_passed_over_are_counted_there(mvtec, name, capsys):
    _touch(mvtec / "docs", name, "z.txt")
    DataSet(data_config(mvtec)).check()
    message = capsys.readouterr().err
    assert "ignored 'docs' (2 files)" in message and message.count("\n") == 1


def test_files_of_folders_beside_scans_are_counted_there(tmp_path, capsys):
    for number in range(4):
        write_scan(tmp_path / f"{number}.nii.gz", number, lesion=16 if number == 0 else None)
    _touch(tmp_path / "raw", "0.mha", "1.mha", "2.mha")
    DataSet(data_config(tmp_path, "nifti"))
    message = capsys.readouterr().err
    assert "ignored 'raw' (3 files)" in message and message.count("\n") == 1


def test_masks_of_other_formats_end_the_run(mvtec):
    shutil.rmtree(mvtec / "ground_truth")
    _touch(mvtec / "ground_truth/crack", "0_mask.gif", "1_mask.gif")
    with pytest.raises(DataError, match="2 files are not read: 2 .gif"):
        DataSet(data_config(mvtec))


@pytest.mark.parametrize(
    ("names", "listed", "converted"),
    [
        (["a.dcm"], "1 file is not read: 1 .dcm", ".dcm"),
        (
            ["a.webp", "b.WEBP", "c.gif"],
            "3 files are not read: 2 .webp, 1 .gif",
            ".webp, .gif",
        ),
        (["a.svs", "b.txt"], "2 files are not read: 1 .svs, 1 .txt", ".svs"),
        (["a.mha"], "1 file is not read: 1 .mha", ".mha"),
    ],
)
def test_images_of_other_formats_end_the_run(mvtec, capsys, names, listed, converted):
    _touch(mvtec / "train/good", *names)
    first = f"{listed}; the first: 'train/good/{names[0]}'"
    with pytest.raises(DataError) as raised:
        DataSet(data_config(mvtec))
    assert str(raised.value) == (
        f"{mvtec}: {first}; convert {converted} to PNG and remove the originals, or leave them out "
        "with --config.data.on_error=skip."
    )
    DataSet(data_config(mvtec, on_error="skip")).check()
    assert first in capsys.readouterr().err


@pytest.mark.parametrize(
    "suffix", [".hdr", ".mha", ".nrrd", ".mgz", ".nii.bz2", ".nii.xz", ".NII.ZST", ".img"]
)
def test_scans_of_other_formats_end_the_run(tmp_path, capsys, suffix):
    for number in range(4):
        write_scan(tmp_path / f"{number}.nii.gz", number, lesion=16 if number == 0 else None)
    _touch(tmp_path, "0.json", "0.mat", "0.dcm")  # files that often lie beside scans
    DataSet(data_config(tmp_path, "nifti"))
    assert "3 files are not read: 1 .dcm, 1 .json, 1 .mat" in capsys.readouterr().err
    _touch(tmp_path, f"9{suffix}")
    expected = (
        rf"1 {suffix.lower()}.*; the first: '9{suffix}'; convert {suffix.lower()} to NIfTI \(.nii"
    )
    with pytest.raises(DataError, match=expected):
        DataSet(data_config(tmp_path, "nifti"))


def test_where_nothing_is_read_other_formats_are_named(mvtec, tmp_path_factory):
    shutil.rmtree(mvtec / "train/good")
    _touch(mvtec / "train/good", "a.dcm", "b.dcm", "c.svs")
    message = (
        r"train: holds no images \(.*\), but 2 .dcm, 1 .svs \(convert .dcm, .svs to PNG\); expected"
    )
    with pytest.raises(UserError, match=message):
        DataSet(data_config(mvtec))
    scans = tmp_path_factory.mktemp("scans")
    _touch(scans, "a.mha", "b.mha")
    with pytest.raises(UserError, match=r"no folder train, but 2 .mha \(convert .mha to NIfTI"):
        DataSet(data_config(scans, "nifti"))
    for read in (read_files, read_normals):
        with pytest.raises(UserError, match=r"holds no scans.*but 2 .mha|[ab].mha: is in a format"):
            read(scans, data_config(mvtec, "nifti"))


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (["x_seg.nii.gz"], "but 1 that is named like a mask: 'x_seg.nii.gz'; add some or remove"),
        (["x_LABELS.nii"], "but 1 that is named like a mask: 'x_LABELS.nii'; add some or"),
        (
            ["x_seg.nii", "a.mha", "b.txt"],
            r"but 1 that .*: 'x_seg.nii' and 1 .mha, 1 .txt \(convert .mha to NIfTI .*\); add some",
        ),
    ],
)
def test_a_class_that_holds_masks_alone(tmp_path, names, listed):
    for number in range(4):
        write_scan(tmp_path / f"train/good/{number}.nii.gz", number)
    for name in names:
        _touch(tmp_path / "test/tumour", name)
    with pytest.raises(
        UserError, match=r"test/tumour: holds no scans \(.nii, .nii.gz\), " + listed
    ):
        DataSet(data_config(tmp_path, "nifti"))


def test_arrays_of_other_formats(tmp_path, capsys):
    for seed, name in enumerate(("train", "val")):
        images = np.random.default_rng(seed).integers(0, 255, (3, 16, 16), np.uint8)
        np.savez(tmp_path / f"{name}.npz", image=images)
    _touch(tmp_path, "how.md", "png/0.png")
    DataSet(data_config(tmp_path, "npz"))
    assert "1 file is not read: 1 .md; the first: 'how.md'" in capsys.readouterr().err
    np.save(tmp_path / "test.npy", images)
    with pytest.raises(
        DataError, match=r"1 .npy, 1 .md; the first: 'test.npy'; convert .npy to .npz"
    ):
        DataSet(data_config(tmp_path, "npz"))


# --- Files to score.


def test_what_is_not_scored_is_reported(mvtec, tmp_path_factory, capsys):
    new = tmp_path_factory.mktemp("new")
    write_image(new / "0.png")
    _touch(new, "a.dcm", "b.txt")
    items = find_items(new, data_config(mvtec))
    # A file in another format is listed as one that cannot be scored.
    assert [item.id for item in items] == ["0.png", "a.dcm"]
    assert "2 files are not read: 1 .dcm, 1 .txt; the first: 'a.dcm'" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"a.dcm: is in a format that is not read; convert it to P"):
        read_files(new, data_config(mvtec))
    with pytest.raises(DataError, match="2 files are not read"):
        read_normals(new, data_config(mvtec))
    read_normals(new, data_config(mvtec, on_error="skip"))


def test_masks_that_are_left_out_are_not_counted_again(tmp_path, capsys):
    for number in range(2):
        write_scan(tmp_path / f"{number}.nii.gz", number, lesion=16)
    assert len(find_items(tmp_path, data_config("", "nifti"))) == 2
    message = capsys.readouterr().err
    assert "left out 2 of 4 files, which are masks" in message and message.count("\n") == 1


def test_masks_of_images_to_score_are_not_counted_again(tmp_path, capsys):
    for number in range(2):
        write_image(tmp_path / f"{number}.png")
    write_mask(tmp_path / "0_mask.PNG")
    _touch(tmp_path, "a.gif", "b.txt", "._0.png", "__MACOSX/c.gif")
    items = find_items(tmp_path, data_config("elsewhere"))
    assert [item.id for item in items] == ["0.png", "1.png", "a.gif"]
    masks, unread = capsys.readouterr().err.splitlines()
    assert "left out 1 of 4 files, which are masks" in masks
    assert "2 files are not read: 1 .gif, 1 .txt; the first: 'a.gif'" in unread

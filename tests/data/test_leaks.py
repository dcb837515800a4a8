"""Images and patients that two splits have in common are found before training."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from user_files import data_config, write_image, write_scan

from jaxad.data.leaks import linked_patients, plain_name, spelt_alike
from jaxad.data.sources import DataSet
from jaxad.errors import UserError
from jaxad.types import Split


@pytest.mark.parametrize(
    ("one", "other", "is_one"),
    [
        ("7", "07", True),
        ("7", "7.0", True),
        ("0", "00", True),
        ("P07", "p7", True),
        ("patient 3", "Patient3", True),
        ("\uff17", "7", True),  # a full-width digit
        ("7", "70", False),
        ("1 2", "12", False),
        ("1.5", "1.05", False),
        ("7.0", "7.01", False),
        ("a", "b", False),
    ],
)
def test_spellings_of_one_name(one, other, is_one):
    assert (plain_name(one) == plain_name(other)) == is_one
    assert spelt_alike({one}, {other}) == ([(one, other)] if is_one else [])


def test_a_name_in_both_splits_is_not_a_spelling():
    assert spelt_alike({"7", "8"}, {"7", "9"}) == []


def test_copies_are_found_in_splits_of_another_dtype(mvtec):
    with Image.open(mvtec / "train/good/03.png") as image:
        image.save(mvtec / "test/good/again.png")
    deep = np.random.default_rng(0).integers(0, 65535, (20, 20), np.uint16)
    Image.fromarray(deep).save(mvtec / "test/good/deep.png")  # all of the split becomes 16-bit
    with pytest.raises(UserError, match="'test/good/again.png' of 'test' is 'train/good/03.png'"):
        DataSet(data_config(mvtec)).check()


def test_inspect_lists_spellings(tmp_path, look):
    for seed, name in enumerate(("train", "val", "test_x")):
        images = np.random.default_rng(seed).integers(1, 255, (3, 32, 32), np.uint8)
        groups = np.array([{"train": "P07", "test_x": "p7"}.get(name, "v"), name, name])
        np.savez(tmp_path / f"{name}.npz", image=images, label=np.zeros(3), group=groups)
    code, out, err, _ = look(tmp_path, name="npz")
    assert code == 2 and "leak: 1 patient both in test_x and in train: p7 = P07" in out
    assert "splits leak" in err


def test_inspect_lists_files_that_are_not_read(mvtec, look):
    (mvtec / "notes.txt").write_text("")
    code, _, err, workdir = look(mvtec)
    assert code == 0 and "1 file is not read: 1 .txt" in err
    assert "1 .txt" in (workdir / "inspect.json").read_text()
    (mvtec / "train/good/99.dcm").write_text("")
    code, out, err, _ = look(mvtec)
    assert code == 2 and "train" in out
    assert "error: " in err and "2 files are not read: 1 .dcm, 1 .txt" in err.splitlines()[-1]
    assert look(mvtec, "--config.data.on_error=skip")[0] == 0


# --- Spellings are of patients, not of files.


def _write_table(root, rows, head="path,label,split"):
    for number, row in enumerate(rows):
        write_image(root / row.partition(",")[0], 100 + number)
    (root / "list.csv").write_text("\n".join([head, *rows]))
    return data_config(root / "list.csv")


_ROWS = ("img/1.png,0,train", "img/2.png,0,val", "img/01.png,0,test", "img/3.png,1,test")


def test_paths_of_a_table_are_not_compared_by_spelling(tmp_path):
    DataSet(_write_table(tmp_path, _ROWS)).check()


def test_paths_with_ids_are_not_compared_by_spelling(tmp_path):
    rows = [f"{row},i{number}" for number, row in enumerate(_ROWS)]
    DataSet(_write_table(tmp_path, rows, "path,label,split,id")).check()


def test_paths_of_scans_are_not_compared_by_spelling(tmp_path):
    names = ("S1", "t", "v", "s01", "x")
    splits = ("train", "train", "val", "test", "test")
    for seed, name in enumerate(names):
        write_scan(tmp_path / f"{name}.nii.gz", seed)
    pairs = zip(names, splits, strict=True)
    rows = [f"{name}.nii.gz,0,{split}" for name, split in pairs]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    DataSet(data_config(tmp_path / "list.csv", "nifti")).check()


def test_ids_of_arrays_are_not_compared_by_spelling(tmp_path):
    for seed, (name, first) in enumerate((("train", "P07"), ("val", "v"), ("test_x", "p7"))):
        images = np.random.default_rng(seed).integers(1, 255, (2, 16, 16), np.uint8)
        ids = np.array([first, f"{name}-1"])
        np.savez(tmp_path / f"{name}.npz", image=images, label=np.zeros(2), id=ids)
    DataSet(data_config(tmp_path, "npz")).check()


def test_spellings_of_patients_are_refused(tmp_path):
    patients = ("P07", "a", "p7", "b")
    rows = [f"{row},{patient}" for row, patient in zip(_ROWS, patients, strict=True)]
    data = _write_table(tmp_path, rows, "path,label,split,group")
    with pytest.raises(UserError, match="patient 'P07' of 'train' and patient 'p7' of 'test'"):
        DataSet(data).check()
    data = _write_table(tmp_path, _ROWS)
    data.group_pattern = r"(\d+)\.png"
    with pytest.raises(UserError, match="patient '1' of 'train' and patient '01' of 'test'"):
        DataSet(data).check()


# --- The same image twice.


def test_copies_in_train_and_val_are_refused_until_left_out(mvtec, capsys):
    write_image(mvtec / "val/good/v.png", 160)
    shutil.copy(mvtec / "train/good/03.png", mvtec / "val/good/copy.png")
    shutil.copy(mvtec / "train/good/04.png", mvtec / "train/good/04 again.png")
    shutil.copy(mvtec / "val/good/v.png", mvtec / "test/good/v.png")
    shutil.copy(mvtec / "test/good/0.png", mvtec / "test/good/0 again.png")
    message = "pixel by pixel; remove one of the two, or .*duplicates=leave_out. --mode=inspect"
    with pytest.raises(UserError, match=message):
        DataSet(data_config(mvtec)).check()
    capsys.readouterr()
    data_set = DataSet(data_config(mvtec, duplicates="leave_out"))
    data_set.check()
    left_out = {"train/good/03.png", "train/good/04.png"}
    names = {f"train/good/{number:02d}.png" for number in range(10)} | {"train/good/04 again.png"}
    assert set(data_set.split("train").ids) == names - left_out  # `04 again` sorts before `04`
    assert data_set.split("val").ids == ("val/good/copy.png",)
    assert len(data_set.split("test")) == 6  # stays whole
    err = capsys.readouterr().err
    assert "note: folder train: 2 images left out as a copy of another one" in err
    assert "note: folder val: 1 image left out as a copy of another one" in err


def test_a_split_of_copies_alone_is_refused(mvtec):
    shutil.copytree(mvtec / "train/good", mvtec / "val/good")
    data = data_config(mvtec, duplicates="leave_out")
    with pytest.raises(UserError, match=r"every image of 'train' is also .* \(test, val\)"):
        DataSet(data).check()


def test_the_draw_of_val_keeps_identical_images_together(mvtec, capsys):
    before = DataSet(data_config(mvtec, val_share=0.5)).split("val").ids
    assert len(before) == 5 and capsys.readouterr() == ("", "")
    # The names, and therefore the draw, stay the same; 2 of 5 drawn patients get copies in train.
    first = next(path for path in sorted((mvtec / "train/good").iterdir()) if
                 f"train/good/{path.name}" not in before)  # fmt: skip
    for name in before[:2]:
        shutil.copy(first, mvtec / name)
    data_set = DataSet(data_config(mvtec, val_share=0.5))
    data_set.check()
    assert data_set.split("val").ids == before[2:]
    assert set(data_set.split("train").ids) > {f"train/good/{first.name}", *before[:2]}
    line = "moved 2 patients drawn for val to train, which has some of the same"
    assert line in capsys.readouterr().out
    # If most of val would move, the patients of train move.
    for name in before[2:]:
        shutil.copy(first, mvtec / name)
    data_set = DataSet(data_config(mvtec, val_share=0.5))
    data_set.check()
    assert data_set.split("val").ids == (*before, f"train/good/{first.name}")


def test_the_draw_of_test_keeps_identical_images_together(tmp_path, capsys):
    """Also with anomalous patients, who are always tested."""
    rows = [f"{n}.png,{int(n > 15)}" for n in range(20)]
    data = _write_table(tmp_path, rows, "path,label")
    data.val_share = 0.25
    data_set = DataSet(data)
    before = {name: data_set.split(name).ids for name in data_set.split_names}
    assert {name: len(ids) for name, ids in before.items()} == {"train": 9, "val": 4, "test": 7}
    linked = {before["train"][0]: "16.png", before["val"][0]: before["train"][0]}
    normal = next(name for name in before["test"] if int(name[:-4]) < 16)
    linked[before["train"][1]] = normal
    for name, copied in linked.items():
        shutil.copy(tmp_path / copied, tmp_path / name)
    capsys.readouterr()
    data_set = DataSet(data)
    data_set.check()
    assert set(data_set.split("test").ids) == {*before["test"], *linked}
    assert len(data_set.split("train")) == 7 and len(data_set.split("val")) == 3
    note = "note: moved 3 patients drawn for train and val to test, which has some of the same"
    assert note in capsys.readouterr().out


def test_a_draw_that_identical_images_connect_is_refused(mvtec):
    for number in range(10):
        (mvtec / f"train/good/{number:02d}.png").rename(mvtec / f"train/good/p{number}_a.png")
        write_image(mvtec / f"train/good/p{number}_edge.png", 3)
    data = data_config(mvtec, group_pattern=r"p\d_|test.*")
    with pytest.raises(UserError, match="pixel by pixel; .* --config.data.duplicates=leave_out"):
        DataSet(data).check()
    data.duplicates = "leave_out"  # the remedy
    data_set = DataSet(data)
    data_set.check()
    assert len(data_set.split("train")) + len(data_set.split("val")) == 11


def test_patients_are_linked_through_others():
    pixels = np.arange(5, dtype=np.uint8).repeat(16).reshape(5, 4, 4, 1)

    def split(images, groups):
        ids = tuple(f"{group}{place}" for place, group in enumerate(groups))
        return Split(pixels[images], np.zeros(len(images), np.int32), ids, tuple(groups))

    val = split([0, 1, 1, 2, 3], "aabbc")  # `b` shares image 1 with `a`
    assert linked_patients(split([0], "t"), val) == {"a", "b"}
    assert linked_patients(split([4], "t"), val) == set()


def test_inspect_lists_every_copy(mvtec, look):
    write_image(mvtec / "val/good/v.png", 160)
    for number in range(5):
        shutil.copy(mvtec / f"train/good/{number:02d}.png", mvtec / f"test/good/again{number}.png")
    shutil.copy(mvtec / "train/good/04.png", mvtec / "train/good/once_more.png")
    shutil.copy(mvtec / "train/good/04.png", mvtec / "test/good/and_again.png")
    code, out, _, workdir = look(mvtec)
    assert code == 2 and "leak: 6 images both in train and in test: " in out
    (leak,) = json.loads((workdir / "inspect.json").read_text())["leaks"]
    assert leak["count"] == 6 and len(leak["examples"]) == 5
    copies = "train/good/04.png = train/good/once_more.png = "
    assert copies + "test/good/again4.png = test/good/and_again.png" in [
        " = ".join(sorted(text.split(" = "), key=lambda name: (name[:2] != "tr", "and_" in name)))
        for text in leak["examples"]
    ]

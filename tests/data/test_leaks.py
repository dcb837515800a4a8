"""What two splits have in common is found whatever its format, and is told before training."""

import numpy as np
import pytest
from PIL import Image
from test_folders import data_config, mvtec  # noqa: F401
from test_inspection import look  # noqa: F401

from jaxad.data.leaks import plain_name, spelt_alike
from jaxad.data.sources import DataSet
from jaxad.errors import UserError


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
def test_names_that_may_be_of_one_patient(one, other, is_one):
    assert (plain_name(one) == plain_name(other)) == is_one
    assert spelt_alike({one}, {other}) == ([(one, other)] if is_one else [])


def test_a_name_in_both_splits_is_no_other_spelling():
    assert spelt_alike({"7", "8"}, {"7", "9"}) == []


def test_an_image_is_the_same_in_a_split_of_another_depth(mvtec):  # noqa: F811 - a fixture
    with Image.open(mvtec / "train/good/03.png") as image:
        image.save(mvtec / "test/good/again.png")
    deep = np.random.default_rng(0).integers(0, 65535, (20, 20), np.uint16)
    Image.fromarray(deep).save(mvtec / "test/good/deep.png")  # all of the split becomes 16-bit
    with pytest.raises(UserError, match="'test/good/again.png' of 'test' is 'train/good/03.png'"):
        DataSet(data_config(mvtec)).check()


def test_inspect_names_spellings(tmp_path, look):  # noqa: F811 - a fixture
    for seed, name in enumerate(("train", "val", "test_x")):
        images = np.random.default_rng(seed).integers(1, 255, (3, 32, 32), np.uint8)
        groups = np.array([{"train": "P07", "test_x": "p7"}.get(name, "v"), name, name])
        np.savez(tmp_path / f"{name}.npz", image=images, label=np.zeros(3), group=groups)
    code, out, err, _ = look(tmp_path, name="npz")
    assert code == 2 and "leak: 1 patient both in test_x and in train: p7 = P07" in out
    assert "splits leak" in err


def test_inspect_tells_what_is_not_read(mvtec, look):  # noqa: F811 - a fixture
    (mvtec / "notes.txt").write_text("")
    code, _, err, workdir = look(mvtec)
    assert code == 0 and "1 file is not read: 1 .txt" in err
    assert "1 .txt" in (workdir / "inspect.json").read_text()
    (mvtec / "train/good/99.dcm").write_text("")
    code, out, err, _ = look(mvtec)
    assert code == 2 and "train" in out
    assert "error: " in err and "2 files are not read: 1 .dcm, 1 .txt" in err.splitlines()[-1]
    assert look(mvtec, "--config.data.on_error=skip")[0] == 0

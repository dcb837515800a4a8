"""DICOM series that all name one patient: the message tells how to separate patients."""

import numpy as np
import pydicom
import pytest
from PIL import Image
from samples import write_series

from jaxad import config as config_lib
from jaxad.data.files.folders import read_folder
from jaxad.data.files.splitting import Splitting
from jaxad.data.sources import DataSet
from jaxad.errors import UserError

REMEDY = "PatientID may in anonymised DICOM files.*config.data.group_pattern"
PATTERN = r"[^/]+$"  # the series' own folder


PLACES = ("train/good/a", "train/good/b", "train/good/c", "test/good/d", "test/bad/e")


def write_data(root, patients):
    """Writes series of one slice with these PatientIDs."""
    for place, patient in zip(PLACES, patients, strict=True):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        folder = write_series(root / place, np.zeros((1, 4, 4), np.uint16))
        for path in folder.iterdir():
            data = pydicom.dcmread(path)
            data.PatientID = patient
            data.save_as(path)
    return root


def test_all_series_name_the_same_patient(tmp_path):
    root = write_data(tmp_path, ["ANON"] * 5)
    with pytest.raises(UserError, match=f"'train' has only one patient; .*{REMEDY}"):
        read_folder(root, "dicom", Splitting())
    splits = read_folder(root, "dicom", Splitting(group_pattern=PATTERN))  # the remedy
    assert {item.group for items in splits.values() for item in items} == set("abcde")


def test_a_patient_that_is_learnt_from_and_tested(tmp_path):
    """A patient's name in two splits, as in an anonymised data set."""
    generator = np.random.default_rng(0)
    for place in ("train/good/a_1", "train/good/b_1", "test/good/a_2", "test/bad/c_1"):
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
    data = config_lib.get_config("lowvae:smoke").data.unlock()
    data.name, data.root, data.image_size = "folder", str(tmp_path), 16
    data.group_pattern = r"([abc])_\d"
    with pytest.raises(UserError, match=f"patient 'a' is in splits .*{REMEDY}"):
        DataSet(data.lock()).check()
    data.unlock().group_pattern = r"[abc]_\d"
    DataSet(data.lock()).check()


def test_patients_that_are_told_apart_need_no_remedy(tmp_path):
    splits = read_folder(write_data(tmp_path, "PQRST"), "dicom", Splitting())
    groups = {name: {item.group for item in items} for name, items in splits.items()}
    assert groups["train"] | groups["val"] == set("PQR") and groups["test"] == set("ST")

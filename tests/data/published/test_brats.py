"""BraTS 2017 and 2021: slices with tumours, labelled by the size of the tumour in them."""

import hashlib

import nibabel as nib
import numpy as np
import pytest
import tensorflow_datasets as tfds
import trees

from jaxad.data.files.splitting import Splitting
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.published.brats import Brats2017, Brats2021
from jaxad.data.published.manual import Choices, _drawn, config_for, make_config
from jaxad.data.tfds import splits as tfds_splits
from jaxad.errors import UserError

#: The published 200 mm of the 240 mm are 20 pixels of 10 mm: pixels of a slice are the file's.
PREPARATION = Preparation(20, 1)
#: Slices 55 to 69 hold the whole tumour: 6 of them are anomalous, 2 unclear, 7 normal.
CHOICES = Choices(preparation=PREPARATION, cutting=Cutting(slices=(55, 70)))
ANOMALOUS = [59, 60, 61, 62, 63, 64]
UNCLEAR = [58, 65]
NORMAL = [55, 56, 57, 66, 67, 68, 69]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.brats2017(tmp_path_factory.mktemp("brats2017"))


@pytest.fixture(scope="module")
def root2021(tmp_path_factory):
    return trees.brats2021(tmp_path_factory.mktemp("brats2021"))


@pytest.fixture(scope="module", autouse=True)
def example_dirs(root, root2021):
    Brats2017Case.EXAMPLE_DIR, Brats2021Case.EXAMPLE_DIR = root, root2021


@pytest.fixture(scope="module")
def splits(root, read_all):
    return read_all("brats2017", root, CHOICES)


class Brats2017Case(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Brats2017
    BUILDER_CONFIG_NAMES_TO_TEST = [make_config(CHOICES)]
    # Of 5 patients a fifth is tested, with 13 slices; of the other 4 one is validated on.
    SPLITS = {"train": 3 * 7, "val": 7, "test": 7 + 6}


class Brats2021Case(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Brats2021
    BUILDER_CONFIG_NAMES_TO_TEST = [make_config(Choices(preparation=PREPARATION))]
    # Slices 52 to 103 by default: 52 a patient, 8 of them not normal, 6 of these anomalous.
    SPLITS = {"train": 3 * 44, "val": 44, "test": 44 + 6}


def _modality(root, patient, modality):
    (path,) = root.rglob(f"{patient}_{modality}.nii.gz")
    return path


def _seen(plane):
    """Turns a plane of the file [x, y] into an axial slice of the middle 200 mm.

    The file's axes run to the left and to the back (its affine is negative in both), so rows are
    already from front to back, and columns have to be reversed.
    """
    return plane[::-1].T[2:-2, 2:-2]


def test_no_patient_is_in_two_splits(splits):
    groups = {name: set(split.groups) for name, split in splits.items()}
    assert {name: len(names) for name, names in groups.items()} == {"train": 3, "val": 1, "test": 1}
    everyone = {place.split("/")[1] for place in trees.BRATS2017_PATIENTS}
    assert set.union(*groups.values()) == everyone


def test_a_slice_is_labelled_by_the_size_of_its_tumour(splits):
    """More than 10 pixels are anomalous, none is normal, and other slices are left out."""
    test = splits["test"]
    assert trees.BRATS_TUMOUR[58] == 10 and trees.BRATS_TUMOUR[59] == 11
    np.testing.assert_array_equal(test.positions, sorted(NORMAL + ANOMALOUS))
    np.testing.assert_array_equal(test.positions[test.labels == 1], ANOMALOUS)
    assert test.files.slices_left_out == len(UNCLEAR)
    assert test.ids[0] == f"{test.groups[0]}-055"


def test_training_splits_hold_normal_slices_only(splits):
    for name, patients in (("train", 3), ("val", 1)):
        split = splits[name]
        np.testing.assert_array_equal(split.positions, NORMAL * patients)
        assert not split.labels.any() and split.masks is None


def test_the_number_of_lesion_pixels_is_a_setting(root, read_all):
    nine = Choices(preparation=PREPARATION, cutting=Cutting(slices=(55, 70), min_lesion_pixels=9))
    test = read_all("brats2017", root, nine)["test"]
    np.testing.assert_array_equal(test.positions[test.labels == 1], [58, *ANOMALOUS])


@pytest.mark.parametrize("position", [55, 60])
def test_a_slice_matches_its_definition(root, splits, position):
    test = splits["test"]
    volume = trees.in_unit_interval(_modality(root, test.groups[0], "t2"))
    assert test.images.dtype == np.uint16
    image = test.images[list(test.positions).index(position), ..., 0]
    np.testing.assert_allclose(image, _seen(volume[..., position]) * 65535, atol=1)
    # The lines through the brain are clipped, brightest and darkest.
    assert image.max() == 65535 and image[image > 0].min() == 257


def test_every_label_of_the_tumour_is_in_the_mask(root, splits):
    test = splits["test"]
    marked = nib.load(_modality(root, test.groups[0], "seg")).get_fdata()
    assert set(np.unique(marked)) == {0, 1, 2, 4}
    for position, mask in zip(test.positions, test.masks, strict=True):
        np.testing.assert_array_equal(mask, _seen(marked[..., position]) != 0)
    np.testing.assert_array_equal(test.masks.any((1, 2)), test.labels == 1)


def test_2021_takes_the_middle_slices_of_flair(root2021, read_all):
    assert Brats2021.reading(Choices()).cutting == Cutting(slices=(52, 104), field_of_view=200.0)
    test = read_all("brats2021", root2021, Choices(preparation=PREPARATION))["test"]
    expected = [position for position in range(52, 104) if position not in UNCLEAR]
    np.testing.assert_array_equal(test.positions, expected)
    volume = trees.in_unit_interval(_modality(root2021, test.groups[0], "flair"))
    np.testing.assert_allclose(test.images[0, ..., 0], _seen(volume[..., 52]) * 65535, atol=1)


def test_2017_drops_twenty_slices_at_each_end():
    assert Brats2017.reading(Choices()).cutting == Cutting(slices=(20, -20), field_of_view=200.0)


@pytest.mark.parametrize("modalities", [("t1ce",), ("flair", "t1"), trees.BRATS_MODALITIES])
def test_every_modality_is_a_channel(root, read_all, modalities):
    choices = Choices(
        preparation=Preparation(20, len(modalities)),
        cutting=Cutting(slices=(60, 61)),
        modality=",".join(modalities),
        test_only=True,
    )
    test = read_all("brats2017", root, choices)["test"]
    assert test.images.shape == (5, 20, 20, len(modalities))
    for channel, name in enumerate(modalities):
        volume = trees.in_unit_interval(_modality(root, test.groups[0], name))
        expected = _seen(volume[..., 60]) * 65535
        np.testing.assert_allclose(test.images[0, ..., channel], expected, atol=1)


def test_channels_must_match_the_modalities(root, read_all):
    choices = Choices(preparation=Preparation(20, 3), modality="t1,t2")
    with pytest.raises(UserError, match="channels is 3, but a scan has 2 modalities") as raised:
        read_all("brats2017", root, choices)
    assert "\n" not in str(raised.value)


def test_every_patient_is_tested_with_test_only(root):
    splits = Brats2017.splits(root, Choices(test_only=True))
    assert list(splits) == ["test"]
    assert [item.group for item in splits["test"]] == sorted(
        place.split("/")[1] for place in trees.BRATS2017_PATIENTS
    )
    assert not any(item.normal_only for item in splits["test"])


def test_the_draw_depends_on_its_seed_and_share(root):
    def tested(**fields):
        splits = Brats2017.layout(root, Choices(splitting=Splitting(**fields)))
        return [item.group for item in splits["test"]]

    assert tested() == tested(seed=0)
    assert any(tested(seed=seed) != tested() for seed in range(1, 4))
    # The same order of names: more are tested, and none of those that were is not.
    assert len(tested(test_share=0.6)) == 3 and set(tested()) < set(tested(test_share=0.6))


#: Slices 60 to 69 of all: 5 anomalous, 1 unclear, 4 normal, of 4 patients to learn from and one.
SIZES = {("train", 0): 16, ("test", 0): 4, ("test", 1): 5}


@pytest.mark.parametrize(
    ("sizes", "check", "difference"),
    [
        ({}, True, ""),
        ({("test", 1): 3}, True, "5 anomalous slices in test (paper: 3)"),
        ({("train", 0): 15}, True, "16 normal slices in train (paper: 15)"),
        ({("train", 0): 15}, False, ""),
        # A part of the data causes no warning.
        ({("train", 0): 160, ("test", 1): 3}, True, ""),
    ],
)
def test_another_number_of_slices_than_published_is_a_warning(
    root2021, tmp_path, monkeypatch, capsys, sizes, check, difference
):
    """No error: which slices the paper took it does not say. Those of `val` count as
    learnt from.
    """
    monkeypatch.setattr(Brats2021, "PUBLISHED", {**SIZES, **sizes})
    choices = Choices(preparation=PREPARATION, cutting=Cutting(slices=(60, 70)), check_sizes=check)
    config = config_for(Brats2021, root2021, choices)
    tfds_splits.open_builder(Brats2021, config, str(tmp_path), root2021)
    line = f"warning: brats2021: {difference}; the paper does not describe how it selects slices.\n"
    assert capsys.readouterr().err == (line if difference else "")


def test_published_sizes():
    assert Brats2021.PUBLISHED == {("train", 0): 11_739, ("test", 0): 459, ("test", 1): 1_051}
    assert Brats2021.TEST_SLICES == {0: 459, 1: 1_051}
    assert not Brats2017.PUBLISHED


def _without_masks(root):
    for path in root.rglob("*_seg.nii.gz"):
        path.unlink()


def _without_a_modality(root):
    (root / "HGG/Brats17_2013_2_1/Brats17_2013_2_1_t2.nii.gz").unlink()


@pytest.mark.parametrize(
    ("spoil", "modality", "expected"),
    [
        (_without_masks, "", r"has no <patient>/<patient>_seg\.nii\.gz; name the folder"),
        (_without_a_modality, "", r"2013_2_1' has no Brats17_2013_2_1_t2\.nii\.gz; add it or"),
        (_without_a_modality, "t1, adc", r"brats2017 has no 'adc'; it has flair, t1, t1ce, t2\.$"),
    ],
)
def test_missing_files_are_named(tmp_path, spoil, modality, expected):
    trees.brats2017(tmp_path, trees.BRATS2017_PATIENTS[:2])
    spoil(tmp_path)
    with pytest.raises(UserError, match=expected) as raised:
        Brats2017.splits(tmp_path, Choices(modality=modality))
    assert "\n" not in str(raised.value)
    # Modalities that are not used may be missing.
    if spoil is _without_a_modality:
        Brats2017.layout(tmp_path, Choices(modality="flair"))


def test_the_test_slices_of_brats2021_are_drawn_by_their_ids():
    """Of each label those with the smallest digests, in their order, however many there are."""
    examples = [{"id": f"BraTS2021_{n:05}/{n}", "label": int(n % 3 == 0)} for n in range(60)]
    drawn = _drawn(iter(examples), {0: 5, 1: 30})
    ranked = sorted(examples, key=lambda one: hashlib.sha256(one["id"].encode()).digest())
    normal = [one["id"] for one in ranked if not one["label"]][:5]
    anomalous = [one["id"] for one in examples if one["label"]]  # 20, fewer than asked for
    expected = [one["id"] for one in examples if one["id"] in {*normal, *anomalous}]
    assert [one["id"] for one in drawn] == expected
    assert sum(one["label"] for one in drawn) == 20

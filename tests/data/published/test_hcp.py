"""HCP: axial slices of healthy brains, as the paper's first author cuts them."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
import trees

from jaxad.data.files.splitting import Splitting
from jaxad.data.prepare.cutting import Cutting
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.published import hcp
from jaxad.data.published.hcp import Hcp
from jaxad.data.published.manual import Choices, make_config
from jaxad.errors import UserError

#: 210 mm at 7 mm a pixel are 30: pixels of a slice are those of the file.
CHOICES = Choices(preparation=Preparation(30, 1), cutting=Cutting(field_of_view=210.0))
#: 60 slices of 0.7 mm are 45 at 0.7 / 0.75; 20 at each end are dropped.
POSITIONS = [20, 21, 22, 23, 24]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return trees.hcp(tmp_path_factory.mktemp("hcp"))


@pytest.fixture(scope="module", autouse=True)
def example_dir(root):
    HcpCase.EXAMPLE_DIR = root


@pytest.fixture(scope="module")
def splits(root, read_all):
    return read_all("hcp", root, CHOICES)


class HcpCase(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = Hcp
    BUILDER_CONFIG_NAMES_TO_TEST = [make_config(CHOICES)]
    # Of 10 subjects a fifth is tested; of the other 8 one is validated on. Each has 5 slices.
    SPLITS = {"train": 7 * 5, "val": 5, "test_normal": 2 * 5}


def test_no_subject_is_in_two_splits_and_all_are_normal(splits):
    groups = {name: set(split.groups) for name, split in splits.items()}
    assert {name: len(names) for name, names in groups.items()} == {
        "train": 7,
        "val": 1,
        "test_normal": 2,
    }
    assert set.union(*groups.values()) == set(trees.HCP_SUBJECTS)
    for split in splits.values():
        assert not split.labels.any() and split.masks is None


def test_every_subject_has_the_middle_slices_in_order(splits):
    for split in splits.values():
        subjects = list(dict.fromkeys(split.groups))
        np.testing.assert_array_equal(split.positions, POSITIONS * len(subjects))
        expected = [f"{subject}-{p:03d}" for subject in subjects for p in POSITIONS]
        assert list(split.ids) == expected
        # The 40 slices at the ends are not counted as left out.
        assert split.files.slices_left_out == 0
        assert split.files.sizes == {"26x32x60": len(subjects)}


def _slice(root, subject, position, modality="T2w"):
    """One slice by its definition.

    A slice at 0.7 / 0.75 mm is a mean of those around its middle, with weights that fall
    linearly to 0 within one new distance.
    """
    volume = trees.in_unit_interval(
        root / subject / "T1w" / f"{modality}_acpc_dc_restore_brain.nii.gz"
    )
    middle, distance = (position + 0.5) / 0.75, 1 / 0.75
    weights = np.maximum(0, 1 - np.abs(np.arange(60) + 0.5 - middle) / distance)
    plane = volume @ (weights / weights.sum())
    # The file's first axis runs to the left and its second to the front: seen from above with the
    # front at the top and the right at the right, as `axial` slices are here.
    seen = plane[::-1, ::-1].T
    # 32 x 26 pixels become 30 x 30: one row less at each end, two empty columns more.
    return np.pad(seen[1:-1], ((0, 0), (2, 2)))


@pytest.mark.parametrize("place", [0, 3, 9])
def test_a_slice_matches_its_definition(root, splits, place):
    split = splits["test_normal"]
    expected = _slice(root, split.groups[place], split.positions[place])
    assert split.images.dtype == np.uint16
    image = split.images[place, ..., 0]
    np.testing.assert_allclose(image, expected * 65535, atol=1)
    assert (image[:, [0, 1, -2, -1]] == 0).all()
    # The lines through the brain are clipped, brightest and darkest.
    assert image.max() == 65535 and image[image > 0].min() == 257


def test_published_cut_is_the_default(root, read_all, splits):
    """The default config cuts the published slices, at 200 mm."""
    default = Hcp.reading(Choices()).cutting
    assert default == Cutting(slices=(20, -20), spacing=0.7 / 0.75, field_of_view=200.0)
    assert Hcp.reading(CHOICES).cutting.slices == (20, -20)
    found = read_all("hcp", root, Choices(preparation=Preparation(16, 1)))
    assert found["val"].ids == splits["val"].ids
    assert found["val"].images.shape == (5, 16, 16, 1)


def test_one_modality_or_several(root, read_all, splits):
    two = Choices(preparation=Preparation(30, 2), cutting=CHOICES.cutting, modality="t1,t2")
    both = read_all("hcp", root, two)["val"]
    assert both.images.shape == (5, 30, 30, 2)
    subject = both.groups[0]
    expected = np.stack([_slice(root, subject, 20, name) for name in ("T1w", "T2w")], axis=-1)
    np.testing.assert_allclose(both.images[0], expected * 65535, atol=1)
    # T2 is the paper's, and the default.
    np.testing.assert_array_equal(both.images[..., 1:], splits["val"].images)
    with pytest.raises(UserError, match="^config.data.modality: hcp has no 'flair'; it has t1, t2"):
        Hcp.splits(root, Choices(modality="flair"))


def test_one_modality_becomes_grey_colour(root, read_all, splits):
    colour = Choices(preparation=Preparation(30, 3), cutting=CHOICES.cutting)
    images = read_all("hcp", root, colour)["val"].images
    np.testing.assert_array_equal(images, np.repeat(splits["val"].images, 3, axis=-1))


def _subjects(splits):
    return {name: [item.group for item in items] for name, items in splits.items()}


def test_the_paper_s_number_of_subjects_is_drawn(root, monkeypatch):
    monkeypatch.setattr(hcp, "_NUM_SUBJECTS", 5)
    first = _subjects(Hcp.layout(root, Choices()))
    # Four fifths and one fifth of five, as 800 and 200 of 1,000.
    assert [len(first["train"]), len(first["test_normal"])] == [4, 1]
    assert first == _subjects(Hcp.layout(root, Choices()))
    others = [_subjects(Hcp.layout(root, Choices(splitting=Splitting(seed=n)))) for n in (1, 2)]
    assert first not in others


def test_all_subjects_are_tested_with_test_only(root):
    found = _subjects(Hcp.splits(root, Choices(test_only=True)))
    assert found == {"test_normal": list(trees.HCP_SUBJECTS)}


def test_published_sizes_count_subjects(root, monkeypatch):
    assert Hcp.PUBLISHED == {("train", 0): 800, ("test_normal", 0): 200}
    monkeypatch.setattr(Hcp, "PUBLISHED", {("train", 0): 8, ("test_normal", 0): 2})
    Hcp.splits(root, Choices())
    monkeypatch.setattr(Hcp, "PUBLISHED", {("train", 0): 7, ("test_normal", 0): 2})
    with pytest.raises(UserError, match=r"^hcp: 8 normal patients in train \(paper: 7\); fetch"):
        Hcp.splits(root, Choices())


def test_subjects_without_the_modality_are_left_out_with_a_warning(tmp_path, capsys):
    trees.hcp(tmp_path, trees.HCP_SUBJECTS[:4])
    trees.hcp(tmp_path, trees.HCP_SUBJECTS[4:6], modalities=("t1",))
    found = _subjects(Hcp.layout(tmp_path, Choices()))
    assert sorted(sum(found.values(), [])) == list(trees.HCP_SUBJECTS[:4])
    told = "warning: hcp: 2 of 6 subjects have no t2 and are left out.\n"
    assert capsys.readouterr().err == told
    Hcp.layout(tmp_path, Choices(modality="t1"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("release-notes", "has no subject's folder, such as 100307/T1w/; name the folder"),
        ("100307/T1w", "has T1w/T2w_acpc_dc_restore_brain.nii.gz; download 'Structural Prep"),
    ],
)
def test_another_layout_is_refused(tmp_path, folder, expected):
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=expected) as raised:
        Hcp.splits(tmp_path, Choices())
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)

"""Words in names: suffixes, splits, normal images and masks, in any letter case."""

from pathlib import Path

import pytest

from jaxad.data.files import names


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("scan.nii.gz", "scan"),
        ("scan.NII", "scan"),
        ("x.mask.png", "x.mask"),
        ("scan.v1.png", "scan.v1"),
        ("1.2.840.77.3", "1.2.840.77.3"),
        ("1.2.840.77.3.nii.gz", "1.2.840.77.3"),
        ("p.17", "p.17"),
        ("test_v1.2.npz", "test_v1.2"),
        (".png", ".png"),
    ],
)
def test_a_suffix_is_one_that_is_known(name, stem):
    assert names.stem(Path("a.b") / name) == stem
    assert stem + names.suffix(Path(name)) == name


def test_a_folder_is_neither_table_nor_archive(tmp_path):
    for name in ("a.csv", "a.npz"):
        (tmp_path / name).mkdir()
    assert not names.is_table(tmp_path / "a.csv") and names.is_table(tmp_path / "b.CSV")
    assert not names.is_archive(tmp_path / "a.npz") and names.is_archive(tmp_path / "b.NPZ")


@pytest.mark.parametrize(
    "name",
    [
        "x-seg", "x_gt", "x_segmentation", "x_mask_1", "x.mask", "x_mask", "benign (1)_mask_1",
        "X_LABELS", "x ground truth", "x_Ground_Truth", "x-groundtruth", "imageMask", "mask_001",
        "segmentation-0", "x_mask2", "x_annotation", "label", "sub-01_dseg", "x_mask_left",
        "x_msk", "x_truth", "x_brainmask", "p0_T1_brainmask", "x_segmask", "tumormask", "binmask",
        "imagemask_0", "MRIMask", "CTSeg", "IMAGEMask", "IMAGEMASK", "PETMasks", "x_lbl",
        "wmparc", "x_pveseg", "lungmasks", "GTs",
    ],
)  # fmt: skip
def test_words_for_masks(name):
    assert names.has_mask_word(name)


@pytest.mark.parametrize(
    "name",
    [
        "segovia_001",
        "gtx",
        "unmasked",
        "labelled_3",
        "groundwater",
        "truthful",
        "sega",
        "x_t2f",
        "unmask",
        "x_unmasks",
        "damask_3",
        "masked",
        "x_MRIs",
        "passage",
    ],
)
def test_words_that_are_none_for_masks(name):
    assert not names.mask_words(name)


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("x_mask.png", "x"),
        ("benign (1)_mask.png", "benign (1)"),
        ("benign (1)_mask_1.png", "benign (1)"),
        ("x.mask.png", "x"),
        ("x-seg.nii.gz", "x"),
        ("x_Ground Truth.png", "x"),
        ("1.2.840.77.3_mask.nii.gz", "1.2.840.77.3"),
        ("segovia_001.png", "segovia_001"),
        ("mask.png", "mask"),
    ],
)
def test_what_a_mask_marks(name, marked):
    assert names.marked_by(Path(name)) == marked


@pytest.mark.parametrize(
    ("name", "split", "suggested"),
    [
        ("train", "train", "train"),
        ("TRAIN", "train", "train"),
        ("Valid", "val", "val"),
        ("validation", "val", "val"),
        ("Test", "test", "test"),
        ("training", "", "train"),
        ("Test2", "", "test"),
        ("my testing data", "", "test"),
        ("contest", "", ""),
        ("trian", "", "train"),
        ("trains", "", "train"),
        ("tset", "", "test"),
        ("valdiation", "", "val"),
        ("brain", "", ""),
        ("text", "", ""),
        ("vial", "", ""),
    ],
)
def test_words_for_splits(name, split, suggested):
    assert names.split_named(name) == split
    assert names.split_suggested(name) == suggested


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *((word, "good") for word in ("god", "goo", "goood", "godo", "gooed", "God 2")),
        *((word, "normal") for word in ("nomral", "norml", "normel", "NROMAL", "nomral_images")),
        # Correct names, words of their own, and classes of MVTec AD.
        *((word, "") for word in ("good", "normal", "food", "wood", "hood", "mood", "gold", "rod")),
        *((word, "") for word in ("abnormal", "anormal", "onormal", "nodal", "formal", "goat")),
        *((word, "") for word in ("broken_large", "contamination", "crack", "color", "cut")),
        *((word, "") for word in ("glue", "hole", "thread", "poke", "print", "combined", "rough")),
    ],
)  # fmt: skip
def test_misspelt_names_of_normal_images(word, meant):
    assert names.misspelt_normal(word) == meant


@pytest.mark.parametrize("name", ["ground_thruth", "groundtruht", "Grond Truth"])
def test_misspelt_ground_truth(name):
    assert names.suggests_ground_truth(name) and not names.is_ground_truth(name)


@pytest.mark.parametrize(
    ("name", "split"),
    [("Test", "test"), ("TEST_a-1", "test_a-1"), ("test_A", "test_A"), ("test_", ""), ("a_b", "")],
)
def test_splits_with_names_of_their_own(name, split):
    assert names.split_of(name) == split


@pytest.mark.parametrize("name", ["x_roi", "x_ROIs", "vessels", "x_ribbon", "x_bin"])
def test_words_that_may_be_for_masks(name):
    assert not names.has_mask_word(name) and len(names.mask_words(name)) == 1


@pytest.mark.parametrize(
    "name",
    ["healthy", "Healthy_cases", "no_finding", "No Finding", "NoFinding", "notumor", "No_DR",
     "good2", "normal images", "controls", "negative", "without_lesion", "NonDemented",
     "Uninfected", "non_covid", "non-cancer", "nonviral", "cognitively_normal", "normal_colon",
     "healthy_brain", "tumor_free", "disease-free", "lesionfree", "not_infected", "undamaged",
     "covid_negative", "none", "CN", "nocovid", "Cognitively Normal 2", "non_tumor"],
)  # fmt: skip
def test_words_that_suggest_normal_images(name):
    assert names.suggests_normal(name)


@pytest.mark.parametrize(
    "name",
    ["abnormal", "not_good", "no_good", "non_normal", "crack", "normal_pressure_hydrocephalus",
     "non_small_cell", "nodule", "noise", "unhealthy", "benign", "NV", "broken_small", "knot",
     "not_normal", "AbNormal", "ab_normal", "not_healthy", "NonSmallCell", "nonproliferative",
     "non_hodgkin_lymphoma", "unknown", "ulcer", "uncut", "union", "free_fluid", "freezing",
     "triple_negative", "her2_negative", "1", "images", "VeryMildDemented", "nodular", "unclear"],
)  # fmt: skip
def test_words_that_do_not(name):
    assert not names.suggests_normal(name)

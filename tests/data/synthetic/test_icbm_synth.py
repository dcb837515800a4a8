"""The embedded data set, written and read back through TensorFlow Datasets."""

import logging
import pathlib

import numpy as np
import pytest

from jaxad.data.synthetic import slices
from jaxad.errors import UserError

icbm_synth = pytest.importorskip("jaxad.data.synthetic.icbm_synth")

COUNTS = (2, 1, 3, 3)  # Three test subjects are one block of the balanced plan.
SPLITS = ("train", "val", "test_objects", "test_lesions")


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    made = icbm_synth.IcbmSynth(
        config=icbm_synth.make_config(64, seed=0, num_subjects=COUNTS),
        data_dir=tmp_path_factory.mktemp("data"),
        file_format="array_record",
    )
    made.download_and_prepare()
    return made


@pytest.fixture(scope="module")
def examples(builder):
    """Every example of every split, in the order of the file."""
    return {split: list(builder.as_data_source(split=split)) for split in SPLITS}


def test_the_name_of_a_config_holds_its_contents():
    assert icbm_synth.make_config(64).name == "64px_seed0"
    assert icbm_synth.make_config(128, seed=3).name == "128px_seed3"
    assert icbm_synth.make_config(64, num_subjects=(6, 4, 4, 4)).name == "64px_seed0_6-4-4-4"
    # Lists arrive from config files; numbers are the same whatever holds them.
    assert icbm_synth.make_config(64, num_subjects=[240, 120, 60, 60]).name == "64px_seed0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 60}, "multiple of 16"),
        ({"image_size": 0}, "multiple of 16"),
        ({"image_size": 64, "seed": -1}, "seed is -1"),
        ({"image_size": 64, "num_subjects": (1, 1, 1)}, "four counts"),
        ({"image_size": 64, "num_subjects": (1, 0, 1, 1)}, "at least 1"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        icbm_synth.make_config(**arguments)


def test_features(builder):
    features = builder.info.features
    assert features["image"].shape == (64, 64, 1) and features["image"].np_dtype == np.uint8
    assert features["mask"].shape == (64, 64, 1) and features["mask"].np_dtype == np.uint8
    assert features["label"].names == ["normal", "anomalous"]
    assert features["position"].np_dtype == np.int32
    assert builder.version == "2.0.0"


def test_splits_hold_twenty_slices_a_subject_in_order(examples):
    for split, count in zip(SPLITS, COUNTS, strict=True):
        ids = [example["id"].decode() for example in examples[split]]
        expected = [f"{split}-{n:04d}-{p:02d}" for n in range(count) for p in range(20)]
        assert ids == expected
        for example in examples[split]:
            group, position = example["group"].decode(), example["position"]
            assert example["id"].decode() == f"{group}-{position:02d}"


def test_splits_share_no_subject(examples):
    groups = {s: {e["group"] for e in rows} for s, rows in examples.items()}
    assert len(set.union(*groups.values())) == sum(COUNTS)
    # Nor is it one person by two names: no image occurs twice.
    images = [e["image"].tobytes() for rows in examples.values() for e in rows]
    assert len(set(images)) == 20 * sum(COUNTS)


def test_labels_match_masks(examples):
    for split, rows in examples.items():
        for example in rows:
            assert set(np.unique(example["mask"])) <= {0, 1}
            assert bool(example["mask"].any()) == (example["label"] == 1)
        labels = [example["label"] for example in rows]
        # One block of three subjects has each of the 20 indices positive once.
        assert sum(labels) == (20 if split.startswith("test") else 0)


def test_positives_are_equally_frequent_at_every_index(examples):
    for split in ("test_objects", "test_lesions"):
        positions = [e["position"] for e in examples[split] if e["label"] == 1]
        assert sorted(positions) == list(range(20))


def test_background_is_zero_and_the_brain_is_centred_on_a_half(examples):
    for row in range(2):
        images = np.stack([e["image"] for e in examples["train"][20 * row : 20 * row + 20]])
        assert images.dtype == np.uint8
        corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == 0).all()
        brain = images[images > 0] / 255
        # A z-score of mean 0, clipped at +-3 and mapped to [0, 1]: mean 1/2, s.d. 1/6.
        assert brain.mean() == pytest.approx(0.5, abs=0.005)
        assert brain.std() == pytest.approx(1 / 6, abs=0.005)
        assert images.max() > 255 * 0.6


def test_bytes_do_not_depend_on_workers_or_counts(examples):
    """Two workers, another count and a second run give what the builder wrote."""
    other = icbm_synth.make_config(64, seed=0, num_subjects=(5, 4, 4, 2))
    alone = list(icbm_synth.make_examples(other, "test_lesions", 2, num_workers=1))
    pair = list(icbm_synth.make_examples(other, "test_lesions", 2, num_workers=2))
    assert alone == pair
    stored = examples["test_lesions"][:40]
    for written, made in zip(stored, alone[0] + alone[1], strict=True):
        assert written["id"].decode() == made["id"]
        assert slices.png(written["image"][..., 0]) == made["image"]
        assert slices.png(written["mask"][..., 0]) == made["mask"]


def test_another_seed_gives_other_data(examples):
    config = icbm_synth.make_config(64, seed=1, num_subjects=COUNTS)
    (subject,) = icbm_synth.make_examples(config, "train", 1)
    assert subject[10]["image"] != slices.png(examples["train"][10]["image"][..., 0])


def test_the_exception_of_a_worker_is_raised():
    config = icbm_synth.make_config(64, num_subjects=COUNTS)
    with pytest.raises(ValueError, match="nonsense"):
        list(icbm_synth.make_examples(config, "nonsense", 2, num_workers=2))


def test_a_second_call_makes_nothing_and_restores_progress_bars(builder, monkeypatch):
    from tensorflow_datasets.core.utils import tqdm_utils

    def fail(*args, **kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr(icbm_synth, "make_examples", fail)
    stamp = {p: p.stat().st_mtime_ns for p in pathlib.Path(builder.data_dir).iterdir()}
    builder.download_and_prepare()
    assert tqdm_utils._active  # TFDS shows its own bars again
    assert stamp == {p: p.stat().st_mtime_ns for p in pathlib.Path(builder.data_dir).iterdir()}


def test_one_progress_bar_over_all_subjects(tmp_path, monkeypatch, caplog):
    bars = []

    class Bar:
        def __init__(self, total, **kwargs):
            self.total, self.done, self.closed = total, 0, False
            bars.append(self)

        def update(self):
            self.done += 1

        def close(self):
            self.closed = True

    monkeypatch.setattr(icbm_synth, "progress_bar", Bar)
    caplog.set_level(logging.WARNING)
    made = icbm_synth.IcbmSynth(
        config=icbm_synth.make_config(16, num_subjects=(1, 1, 1, 1)), data_dir=tmp_path
    )
    made.download_and_prepare(file_format="array_record")
    (bar,) = bars
    assert bar.total == bar.done == 4 and bar.closed

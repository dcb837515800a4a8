"""Choice of example slices; examples read back as written."""

import numpy as np
import pytest

from jaxad.evaluate.examples import KINDS, choose, read_examples, rows_of, write_examples
from jaxad.types import Scores, Split

SCORES = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
LABELS = np.array([0, 1, 1, 0, 1, 0])


def test_each_kind_has_one_slice_per_patient_in_order():
    found = choose(SCORES, LABELS, ["a", "a", "b", "b", "c", "c"], 2)
    assert found == {
        "most": [0, 2],
        "least": [5, 3],
        "false_alarms": [0, 3],
        "misses": [4, 2],
    }
    assert rows_of(found).tolist() == [0, 2, 5, 3, 4]
    assert choose(SCORES, np.zeros(6, int), list("abcdef"), 9)["misses"] == []


@pytest.fixture
def split():
    return Split(
        images=np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1),
        labels=LABELS.astype(np.int32),
        ids=tuple("uvwxyz"),
        groups=tuple("aabbcc"),
        masks=np.ones((6, 2, 2), np.uint8),
    )


def seen(rows):
    pixel = np.repeat(SCORES[rows].astype(np.float32), 4).reshape(-1, 2, 2)
    return Scores(
        image=SCORES[rows].astype(np.float32),
        pixel=pixel,
        components={},
        reconstructions={"low": pixel[..., None]},
        maps={"flow": pixel},
    )


def test_slices_are_stored_once_and_read_back(tmp_path, split):
    path, kinds = tmp_path / "examples.npz", choose(SCORES, LABELS, split.groups, 2)
    rows = rows_of(kinds)
    images = split.images[rows] / np.float32(255)
    write_examples(path, split, kinds, images, seen(rows))
    found = read_examples(path)
    assert found.ids == tuple(split.ids[row] for row in rows) and len(set(found.ids)) == len(found)
    for kind in KINDS:
        assert rows[found.ranked(kind)].tolist() == kinds[kind]
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.reconstructions["low"], seen(rows).pixel[..., None])
    np.testing.assert_array_equal(found.maps["flow"], seen(rows).pixel)
    assert found.masks.shape == (len(rows), 2, 2)

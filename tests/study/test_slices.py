"""The slices of a study's contact sheet."""

import numpy as np

from jaxad.study.files import choose_slices
from jaxad.types import Split


def test_slices_are_of_different_patients_and_both_kinds():
    labels = np.tile([0, 1, 1, 0], 5).astype(np.int32)
    split = Split(
        images=np.zeros((20, 4, 4, 1), np.uint8),
        labels=labels,
        ids=tuple(map(str, range(20))),
        groups=tuple(str(row // 4) for row in range(20)),
    )
    rows = choose_slices(split, 4)
    assert len({split.groups[row] for row in rows}) == 4
    assert labels[rows].tolist() == [1, 0, 1, 0]
    assert len(choose_slices(split, 99)) == 5

"""`scores.csv`: values read back to the last bit; damage is reported."""

import numpy as np
import pytest

from jaxad.evaluate.positions import CORRECTED_SCORE
from jaxad.evaluate.score_table import read_score_table, write_score_table
from jaxad.types import Split


def test_tables_read_back_to_the_last_bit(tmp_path, rng):
    split = Split(
        images=np.zeros((50, 1, 1, 1), np.uint8),
        labels=rng.integers(0, 2, 50).astype(np.int32),
        ids=tuple(f'"{i}",\n<b>' for i in range(50)),
        groups=tuple(f"g{i // 3}" for i in range(50)),
        positions=np.arange(50, dtype=np.int32),
    )
    scores = (rng.normal(size=50) * 10.0 ** rng.integers(-9, 9, 50)).astype(np.float32)
    corrected = rng.normal(size=50)
    path = tmp_path / "scores.csv"
    write_score_table(path, split, {"score": scores, "nll": scores / 3, CORRECTED_SCORE: corrected})
    table = read_score_table(path)
    assert (table.ids, table.groups) == (split.ids, split.groups)
    np.testing.assert_array_equal(table.positions, split.positions)
    np.testing.assert_array_equal(table.labels, split.labels)
    np.testing.assert_array_equal(table.columns["score"], scores.astype(np.float64))
    np.testing.assert_array_equal(table.columns[CORRECTED_SCORE], corrected)
    assert list(table.components) == ["nll"]
    chosen = table.rows(np.array([7, 3]))
    assert chosen.ids == (split.ids[7], split.ids[3]) and chosen.positions.tolist() == [7, 3]


def test_extra_columns_precede_the_score_and_are_not_read(tmp_path, capsys):
    """Columns of the user's table may have the names of columns of scores; these have no twin."""
    split = Split(
        images=np.zeros((2, 1, 1, 1), np.uint8),
        labels=np.array([0, 1], np.int32),
        ids=("a", "b"),
        groups=("a", "b"),
        extra={
            "Diagnosis": ("nv", 'm"e,l'),
            "note": ("a\rb", "a\nb"),
            "NLL": ("x", "y"),
            "score": ("", ""),
        },
    )
    path = tmp_path / "scores.csv"
    columns = {"score": np.array([1.0, 2.0]), "nll": np.array([3.0, 4.0])}
    write_score_table(path, split, columns)
    assert path.read_bytes().decode() == (
        "id,group,position,label,Diagnosis,note,extra_NLL,extra_score,score,nll\n"
        'a,a,,0,nv,"a\rb",x,,1.0,3.0\n'
        'b,b,,1,"m""e,l","a\nb",y,,2.0,4.0\n'
    )
    assert "extra column 'NLL' is written as 'extra_NLL'" in capsys.readouterr().out
    table = read_score_table(path)
    assert list(table.columns) == ["score", "nll"] and table.columns["nll"].tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,label\na,1\n", "no column 'group'"),
        ("id,group,position,label,score\na,b,,1\n", "more or fewer cells"),
        ("id,group,position,label,score\na,b,,1,2,3\n", "more or fewer cells"),
        ("id,group,position,label,score\na,b,,x,1\n", "invalid literal"),
        ("id,group,position,label,score\na,b,,1,x\n", "could not convert"),
        ("", "no column 'id'"),
    ],
)
def test_damaged_tables_are_reported(tmp_path, text, words):
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_score_table(tmp_path / "scores.csv")

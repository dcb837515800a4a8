"""Columns of tables, and tables as spreadsheets and pandas write them."""

import logging

import numpy as np
import pytest
from table_files import ROWS, write_table
from user_files import data_config

from jaxad.data import replay
from jaxad.data.sources import DataSet
from jaxad.errors import UserError


def test_extra_columns_are_kept_as_they_are(images, capsys):
    rows = [f'{row}, x {n} ,"a, ""b"""' for n, row in enumerate(ROWS)]
    head = "path,label,group,mask,split,Diagnosis, site (old) "
    data_set = DataSet(data_config(write_table(images, rows, head)))
    assert "list.csv: extra columns carried through: Diagnosis, site (old)\n" in (
        capsys.readouterr().out
    )
    assert data_set.split("test_site").extra == {
        "Diagnosis": (" x 7 ", " x 8 "), "site (old)": ('a, "b"', 'a, "b"'),
    }  # fmt: skip
    assert data_set.split("train").rows(np.array([2])).extra["Diagnosis"] == (" x 2 ",)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("gruop", "group"), ("Patient_ID", "group"), ("PatientID", "group"), ("subjects", "group"),
     ("Maks", "mask"), ("mask_path", "mask"), ("segmentation", "mask"), ("spilt", "split"),
     ("Splits", "split"), ("subset", "split"), ("postion", "position"), ("positions", "position"),
     *((name, "group") for name in (
         "case_id", "case", "mrn", "pid", "pat_id", "subj", "person", "study_id", "eye_id",
         "StudyInstanceUID", "patientnr", "patientid", "PTID")),
     *((name, "split") for name in (
         "set", "fold", "phase", "usage", "train_test", "dataset", "is_test", "data_split")),
     *((name, "mask") for name in (
         "annotation", "ground_truth", "roi", "lesion_mask", "tumor_seg", "maskfile")),
     *((name, "position") for name in ("slice", "slice_index", "SliceNumber", "z"))],
)  # fmt: skip
def test_a_column_that_may_be_a_missing_one_is_refused(images, name, meant):
    """The message names two remedies; both work."""

    def read(column):
        text = {"mask": "", "split": "train", "position": "3"}.get(meant, "x")
        rows = [f"images/{n}.png,0,{text}" for n in range(4)]
        return DataSet(data_config(write_table(images, rows, f"path,label,{column}")))

    text = f"no column '{meant}'; rename '{name}' to '{meant}'. Or, .* 'extra_{name}'"
    with pytest.raises(UserError, match=text):
        read(name)
    assert read(f"extra_{name}").split("train").extra
    if meant != "group":  # all images have the same text, so they would be of one patient
        assert not read(meant).split("train").extra


@pytest.mark.parametrize(
    ("texts", "is_split"),
    [
        (("train", "Test", "VAL", "test_b"), True),
        (("training", "testing", "", "train"), True),
        (("train",) * 4, True),
        (("train", "test", "x", "train"), False),
        (("valid",) * 4, False),  # a table without `train` would be refused as a column `split`
        (("",) * 4, False),
    ],
)
def test_a_column_of_splits_is_refused_whatever_its_name(images, texts, is_split):
    """Otherwise splits would be drawn at random."""

    def read(name):
        rows = [f"images/{n}.png,0,{text}" for n, text in enumerate(texts)]
        return DataSet(data_config(write_table(images, rows, f"path,label,{name}")))

    if is_split:
        with pytest.raises(
            UserError, match="column 'split'; rename 'cohort' to 'split'. Or, .* 'extra_cohort'"
        ):
            read("cohort")
    else:
        assert read("cohort").split("train").extra
    assert read("extra_cohort").split("train").extra
    assert replay.find_items(images / "list.csv", data_config(images))[0].extra


def test_words_that_resemble_no_missing_column_are_extra(images):
    extra = (
        "task", "lab", "disposition", "lesion_id", "image_id", "num_slices", "name", "age", "idx",
        "diagnosis", "dx", "sex", "site", "patient_age", "mask_area", "test_result", "grade",
        "localization", "benign_malignant", "extra_mask", "extra_fold",
    )  # fmt: skip
    rows = [f"images/{n}.png,0{',1' * len(extra)}" for n in range(4)]
    table = write_table(images, rows, f"path,label,{','.join(extra)}")
    assert tuple(DataSet(data_config(table)).split("train").extra) == extra


def test_known_columns_excuse_similar_ones(images):
    rows = [f"images/{n}.png,0,p{n},,train,x,y,z" for n in range(4)]
    table = write_table(images, rows, "path,label,group,mask,split,labels,patient_id,mask2")
    extra = DataSet(data_config(table)).split("train").extra
    assert tuple(extra) == ("labels", "patient_id", "mask2")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_spreadsheets(images, separator, caplog):
    """A byte order mark, CRLF, semicolons, quotes, blank rows, and columns without a name.

    A row may lack the cells of columns that are empty in every row.
    """
    rows = [["path", "label", "group", "note", "", "unit"]]
    rows += [[f"images/{n}.png", "0", f"p{n}", '"a,;\nb"', "", ""] for n in range(4)]
    rows += [[""] * 6, ["images/4.png", "0", "p4", ""]]
    text = "\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n"
    table = images / "list.csv"
    table.write_bytes(b"\xef\xbb\xbf" + text.encode())
    with caplog.at_level(logging.WARNING):
        data_set = DataSet(data_config(table))
    assert not caplog.records
    splits = [data_set.split(name) for name in data_set.split_names]
    notes = {id_: note for s in splits for id_, note in zip(s.ids, s.extra["note"], strict=True)}
    assert notes == {**{f"images/{n}.png": "a,;\nb" for n in range(4)}, "images/4.png": ""}
    # pandas writes its index into a column without a name, and reads it as `Unnamed: 0`.
    for name in ("", "Unnamed: 0", "Unnamed: 0.1"):
        table.write_text(text.replace("note", name).replace("\r", ""))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            data_set = DataSet(data_config(table))
        assert "list.csv: column 4 has no name and is ignored." in caplog.text
        assert list(data_set.split("train").extra) == ["unit"]


@pytest.mark.parametrize(
    ("head", "row", "line"),
    [
        ("\n\npath,label\n", "{},{}", 4),
        (" \n;;\npath;label\n", "{};{}", 4),
        ("sep=;\r\npath;label\r\n", "{};{}", 3),
        ('\n"sep=|"\npath|label\n', "{}|{}", 4),
        ("Sep=\t\npath\tlabel\n", "{}\t{}", 3),
        ('path,"a;b;c;d",label\n', "{},x,{}", 2),
        ('"path";"a,b,c,d";"label"\n', "{};x;{}", 2),
        ("path\ta,b,c\tlabel\n", "{}\tx\t{}", 2),
    ],
)
def test_the_header_line_is_found_with_its_delimiter(images, head, row, line):
    """The delimiter is the one by which there is a column `path`; lines keep their numbers."""

    def write(*labels):
        rows = [row.format(f"images/{n}.png", label) for n, label in enumerate(labels)]
        (images / "list.csv").write_bytes((head + "\n".join(rows)).encode())
        return images / "list.csv"

    data_set = DataSet(data_config(write(*"0000")))
    assert sum(len(data_set.split(name)) for name in data_set.split_names) == 4
    assert len(data_set.split("train").extra) == row.count("x")
    with pytest.raises(UserError, match=f"list.csv line {line}: label 'ill' is neither"):
        DataSet(data_config(write("ill")))

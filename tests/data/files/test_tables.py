"""Data sets that are a CSV file."""

import pytest
from table_files import ROWS, write_table
from user_files import data_config, write_image, write_mask, write_scan

from jaxad.data import replay
from jaxad.data.files.tables import files_listed
from jaxad.data.sources import DataSet
from jaxad.errors import UserError


def test_a_row_says_everything(images):
    data_set = DataSet(data_config(write_table(images, ROWS)))
    data_set.check()
    assert data_set.split_names == ("train", "val", "test_site")
    test = data_set.split("test_site")
    assert test.ids == ("images/7.png", "images/9.png") and test.groups == ("p7", "p9")
    assert test.labels.tolist() == [0, 1]
    assert test.masks.any(axis=(1, 2)).tolist() == [False, True]


def test_without_splits_whoever_has_an_anomaly_is_tested(images):
    """Image 8 is normal, but belongs to the patient of image 9."""
    rows = [f"images/{n}.png,{int(n == 9)},p{n // 2}" for n in range(10)]
    data_set = DataSet(data_config(write_table(images, rows, "path,label,group")))
    data_set.check()
    assert {"images/8.png", "images/9.png"} <= set(data_set.split("test").ids)
    assert sum(len(data_set.split(name)) for name in data_set.split_names) == 10


def test_labels_may_be_words_where_the_normal_ones_are_listed(images):
    rows = [f"images/{n}.png,{'nevus' if n < 8 else 'melanoma'}" for n in range(10)]
    table = write_table(images, rows, "path,label")
    test = DataSet(data_config(table, normal_classes=("nevus",))).split("test")
    assert [name for name, label in zip(test.ids, test.labels, strict=True) if label] == [
        "images/8.png", "images/9.png",
    ]  # fmt: skip
    with pytest.raises(UserError, match="line 2: label 'nevus' is neither 0 .*normal_classes"):
        DataSet(data_config(table))
    with pytest.raises(UserError, match="'nevvus' names no label .*; did you mean 'nevus'"):
        DataSet(data_config(table, normal_classes=("nevvus",)))


def test_good_is_no_anomalous_label_if_other_words_are_listed(images):
    rows = [f"images/{n}.png,{'ok' if n < 8 else 'good'}" for n in range(10)]
    table = write_table(images, rows, "path,label")
    with pytest.raises(UserError, match="label 'good': is named like .*normal_classes=ok,good,"):
        DataSet(data_config(table, normal_classes=("ok",)))
    DataSet(data_config(table, normal_classes=("ok", "good"))).check()


def test_scans_with_masks_need_no_label(tmp_path):
    for number in range(3):
        write_scan(tmp_path / f"{number}.nii.gz", number)
    write_scan(tmp_path / "ill.nii.gz", 3, lesion=16)
    rows = [*(f"{n}.nii.gz,0,," for n in range(3)), "ill.nii.gz,,,ill_mask.nii.gz"]
    table = write_table(tmp_path, rows, "path,label,group,mask")
    test = DataSet(data_config(table, "nifti")).split("test")
    assert test.labels.sum() == 1


@pytest.mark.parametrize(
    ("head", "row", "message"),
    [
        ("path,label", "../x.png,0", r"line 2: '../x.png' is outside the table's folder"),
        ("path,label", "/etc/passwd,0", r"line 2: '/etc/passwd' is outside"),
        ("path,label", ",0", r"line 2: has no path"),
        ("path,label", "images/0.png,ill", r"line 2: label 'ill' is neither 0 .* nor 1"),
        ("path,label", "images/0.png,", r"line 2: label '' is neither"),
        ("path,label", "images/0.png,0,p1", r"line 2: has more fields than the header line"),
        ("path,label", "images/0.png", r"line 2: label '' is neither"),
        (
            "path,label,note",
            "images/0.png,0\nimages/1.png,0,a",
            r"2: has 2 of the 3 fields of the",
        ),
        (
            "path,label,mask",
            "images/9.png,1,masks/9.png\nimages/8.png,0",
            r"line 3: has 2 of the 3",
        ),
        ("path;label", "images/0.png;0;p1", r"line 2: has more fields .* contain semicolons"),
        (
            "file;lable",
            "images/0.png;0",
            r"but 'file', 'lable'; .* commas, semicolons or",
        ),
        ("path", "images/0.png", r"has no column 'label', but 'path'; add 'label'"),
        ("path,lable", "images/0.png,0", r"but 'path', 'lable'; rename 'lable' to 'label'"),
        (
            "image_path,label",
            "images/0.png,0",
            r"column 'path', .*rename 'image_path' to 'path'",
        ),
        (
            "path,label,patient",
            "images/0.png,0,1",
            r"no column 'group'; rename 'patient' to 'group'\. Or, for columns of something else, "
            r"choose the names 'extra_patient'\.$",
        ),
        (
            "filename;diagnosis;patient_id;roi;slice_index",
            "images/0.png;0;1;;7",
            r"no column 'path', 'label', 'group', 'mask' or 'position', but 'filename', .*; "
            r"rename 'filename' to 'path', add 'label', rename 'patient_id' to 'group', rename "
            r"'roi' to 'mask' and rename 'slice_index' to 'position'\. Or, .* choose the names "
            r"'extra_patient_id', 'extra_roi' and 'extra_slice_index'\. The header line has",
        ),
        (
            "path,lable,use",
            "images/0.png,0,train\nimages/1.png,0,test",
            r"rename 'lable' to 'label' and rename 'use' to 'split'",
        ),
        ("path,label,split", "images/0.png,0,trian", r"line 2: split 'trian' is not train"),
        (
            "path,label,id",
            "images/0.png,0,a\nimages/1.png,0,a",
            r"line 3: 'a' is already on line 2",
        ),
        (
            "path,label",
            "images/0.png,0\nimages/0.png,0",
            r"line 3: 'images/0.png' is already on line 2",
        ),
        (
            "path,label,id",
            "images/0.png,0,a\nimages/0.png,0,b",
            r"line 3: '.*0.png' is already on line 2",
        ),
        (
            "path,label,group",
            "images/0.png,0,a\nimages/1.png,0,",
            r"line 3: has no group, while",
        ),
        ("path,label,split", "images/0.png,0,test_a/../../x", r"line 2: split '.*' is not train"),
        ("path,label", "", r"has no rows"),
        ("", "\n , \n", r"is empty; write a header line"),
        ("path,label", '"images/0.png,0', r"not a readable CSV file"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(images, head, row, message):
    table = write_table(images, [row] if row else [], head)
    with pytest.raises(UserError, match=message) as raised:
        DataSet(data_config(table))
    assert "\n" not in str(raised.value) and "list.csv" in str(raised.value)


def test_a_file_that_is_not_there_is_named(images):
    table = write_table(images, [*ROWS, "images/77.png,0,p77,,val"])
    with pytest.raises(UserError, match=r"images/77.png: no such file; restore it or leave it out"):
        DataSet(data_config(table)).split("val")


def test_a_table_that_is_not_there_or_has_no_path(images):
    table = write_table(images, ["images/0.png,0"], "place,label")
    message = "config.data.root '.*list.cvs': no such file or folder; did you mean '.*/list.csv'"
    with pytest.raises(UserError, match=message):
        DataSet(data_config(images / "list.cvs"))
    with pytest.raises(UserError, match="no such .*; set --config.data.root to where the data are"):
        DataSet(data_config(images / "moved/list.csv"))
    with pytest.raises(UserError, match=r"list.cvs: no such .*; did you mean '.*/list.csv'\?$"):
        replay.find_items(images / "list.cvs", data_config(images))
    message = r"no column 'path', .* header line has path; commas, semicolons or tabs separate"
    with pytest.raises(UserError, match=message):
        files_listed(table)


def test_mixed_line_ends_are_a_possible_reason_for_a_short_line(images):
    """A carriage return inside a field ends its line."""
    table = write_table(images, ["images/0.png,0,ab"])
    table.write_bytes(b"path,label,note,site\nimages/0.png,0,a\rb,x\n")
    message = "line 3: has 2 of the 4 fields .* save the file with one kind of line end"
    with pytest.raises(UserError, match=message):
        DataSet(data_config(table))


def test_another_encoding_is_reported(images):
    table = images / "list.csv"
    table.write_bytes("path,label\nGrö.png,0\n".encode("latin-1"))
    with pytest.raises(UserError, match="not a readable CSV file .* write it in UTF-8"):
        DataSet(data_config(table))


# --- Letter case, synonyms, and masks that are named as images.


@pytest.mark.parametrize(
    "head",
    ["Path,Label,Group,Mask,Split", "PATH, LABEL,group,mask,SPLIT", "path,label,group,MASK ,Split"],
)
def test_columns_and_splits_in_any_letter_case(images, head):
    rows = [
        row.replace(",train", ",Train").replace(",val", ",VALIDATION").replace(",test_", ",TEST_")
        for row in ROWS
    ]
    data_set = DataSet(data_config(write_table(images, rows, head)))
    data_set.check()
    assert data_set.split_names == ("train", "val", "test_site")
    assert data_set.split("test_site").masks.any()


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        ("path,label,Label", ["images/0.png,0,1"], "columns 'label' and 'Label' have the same"),
        ("path,PATH,label", ["images/0.png,x,1"], "columns 'path' and 'PATH' have the same name"),
        ("path,label,split", ["images/0.png,0,Training"], "'Training' is not train.*Write 'train'"),
        ("path,label,split", ["images/0.png,0,testing"], r"line 2: split 'testing' .*Write 'test'"),
        ("path,label,split", ["images/0.png,0,train", "images/1.png,0,Train"],
         "line 3: split 'Train' is spelt 'train' on line 2; use one spelling"),
        ("path,label,split", ["images/0.png,0,test_a", "images/1.png,0,test_A"],
         "line 3: split 'test_A' is spelt 'test_a' on line 2"),
        ("path,label", ["images/0.png,Normal"], "line 2: label 'Normal' is neither 0"),
        ("path,label", ["images/._0.png,0"], r"line 2: 'images/._0.png' is a hidden"),
        ("path,label", [".ipynb_checkpoints/0.png,0"], r"2: '.ipynb_checkpoints/0.png' is a hid"),
    ],
)  # fmt: skip
def test_words_of_a_table_that_are_not_clear(images, head, rows, message):
    with pytest.raises(UserError, match=message) as raised:
        DataSet(data_config(write_table(images, rows, head)))
    assert "\n" not in str(raised.value)


def test_labels_in_any_letter_case(images):
    def write(normal):
        rows = [f"images/{n}.png,{normal(n) if n < 8 else 'Tumour'}" for n in range(10)]
        return write_table(images, rows, "path,label")

    def tested(table, *classes):
        split = DataSet(data_config(table, normal_classes=classes)).split("test")
        return sorted(name for name, label in zip(split.ids, split.labels, strict=True) if label)

    assert tested(write(lambda _: "Normal"), "normal") == ["images/8.png", "images/9.png"]
    mixed = write(lambda n: "Normal" if n % 2 else "normal")
    with pytest.raises(
        UserError, match="line 3: label 'Normal' is spelt 'normal' on line 2; use one"
    ):
        tested(mixed, "normal")
    # Listing both spellings accepts both.
    assert tested(mixed, "normal", "Normal") == ["images/8.png", "images/9.png"]


@pytest.mark.parametrize("name", ["images/3_mask.png", "images/3.mask.png", "images/3-seg.png",
                                  "masks/far.png", "Ground Truth/far.png"])  # fmt: skip
def test_a_row_whose_image_is_a_mask_is_refused(images, name):
    write_mask(images / name)
    table = write_table(images, [*ROWS, f"{name},1,p99,,test_site"])
    text = (
        f"{name}: is a mask, not an image: .*; name it in the column mask of its image, or remove"
    )
    with pytest.raises(UserError, match=text):
        DataSet(data_config(table))
    row = f"images/8.png,1,p99,{name},test_site"
    assert DataSet(data_config(write_table(images, [*ROWS, row]))).split("test_site").masks.any()


def test_a_mask_of_one_row_is_no_image_of_another(images):
    write_mask(images / "images/strange.png")
    rows = [
        *ROWS,
        "images/8.png,1,p8,images/strange.png,test_site",
        "images/strange.png,1,p7,,test_site",
    ]
    with pytest.raises(
        UserError, match="'images/strange.png' is both the mask of 'images/8.png' and an"
    ):
        DataSet(data_config(write_table(images, rows)))


def test_masks_for_a_part_of_the_anomalies_are_counted(images):
    table = write_table(images, [*ROWS, "images/8.png,1,p8,,test_site"])
    message = "list.csv: folder test_site: 1 of 2 anomalous files has no mask, such as 'images/8.p"
    with pytest.raises(UserError, match=message):
        DataSet(data_config(table)).split("test_site")


# --- Positions.


def test_positions_are_those_of_the_images(images):
    rows = [f"images/{n}.png,0,{n // 2 - 2}{'.0' * (n % 2)}" for n in range(8)]
    data_set = DataSet(data_config(write_table(images, rows, "path,label,Position")))
    splits = [data_set.split(name) for name in data_set.split_names]
    positions = {i: p for s in splits for i, p in zip(s.ids, s.positions.tolist(), strict=True)}
    assert positions == {f"images/{n}.png": n // 2 - 2 for n in range(8)}


def test_many_images_keep_their_positions(tmp_path):
    """From 200 images on, processes write the images to an array that they share."""
    for number in range(200):
        write_image(tmp_path / f"{number}.png", number)
    rows = [f"{n}.png,0,p{n},{'val' if n == 7 else 'train'},{n},x{n}" for n in range(200)]
    rows += ["7.png,0,p7,val,7,x7"]
    table = write_table(tmp_path, rows[:7] + rows[8:], "path,label,group,split,position,name")
    train = DataSet(data_config(table)).split("train")
    assert train.positions.tolist() == [n for n in range(200) if n != 7]
    assert train.extra["name"][:8] == (*(f"x{n}" for n in range(7)), "x8")


@pytest.mark.parametrize("text", ["1.5", "a", "1e3", "99999999999", "3000000000", "²"])
def test_a_position_is_a_whole_number(images, text):
    table = write_table(images, [f"images/0.png,0,{text}"], "path,label,position")
    with pytest.raises(UserError, match=f"line 2: position '{text}' is not a slice index; write a"):
        DataSet(data_config(table))


def test_positions_are_complete_and_for_images_only(images):
    rows = ["images/0.png,0,3", "images/1.png,0,"]
    table = write_table(images, rows, "path,label,position")
    with pytest.raises(UserError, match="line 3: has no position, while others have one; number"):
        DataSet(data_config(table))
    for number in range(3):
        write_scan(images / f"{number}.nii.gz", number)
    table = write_table(images, [f"{n}.nii.gz,0,top" for n in range(3)], "path,label,position")
    train = DataSet(data_config(table, "nifti")).split("train")
    assert set(train.extra["position"]) == {"top"} and set(train.positions) == {*range(2, 14)}


def test_scoring_needs_no_labels_and_ignores_them(images):
    """Labels, masks and splits become extra columns, whatever they hold."""
    table = write_table(images, ["images/0.png,?,nowhere.png,fold 3"], "path,label,mask,split")
    items = replay.find_items(table, data_config(images))
    assert [(item.id, item.label, item.mask) for item in items] == [("images/0.png", 0, None)]
    assert items[0].extra == {"label": "?", "mask": "nowhere.png", "split": "fold 3"}
    table = write_table(images, ["images/0.png,3"], "path,lable")
    assert replay.find_items(table, data_config(images))[0].extra == {"lable": "3"}


def test_normal_images_need_no_labels_but_obey_them(images):
    table = write_table(images, ["images/0.png"], "path")
    assert replay.find_items(table, data_config(images), normal=True)[0].label == 0
    table = write_table(images, ["images/0.png,1"], "path,label")
    assert replay.find_items(table, data_config(images), normal=True)[0].label == 1

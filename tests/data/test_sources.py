"""Data sets by name, mostly `.npz` folders: reading and error messages."""

import dataclasses

import numpy as np
import pytest
from user_files import write_image

from jaxad import config as config_lib
from jaxad.data import openers, settings
from jaxad.data.data_sets import DATA_SETS
from jaxad.data.sources import DataSet
from jaxad.errors import UserError

SIZE = 4
COUNT = 3


def _arrays(**changes):
    """The arrays of a good split of three images; None leaves an array out."""
    grey = np.arange(COUNT * SIZE * SIZE, dtype=np.uint8).reshape(COUNT, SIZE, SIZE)
    arrays = {"image": grey, "label": np.zeros(COUNT, np.int64), **changes}
    return {name: array for name, array in arrays.items() if array is not None}


def _data_config(root, name="npz", channels=1):
    data = config_lib.base().data
    data.name, data.root, data.image_size, data.channels = name, str(root), SIZE, channels
    return data


def _data_set(root, splits, channels=1):
    for name, arrays in {"train": _arrays(), "val": _arrays(), **splits}.items():
        np.savez(root / f"{name}.npz", **arrays)
    return DataSet(_data_config(root, channels=channels))


def _floats_with(value):
    """Float images of which the second, `test_x-1`, has one pixel of this value."""
    images = np.full((COUNT, SIZE, SIZE), 0.5, np.float32)
    images[1, 0, 2] = value
    return images


# --- What is read.


def test_splits_of_a_folder(tmp_path):
    data_set = _data_set(tmp_path, {"test_b": _arrays(), "test_a": _arrays()})
    assert set(data_set.split_names) == {"train", "val", "test_a", "test_b"}
    assert data_set.test_split_names == ("test_a", "test_b")


def test_a_minimal_split_gets_a_channel_ids_and_groups(tmp_path):
    split = _data_set(tmp_path, {"train": _arrays(label=None)}).split("train")
    np.testing.assert_array_equal(split.images, _arrays()["image"][..., None])
    assert split.images.dtype == np.uint8  # converted by the pipeline, batch by batch
    np.testing.assert_array_equal(split.labels, [0, 0, 0])
    assert split.ids == split.groups == ("train-0", "train-1", "train-2")
    assert split.masks is None
    assert split.positions is None
    assert len(split) == COUNT


def test_a_full_split_is_read_as_written(tmp_path):
    masks = np.zeros((COUNT, SIZE, SIZE), np.int64)
    masks[1, :2] = 255  # any value above zero is anomalous
    images = np.random.default_rng(0).uniform(size=(COUNT, SIZE, SIZE, 3))
    colour = _arrays(image=images)
    full = _arrays(
        image=images,
        label=np.array([False, True, False]),
        mask=masks,
        id=np.array(["ann", "bob", "eve"]),
        group=np.array([7, 7, 8]),
        position=np.array([10, 11, 10], np.int16),
    )
    splits = {"train": colour, "val": colour, "test_x": full}
    split = _data_set(tmp_path, splits, channels=3).split("test_x")
    assert split.images.shape == (COUNT, SIZE, SIZE, 3)
    assert split.labels.dtype == np.int32
    np.testing.assert_array_equal(split.labels, [0, 1, 0])
    assert split.masks.dtype == np.uint8
    np.testing.assert_array_equal(split.masks, masks > 0)
    assert split.ids == ("ann", "bob", "eve")
    assert split.groups == ("7", "7", "8")
    assert split.positions.dtype == np.int32
    np.testing.assert_array_equal(split.positions, [10, 11, 10])


def test_groups_default_to_the_ids(tmp_path):
    names = np.array(["ann", "bob", "eve"])
    split = _data_set(tmp_path, {"test_x": _arrays(id=names)}).split("test_x")
    assert split.groups == ("ann", "bob", "eve")


def test_a_split_is_read_once_and_only_when_needed(tmp_path):
    (tmp_path / "test_broken.npz").write_text("never read")
    data_set = _data_set(tmp_path, {})
    first = data_set.split("train")
    (tmp_path / "train.npz").unlink()
    assert data_set.split("train") is first


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _data_set(tmp_path, {})
    assert DataSet(_data_config("~")).split_names == ("train", "val")


@pytest.mark.parametrize("name", ["icbm_synth", "tfds:mnist"])
def test_a_folder_of_images_is_no_data_folder_of_tfds(tmp_path, name):
    """Otherwise a forgotten `config.data.name` trains on other images and writes among these."""

    def refuse(root, problem):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError, match=f"config.data.root '.*{problem}") as raised:
            DataSet(_data_config(root, name))
        assert "Set --config.data.name: folder, nifti, dicom read folders" in str(raised.value)
        assert sorted(tmp_path.rglob("*")) == before

    write_image(tmp_path / "mine/train/good/0.png")
    refuse(tmp_path / "mine", "holds 'train/good/0.png'")
    (tmp_path / "table").mkdir()
    (tmp_path / "table/list.csv").write_text("path")
    refuse(tmp_path / "table", "holds 'list.csv'")
    refuse(tmp_path / "table/list.csv", "is named like a file")
    refuse(tmp_path / "new.npz", "is named like a file")
    refuse("s3://bucket/list.csv", "is named like a file")
    (tmp_path / "notes").write_text("x")
    refuse(tmp_path / "notes", "is a file")


def test_data_folders_of_tfds_are_accepted(tmp_path):
    (tmp_path / "empty").mkdir()
    data_folder = tmp_path / "data"
    write_image(data_folder / "downloads/extracted/0.png")
    write_image(data_folder / "mnist/3.0.1/0.png")
    (data_folder / "mnist/3.0.1/dataset_info.json").write_text("{}")
    for root in ("", tmp_path / "empty", tmp_path / "new", data_folder):
        openers._check_tfds_root(_data_config(root, "icbm_synth"))


def test_the_config_reaches_the_icbm_synth_builder(monkeypatch):
    """No data are generated here."""
    from jaxad.data.tfds import splits as tfds_splits

    seen = {}

    def open_builder(builder_class, builder_config, root, *, budget):
        seen.update(dataclasses.asdict(builder_config), root=root)
        return dict.fromkeys(("train", "val", "test_objects"), lambda: None)

    monkeypatch.setattr(tfds_splits, "open_builder", open_builder)
    data = config_lib.base().data
    data.root, data.image_size, data.seed = "/some/where", 128, 3
    data.num_subjects = (6, 4, 3, 3)
    data_set = DataSet(data)
    assert data_set.test_split_names == ("test_objects",)
    asked = {name: seen[name] for name in ("root", "image_size", "seed", "num_subjects")}
    assert asked == {
        "root": "/some/where",
        "image_size": 128,
        "seed": 3,
        "num_subjects": (6, 4, 3, 3),
    }


# --- Error messages.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image": None}, r"test_x\.npz: has no array 'image', only \['label'\]"),
        ({"label": None}, r"test_x\.npz: has no array 'label' \(0 normal, 1 anomalous\)"),
        ({"label": np.zeros(2)}, r"test_x\.npz: 'label' has 2 rows, but 'image' has 3"),
        ({"group": np.zeros(4)}, r"test_x\.npz: 'group' has 4 rows, but 'image' has 3"),
        (
            {"group": np.array([1.0, np.nan, 2.0])},
            r"'group' has nan in row 1; name the patient of every",
        ),
        ({"group": np.array("ann")}, r"test_x\.npz: 'group' has no rows, but 'image' has 3"),
        ({"label": np.zeros((3, 1))}, r"'label' has shape \(3, 1\); give \[N\]"),
        ({"label": np.array([0, 1, 2])}, r"'label' holds values other than 0 and 1"),
        ({"label": np.array([0, 1, np.nan])}, r"'label' holds values other than 0 and 1"),
        ({"label": np.array(["a", "b", "c"])}, r"'label' holds values other than 0 and 1"),
        ({"mask": np.zeros((3, 4, 5))}, r"'mask' has shape \(3, 4, 5\), .*need \(3, 4, 4\)"),
        ({"mask": np.zeros((3, 4, 4, 1))}, r"'mask' has shape \(3, 4, 4, 1\), .*need \(3, 4, 4\)"),
        ({"position": np.zeros(3)}, r"'position' is float64; give slice indices"),
        ({"position": np.array(["a", "b", "c"])}, r"'position' is <U1; give slice indices"),
        ({"image": np.zeros((3, 4), np.uint8)}, r"'image' has shape \(3, 4\); give \[N, H, W\]"),
        ({"image": np.array(3)}, r"'image' has shape \(\); give \[N, H, W\]"),
        # Checked by jaxad.data.prepare.preprocess, which names the image by its id.
        (
            {"image": np.zeros((3, 4, 5), np.uint8)},
            r"'test_x': images are \(4, 5, 1\) .*'test_x-0'.* resize them or, .*data.image_size",
        ),
        (
            {"image": np.zeros((3, 4, 4, 3), np.uint8)},
            r"are \(4, 4, 3\) .* give them 1 channel or, before training, .*config.data.channels\.",
        ),
        ({"image": np.zeros((3, 4, 4), np.int32)}, r"npz split 'test_x': images are int32"),
        ({"image": _floats_with(np.nan)}, r"npz split 'test_x': image 'test_x-1' has NaN"),
        ({"image": _floats_with(2.0)}, r"image 'test_x-1' has values in \[0\.5, 2\]"),
        (
            {"image": _floats_with(np.nan), "id": np.array(["ann", "bob", "eve"])},
            r"image 'bob' has NaN",
        ),
        ({"id": np.array(["ann", "eve", "eve"])}, r"id 'eve' appears twice; give every image its"),
        (
            {"image": np.zeros((0, 4, 4), np.uint8), "label": np.zeros(0)},
            r"npz split 'test_x': holds no images",
        ),
    ],
)
def test_unusable_split_is_named_with_the_remedy(tmp_path, changes, expected):
    data_set = _data_set(tmp_path, {"test_x": _arrays(**changes)})
    with pytest.raises(UserError, match=expected) as raised:
        data_set.split("test_x")
    assert "\n" not in str(raised.value)


def _lone_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _truncated(path):
    np.savez(path, **_arrays())
    path.write_bytes(path.read_bytes()[:-200])


def _flipped_byte(path):
    np.savez_compressed(path, image=np.random.default_rng(0).integers(0, 255, (9, 9, 9)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _pickled(path):
    np.savez(path, **_arrays(label=np.array([0, 1, None], object)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("not an archive"),
        lambda path: path.write_bytes(b""),
        lambda path: path.mkdir(),
        _lone_array,
        _truncated,
        _flipped_byte,
        _pickled,
    ],
    ids=["text", "empty", "folder", "lone-array", "truncated", "flipped-byte", "pickled"],
)
def test_unreadable_file_is_named(tmp_path, spoil):
    data_set = _data_set(tmp_path, {"test_x": _arrays()})
    (tmp_path / "test_x.npz").unlink()
    spoil(tmp_path / "test_x.npz")
    with pytest.raises(
        UserError, match=r"test_x\.npz: (not a readable|is not an) \.npz file.*numpy\.savez"
    ):
        data_set.split("test_x")


@pytest.mark.parametrize("name", ["train", "val"])
def test_an_anomalous_training_image_is_refused(tmp_path, name):
    labelled = _arrays(label=np.array([0, 1, 1]), id=np.array(["ann", "bob", "eve"]))
    data_set = _data_set(tmp_path, {name: labelled})
    with pytest.raises(
        UserError, match=rf"'{name}': image 'bob' is labelled anomalous.*test split"
    ):
        data_set.split(name)


def test_anomalous_image_in_a_test_split_is_fine(tmp_path):
    split = _data_set(tmp_path, {"test_x": _arrays(label=np.array([0, 1, 1]))}).split("test_x")
    np.testing.assert_array_equal(split.labels, [0, 1, 1])


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ((), "has no train.npz and no val.npz"),
        (("val",), "has no train.npz"),
        (("train", "test_x"), "has no val.npz"),
    ],
)
def test_missing_files_are_named(tmp_path, present, expected):
    for name in present:
        np.savez(tmp_path / f"{name}.npz", **_arrays())
    with pytest.raises(UserError) as raised:
        DataSet(_data_config(tmp_path))
    message = str(raised.value)
    assert message.startswith(f"config.data.root '{tmp_path}': {expected}; ")
    assert "train.npz, val.npz and any number of test_<name>.npz" in message


@pytest.mark.parametrize(
    ("name", "hint"),
    [("icbm_sinth", "; did you mean 'icbm_synth'? "), ("zzz", ". "), ("", ". ")],
)
def test_an_unknown_data_set_is_reported_with_the_known_ones(name, hint):
    with pytest.raises(UserError) as raised:
        DataSet(_data_config("/nowhere", name=name))
    known = ", ".join(sorted((*DATA_SETS, "tfds:<name>", "<package.module>:<function>")))
    told = f"config.data.name: unknown data set '{name}'{hint}Known: {known}."
    assert str(raised.value) == told
    assert "icbm_synth" in known
    assert "npz" in known


def test_an_unknown_split_is_reported_with_the_known_ones(tmp_path):
    data_set = _data_set(tmp_path, {"test_x": _arrays()})
    with pytest.raises(
        UserError, match="^npz has no split 'test_y'; choose from test_x, train, val\\.$"
    ):
        data_set.split("test_y")


def test_data_folder_that_cannot_be_written_is_named(tmp_path):
    """The folder is below a regular file, because permissions do not stop root."""
    (tmp_path / "file").write_text("")
    data = config_lib.base().data
    data.root = str(tmp_path / "file" / "tfds")
    data.num_subjects = (1, 1, 1, 1)
    with pytest.raises(
        UserError, match=r"data folder '.*file/tfds.*' cannot be (read|written) .*data\.root"
    ):
        DataSet(data)


def test_a_patient_in_two_splits_is_named(tmp_path):
    images = np.arange(512, dtype=np.uint16).reshape(2, 16, 16)
    for name, groups in {"train": ["a", "b"], "val": ["c", "d"], "test_x": ["e", "b"]}.items():
        np.savez(tmp_path / f"{name}.npz", image=images, label=np.zeros(2), group=np.array(groups))
    data = config_lib.base().data
    data.name, data.root, data.image_size = "npz", str(tmp_path), 16
    with pytest.raises(UserError, match="patient 'b' is in splits '.*' and '.*'; keep each"):
        DataSet(data).check()


def test_a_file_that_is_not_a_split_is_named(tmp_path):
    for name in ("train", "val", "notes"):
        np.savez(tmp_path / f"{name}.npz", image=np.zeros((1, 16, 16), np.uint8))
    data = config_lib.base().data
    data.name, data.root, data.image_size = "npz", str(tmp_path), 16
    with pytest.raises(UserError, match=r"notes\.npz is not a split; name it test_notes\.npz"):
        DataSet(data)


# --- What the images may take of the memory.


def test_the_budget_is_half_of_the_memory_shared_by_the_processes_of_the_host(monkeypatch):
    monkeypatch.setattr(settings, "available_memory", lambda: 12.0e9)
    monkeypatch.setattr(settings.processes, "count_on_host", lambda: 3)
    data = config_lib.base().data
    assert settings.memory_budget(data) == 2e9
    data.in_memory = 1.5
    assert settings.memory_budget(data) == 1.5 * 2**30


def test_data_that_cannot_stay_on_disk_warn_once_that_they_exceed_the_budget(tmp_path, capsys):
    for name in ("train", "val", "test_a"):
        np.savez(tmp_path / f"{name}.npz", **_arrays())
    data = _data_config(tmp_path)
    data.in_memory = (2 * COUNT * SIZE**2 - 1) / 2**30  # two splits are too large
    data_set = DataSet(data)
    data_set.split("train")
    assert not capsys.readouterr().err
    data_set.split("val")
    data_set.split("test_a")
    # 3 images of 4 x 4 bytes in each split.
    assert capsys.readouterr().err.count("images take 8.94e-08 GiB of memory so far, and conf") == 1

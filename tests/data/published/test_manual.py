"""Published data sets in general: instructions, the cache, bad files and splits."""

import os
import shutil

import numpy as np
import pytest
import trees

from jaxad.data.data_sets import DATA_SETS, DataSetInfo
from jaxad.data.files.items import Item
from jaxad.data.prepare.preparation import Preparation
from jaxad.data.published.hcp import Hcp
from jaxad.data.published.manual import Choices, ManualBuilder, config_for, make_config
from jaxad.data.replay import read_files
from jaxad.data.sources import DataSet
from jaxad.errors import DataError, UserError

NAMES = tuple(info.name for info in DATA_SETS.values() if info.kind == "published")


def _prepared(folder, name="miic"):
    """Lists the cached versions of a data set."""
    return sorted(path.name for path in (folder / name).glob("[!.]*"))


# --- Instructions for users without data.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("root", ["", "nowhere"])
def test_instructions_are_printed_without_files(data_config, name, root):
    with pytest.raises(UserError) as raised:
        DataSet(data_config(name, root))
    message = str(raised.value)
    needs = f"config.data.root: {name} needs files that you download. "
    assert message.startswith("config.data.root 'nowhere': no such folder. " if root else needs)
    assert "\n" not in message
    # The place to get them from, and how they should lie.
    assert "https://" in message and "<root>/" in message


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_refused(data_config, tmp_path, tfds_folder, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as raised:
        DataSet(data_config(name, tmp_path / "empty"))
    assert "\n" not in str(raised.value) and str(tmp_path / "empty") in str(raised.value)
    assert not tfds_folder.exists()


def test_every_published_data_set_describes_itself():
    for name in NAMES:
        builder = DATA_SETS[name].load_builder()
        assert issubclass(builder, ManualBuilder) and builder.name == name
        assert DATA_SETS[name].title and builder.HOMEPAGE and builder.CITATION


# --- Names of versions.


def test_the_name_of_a_version_holds_modalities_and_size():
    assert make_config(Choices()).name.startswith("default_64px_")
    two = make_config(Choices(modality="t1,t2", preparation=Preparation(128, 2)))
    assert two.name.startswith("t1-t2_128px_")
    # The name is a folder's.
    assert make_config(Choices(modality="t1, t2")).name.startswith("t1-t2_64px_")
    assert "/" not in make_config(Choices(modality="../t1")).name


def test_every_choice_is_another_version():
    choices = [
        Choices(),
        Choices(regroup=True),
        Choices(test_only=True),
        Choices(preparation=Preparation(64, 1, square="crop")),
    ]
    assert len({make_config(choice).name for choice in choices}) == len(choices)
    assert make_config(Choices(), "other files").name != make_config(Choices()).name
    # Skipped files are cached by name and refused with `raise`, so that one version suffices.
    assert make_config(Choices(on_error="skip")).name == make_config(Choices()).name


# --- The cache.


def _other_time(root):
    path = root / "train/good/00001.png"
    stamp = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(stamp, stamp))


def _other_file(root):
    trees.save_picture(root / "train/good/00007.png", (32, 32), 7)


def _no_file(root):
    (root / "test/good/00001.png").unlink()


def _other_mask(root):
    path = root / "ground_truth/anomalous/00000.png"
    path.write_bytes((root / "ground_truth/anomalous/00001.png").read_bytes() + b"\0")


def test_cached_files_are_not_read_again(data_config, tmp_path, tfds_folder, monkeypatch):
    data = data_config("miic", trees.miic(tmp_path / "miic"), image_size=32)
    first = DataSet(data).split("test")

    def fail(*args):
        raise AssertionError("read again")

    monkeypatch.setattr(ManualBuilder, "_generate_examples", fail)
    second = DataSet(data).split("test")
    np.testing.assert_array_equal(second.images, first.images)
    np.testing.assert_array_equal(second.masks, first.masks)
    assert second.ids == first.ids and second.files == first.files
    assert first.files.count == 4 and first.files.sizes == {"32x32": 4}
    assert len(_prepared(tfds_folder)) == 1


@pytest.mark.parametrize("change", [_other_time, _other_file, _no_file, _other_mask])
def test_a_changed_file_makes_a_new_version(data_config, tmp_path, tfds_folder, change):
    root = trees.miic(tmp_path / "miic")
    data = data_config("miic", root, image_size=32)
    DataSet(data)
    change(root)
    changed = DataSet(data)
    assert len(_prepared(tfds_folder)) == 2
    files = [split.files.count for split in map(changed.split, changed.split_names)]
    assert sum(files) == 9 + {_other_file: 1, _no_file: -1}.get(change, 0)


def test_an_unused_file_changes_nothing(tmp_path):
    root = trees.hcp(tmp_path, trees.HCP_SUBJECTS[:4])
    name = config_for(Hcp, root, Choices()).name
    (root / "100307" / "T1w" / "ribbon.nii.gz").write_bytes(b"1")
    assert config_for(Hcp, root, Choices()).name == name


def test_files_and_leaks_are_searched_once(data_config, tmp_path, monkeypatch, capsys):
    """A walk over a hundred thousand files on a network drive takes minutes."""
    builder = DATA_SETS["oct2017"].load_builder()
    calls, layout = [], builder.layout
    monkeypatch.setattr(builder, "layout", lambda *args: calls.append(1) or layout(*args))
    data = data_config("oct2017", trees.oct2017(tmp_path), image_size=32)
    for _ in range(2):  # also with cached data
        DataSet(data)
        assert capsys.readouterr().err.count("the published split leaks") == 1
    assert len(calls) == 2


def test_the_remedy_for_an_unwritable_folder_is_the_variable(data_config, tmp_path, monkeypatch):
    """config.data.root names the user's files, not the cache."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file" / "tfds"))
    data = data_config("miic", trees.miic(tmp_path / "miic"), image_size=32)
    with pytest.raises(UserError, match=r"cannot be (read|written) .*with \$TFDS_DATA_DIR\.$"):
        DataSet(data)


# --- Files that cannot be used.


@pytest.fixture
def damaged(tmp_path):
    """MIIC with a truncated training image."""
    root = trees.miic(tmp_path / "miic")
    path = root / "train/good/00001.png"
    path.write_bytes(path.read_bytes()[:100])
    return root


def test_a_bad_file_stops_the_reading_and_nothing_is_cached(data_config, tfds_folder, damaged):
    data = data_config("miic", damaged, image_size=32)
    for _ in range(2):
        with pytest.raises(DataError, match=r"good/00001\.png: not a readable image") as raised:
            DataSet(data)
        assert "\n" not in str(raised.value)
    assert not list(tfds_folder.rglob("*.array_record*"))


def test_a_bad_file_is_skipped_and_reported_each_time(data_config, damaged, capsys, monkeypatch):
    data = data_config("miic", damaged, image_size=32, on_error="skip")
    for time in range(2):
        data_set = DataSet(data)
        splits = {name: data_set.split(name) for name in data_set.split_names}
        holder = next(name for name, split in splits.items() if split.files.skipped)
        assert holder in ("train", "val")
        files = splits[holder].files
        assert len(splits[holder]) == files.count - 1
        (reason,) = files.skipped
        assert "train/good/00001.png: not a readable image" in reason
        line = f"miic {holder}: skipped 1 of {files.count} files: {reason}\n"
        assert line in capsys.readouterr().err, f"open {time + 1}"
        monkeypatch.setattr(ManualBuilder, "_generate_examples", None)  # kept: not read again


def test_a_cache_made_with_skip_is_refused_with_raise(data_config, damaged):
    DataSet(data_config("miic", damaged, image_size=32, on_error="skip"))
    strict = DataSet(data_config("miic", damaged, image_size=32))
    strict.split("test")  # of which every file is good
    with pytest.raises(
        UserError, match=r"1 file cannot .*good/00001\.png: .*on_error=skip"
    ) as error:
        strict.check()
    assert "\n" not in str(error.value)


def test_a_split_without_a_usable_file_is_an_error(data_config, tmp_path):
    root = trees.miic(tmp_path / "miic")
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(
        UserError, match="^miic test: none of 4 files gave a usable image; the first: "
    ):
        DataSet(data_config("miic", root, image_size=32, on_error="skip"))


def test_one_patient_is_too_few_to_train_on(tmp_path, monkeypatch):
    monkeypatch.setitem(DATA_SETS, "one", DataSetInfo("one", "One image.", "published", "image"))

    class One(ManualBuilder, skip_registration=True):
        @classmethod
        def layout(cls, root, choices):
            return {"train": [Item("a", "ann", (root / "a.png",), 0)], "test": []}

    with pytest.raises(UserError, match="split 'train' has only one patient; give at least two"):
        One.splits(tmp_path, Choices())


# --- As `config.data` names them.


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brains")
    return trees.hcp(folder / "hcp"), trees.brats2017(folder / "brats2017")


def test_a_scan_of_the_user_is_cut_as_hcp_is(data_config, brains, tmp_path):
    data = data_config("hcp", brains[0], image_size=32)
    split = DataSet(data).split("train")
    subject = split.groups[0]
    # Under any name: the file of one scan need not be named as the published ones are.
    scan = tmp_path / "mine.nii.gz"
    shutil.copy(brains[0] / subject / "T1w/T2w_acpc_dc_restore_brain.nii.gz", scan)
    own = np.array(split.groups) == subject
    found = read_files(scan, data)
    np.testing.assert_array_equal(found.images, split.images[own])
    np.testing.assert_array_equal(found.positions, split.positions[own])


def test_hcp_has_natural_objects_in_its_test_split(data_config, brains, capsys):
    data_set = DataSet(data_config("hcp", brains[0], image_size=32))
    assert data_set.split_names == ("train", "val", "test_objects")
    data_set.check()
    test = data_set.split("test_objects")
    # 5 slices of 2 subjects; a third of all at each position where an object fits, at least one.
    assert len(test) == 10 and 0 < test.labels.sum() < 10
    np.testing.assert_array_equal(test.masks.any((1, 2)), test.labels == 1)
    np.testing.assert_array_equal(test.positions, [20, 21, 22, 23, 24] * 2)
    assert not data_set.split("train").labels.any()
    assert data_set.data.preprocess.foreground == "nonzero"  # what `auto` means here
    assert "warning" not in capsys.readouterr().err


def test_brats_as_a_test_set_for_hcp(data_config, brains):
    """All patients are tested, with slices that are counted differently."""
    data = data_config("hcp", brains[0], image_size=32)
    data.test.name, data.test.root = "brats2017", str(brains[1])
    data_set = DataSet(data)
    assert data_set.test_split_names == ("test_objects", "test_brats2017")
    data_set.check()
    test = data_set.split("test_brats2017")
    # The prefix separates them from patients of the run's own data.
    names = {place.split("/")[1] for place in trees.BRATS2017_PATIENTS}
    assert set(test.groups) == {f"brats2017:{name}" for name in names}
    assert test.positions is None and test.masks is not None
    # Slices 20 to 134 without the 2 unclear ones, 6 of them anomalous.
    assert len(test) == 5 * (115 - 2) and test.labels.sum() == 5 * 6
    assert test.images.dtype == data_set.split("train").images.dtype == np.uint16


def test_shared_patients_of_a_published_split_pass_the_check(data_config, tmp_path):
    DataSet(data_config("oct2017", trees.oct2017(tmp_path), image_size=32)).check()

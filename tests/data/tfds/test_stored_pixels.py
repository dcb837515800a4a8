"""Images on disk: they are those in memory, bit for bit, and so are the batches of them."""

import gc
import itertools
import tracemalloc

import numpy as np
import pytest
import stored_examples
from stored_examples import COUNTS, Patterns, make_config, pixels

from jaxad.data.pipeline.augment import Augmentation
from jaxad.data.pipeline.batching import eval_batches, train_batches
from jaxad.data.sources import check_split
from jaxad.data.tfds.splits import open_builder
from jaxad.data.tfds.stored_pixels import Records, StoredPixels
from jaxad.errors import UserError
from jaxad.types import row_blocks

KINDS = [("uint8", 1), ("uint16", 1), ("uint8", 3), ("uint16", 3), ("uint16", 2)]
EVERYTHING = Augmentation(mirror=True, rotation=5.0, scale=0.1, brightness=0.1, noise=0.01)
#: Bytes: no data set fits.
NOTHING = 1.0


@pytest.fixture(scope="session")
def open_both(tmp_path_factory):
    """The splits of `Patterns` in memory and on disk: `memory, disk = open_both(dtype="uint8")`."""
    folder = str(tmp_path_factory.mktemp("patterns"))

    def read(**fields):
        config = make_config(**fields)
        return tuple(
            {name: reader() for name, reader in open_builder(Patterns, config, folder, **k).items()}
            for k in ({}, {"budget": NOTHING})
        )

    return read


@pytest.fixture
def disk(open_both):
    return open_both(dtype="uint8", channels=1)[1]


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_every_depth_is_read_as_it_was_written(open_both, dtype, channels):
    memory, disk = open_both(dtype=dtype, channels=channels)
    for name, count in COUNTS.items():
        images, masks = pixels(name, make_config(dtype=dtype, channels=channels))
        assert isinstance(disk[name].images, StoredPixels)
        assert isinstance(memory[name].images, np.ndarray)
        for split in (memory[name], disk[name]):
            assert split.images.shape == images.shape and split.images.dtype == images.dtype
            np.testing.assert_array_equal(split.images[:], images)
            assert split.ids == tuple(f"{name}-{number}" for number in range(count))
            assert split.groups == tuple(f"patient-{number // 2}" for number in range(count))
            np.testing.assert_array_equal(split.positions, np.arange(count) % 2)
            if name == "train":  # its masks are not read
                assert split.masks is None and not split.labels.any()
            else:
                np.testing.assert_array_equal(split.labels, np.arange(count) % 2)
                np.testing.assert_array_equal(split.masks[:], masks)


@pytest.mark.parametrize(
    "key",
    [
        3, -1, np.int64(2), slice(2, 9), slice(None, None, -3), slice(5, 5), np.array([7, 0, 7]),
        [1, -2], np.arange(13) % 2 == 0,
    ],
    ids=str,
)  # fmt: skip
def test_an_index_means_what_it_means_to_numpy(disk, key):
    images, _ = pixels("train", make_config(dtype="uint8", channels=1))
    found = disk["train"].images[key]
    assert isinstance(found, np.ndarray) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, images[key])


@pytest.mark.parametrize("key", [13, -14, [0, 99], (0, 1)], ids=str)
def test_rows_that_do_not_exist_are_an_index_error(disk, key):
    with pytest.raises(IndexError):
        disk["train"].images[key]


def test_rows_of_a_split_stay_on_disk(disk, monkeypatch):
    images, masks = pixels("test_a", make_config(dtype="uint8", channels=1))
    with monkeypatch.context() as context:
        context.setattr(Records, "read", None)
        rows = disk["test_a"].rows(np.array([4, 1, 3])).rows(np.array([1, 2]))
    assert rows.ids == ("test_a-1", "test_a-3")
    np.testing.assert_array_equal(rows.images[:], images[[1, 3]])
    np.testing.assert_array_equal(rows.masks[1], masks[3])


def test_whole_arrays_are_read_with_a_warning(disk, capsys):
    images, _ = pixels("train", make_config(dtype="uint8", channels=1))
    np.testing.assert_array_equal(np.asarray(disk["train"].images), images)
    # 13 images of 8 x 8 pixels are 832 bytes.
    assert capsys.readouterr().err == (
        "warning: patterns train: this step needs every image at once: 7.75e-07 GiB are read into "
        "memory, whatever config.data.in_memory is.\n"
    )


def batches(split, **more):
    """Ten batches of 4 of 13 images: epochs end within batches."""
    settings = {"batch_size": 4, "augmentation": EVERYTHING, "start_step": 0, "stop_step": 10}
    return train_batches(split, **{**settings, **more})


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.parametrize(("dtype", "channels"), KINDS[:4])
@pytest.mark.parametrize("seed", [0, 7])
def test_training_batches_are_those_from_memory(open_both, dtype, channels, seed):
    memory, disk = (splits["train"] for splits in open_both(dtype=dtype, channels=channels))
    assert_same(batches(disk, seed=seed), batches(memory, seed=seed))
    # A resumed run, on another number of processes.
    for index in range(2):
        place = {"process_index": index, "process_count": 2, "start_step": 3, "seed": seed}
        assert_same(batches(disk, **place), batches(memory, **place))


def test_a_process_reads_its_own_rows_only(disk, monkeypatch):
    read, rows = Records.read, []
    monkeypatch.setattr(
        Records, "read", lambda self, chosen: rows.extend(chosen) or read(self, chosen)
    )
    taken = list(batches(disk["train"], seed=0, process_index=1, process_count=2))
    assert len(rows) == sum(len(batch["image"]) for batch in taken) == 10 * 4 / 2


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_batches_are_those_from_memory(open_both, process_count):
    memory, disk = (splits["test_a"] for splits in open_both(dtype="uint16", channels=1))
    for index in range(process_count):
        settings = {"batch_size": 4, "process_index": index, "process_count": process_count}
        labels = {"label": memory.labels}
        assert_same(
            eval_batches(disk.images, labels, **settings),
            eval_batches(memory.images, labels, **settings),
        )


# --- Damage.


def spoil(folder):
    """Overwrites the middle of the file of training images."""
    (path,) = folder.rglob("*train*array_record*")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 200 : middle + 200] = bytes(400)
    path.write_bytes(content)


@pytest.mark.parametrize("budget", [np.inf, NOTHING], ids=["in memory", "on disk"])
def test_damage_is_reported_in_one_line(tmp_path, budget):
    config = make_config(dtype="uint8", channels=3)
    readers = open_builder(Patterns, config, str(tmp_path), budget=budget)
    spoil(tmp_path)
    with pytest.raises(UserError) as error:
        check_split(readers["train"](), "patterns", (8, 8, 3), normal=True)
    message = str(error.value)
    assert message.startswith(f"cached data in '{tmp_path}/patterns/uint8-3/1.0.0' are damaged (")
    assert message.endswith("; delete that folder to prepare them again.") and "\n" not in message


def test_damage_during_training_is_the_same_line(disk, monkeypatch):
    """Not TensorFlow's error, whose text is a traceback."""
    stream = batches(disk["train"], seed=0)
    next(stream)

    def fail(self, rows):
        raise RuntimeError("the disk is gone\nsomewhere in C++")

    monkeypatch.setattr(Records, "read", fail)
    with pytest.raises(UserError, match=r"are damaged \(the disk is gone\); delete that folder"):
        list(stream)


# --- Memory.


def test_memory_does_not_grow_with_the_data(open_both):
    """64 MiB of images are checked and trained on; blocks of 16 MiB and some batches are held."""
    config = {"dtype": "uint8", "channels": 1, "size": 256, "train": 1024}
    folder_made = open_both(**config)  # generates the data
    memory, disk = (splits["train"] for splits in folder_made)
    assert memory.images.nbytes == 2**26
    del memory, folder_made
    gc.collect()
    tracemalloc.start()
    try:
        check_split(disk, "patterns", (256, 256, 1), normal=True)
        checked = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        for batch in itertools.islice(batches(disk, batch_size=16, seed=0), 5):
            del batch
        trained = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A block, what is compared in it, and its PNG files; float32 batches of 4 MiB.
    assert max(checked, trained) < 40 * 2**20, (checked, trained)


def test_blocks_are_of_bounded_size_and_cover_all_rows():
    for shape in [(5, 4096, 4096, 1), (100, 1024, 1024, 3), (3, 8, 8, 1), (0, 8, 8, 1)]:
        blocks = list(row_blocks(np.broadcast_to(np.uint8(0), shape)))
        rows = [row for block in blocks for row in range(block.start, block.stop)]
        assert rows == list(range(shape[0]))
        size = int(np.prod(shape[1:]))
        assert all(b.stop - b.start == 1 or (b.stop - b.start) * size <= 2**24 for b in blocks)


def test_the_examples_hold_every_value():
    """That the patterns cannot pass by being constant."""
    images, _ = stored_examples.pixels("train", make_config(dtype="uint16", channels=3))
    assert len(np.unique(images)) > images.size / 2

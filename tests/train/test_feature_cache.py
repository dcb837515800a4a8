"""The cache of a frozen encoder's features: content, reuse, damage, and reasons not to use it."""

import dataclasses
import errno
import fcntl
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad import models
from jaxad.runtime import interrupts
from jaxad.runtime.parallel import make_parallel
from jaxad.storage import data_copies
from jaxad.train import feature_cache
from jaxad.train.feature_cache import FeatureCache
from jaxad.train.state import initial_variables
from jaxad.types import Split

SIZE, COUNT = 32, 10
FIELDS = {
    "backbone": "efficientnet_lite0", "weights": "", "strides": (16,), "whitening": "none",
    "num_blocks": 1, "subnet": "conv",
    "permutation": "random", "moves": "second", "output_scale": 0.1, "global_scale": 0.1,
    "decoder_widths": (8, 8, 4), "alpha": 0.5, "beta": 0.9, "reconstruction_loss": "mse",
    "flow_loss": "per_dimension", "flow_score": "exp_mean", "pixel_map": "residual",
}  # fmt: skip


def split_of(seed=0):
    rng = np.random.default_rng(seed)
    names = tuple(str(number) for number in range(COUNT))
    return Split(
        images=rng.integers(0, 256, (COUNT, SIZE, SIZE, 1), np.uint8),
        labels=np.zeros(COUNT, np.int32),
        ids=names,
        groups=names,
    )


@pytest.fixture(scope="module")
def model_and_variables():
    model = models.build(
        "aeflow", FIELDS, image_shape=(SIZE, SIZE, 1), dtype=jnp.float32, axis_name=None
    )
    return model, initial_variables(model, 0)


@pytest.fixture
def cache(model_and_variables, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "_PART", 4)  # three parts: 4, 4 and 2 images
    model, variables = model_and_variables
    parallel = make_parallel("jit", jax.devices()[:2])
    return FeatureCache(tmp_path, "float16", model, variables, parallel, batch_size=4)


def expected(cache, split):
    images = jnp.asarray(split.images, jnp.float32) / 255
    return np.asarray(jax.jit(cache.model.features)(cache.variables, images))


class Calls:
    """Counts the images whose features are computed."""

    def __init__(self, monkeypatch):
        self.count = 0
        original = feature_cache.eval_batches

        def counted(images, *arguments, **options):
            self.count += len(images)
            return original(images, *arguments, **options)

        monkeypatch.setattr(feature_cache, "eval_batches", counted)


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_the_cache_holds_the_features_and_is_found_again(cache, monkeypatch, dtype, bits):
    cache, split, calls = dataclasses.replace(cache, dtype=dtype), split_of(), Calls(monkeypatch)
    found = cache.features(split, "train")
    assert isinstance(found, np.memmap) and found.shape == (COUNT, 2 * 2 * 112)
    np.testing.assert_allclose(
        found.astype(np.float32), expected(cache, split), rtol=2.0**-bits, atol=1e-4
    )
    assert calls.count == COUNT
    np.testing.assert_array_equal(cache.features(split, "train"), found)
    assert calls.count == COUNT  # nothing was computed again


def test_a_cache_in_a_bucket(cache, monkeypatch, bucket, tmp_path):
    cache, split, calls = dataclasses.replace(cache, folder=bucket), split_of(), Calls(monkeypatch)
    found = np.array(cache.features(split, "train"))
    assert calls.count == COUNT
    # Another machine finds them.
    monkeypatch.setattr(data_copies, "_copies", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    np.testing.assert_array_equal(cache.features(split, "train"), found)
    assert calls.count == COUNT


def test_other_images_weights_or_types_are_other_features(cache, model_and_variables):
    model, variables = model_and_variables
    keys = {cache._key(split_of(), (1,)), cache._key(split_of(1), (1,))}
    keys.add(dataclasses.replace(cache, dtype="bfloat16")._key(split_of(), (1,)))
    other = {**variables, "encoder": jax.tree.map(lambda x: x * 2, variables["encoder"])}
    keys.add(dataclasses.replace(cache, variables=other)._key(split_of(), (1,)))
    bfloat16 = dataclasses.replace(model, dtype=jnp.bfloat16)
    keys.add(dataclasses.replace(cache, model=bfloat16)._key(split_of(), (1,)))
    assert len(keys) == 5
    # What the features do not depend on does not change their name.
    trained = {**variables, "params": jax.tree.map(lambda x: x + 1, variables["params"])}
    same = dataclasses.replace(cache, variables=trained)
    assert same._key(split_of(), (1,)) == cache._key(split_of(), (1,))


def test_a_killed_computation_resumes_where_it_was(cache, monkeypatch):
    split = split_of()

    def stop_at_second_part(path, value, *, by_all, original=feature_cache.write_json):
        original(path, value, by_all=by_all)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(feature_cache, "write_json", stop_at_second_part)
        with pytest.raises(KeyboardInterrupt):
            cache.features(split, "train")
    calls = Calls(monkeypatch)
    found = cache.features(split, "train")
    assert calls.count == COUNT - 4
    np.testing.assert_allclose(found.astype(np.float32), expected(cache, split), atol=0.02)


def only_folder(cache):
    (folder,) = cache.folder.iterdir()
    return folder


def test_a_damaged_part_is_computed_again(cache, monkeypatch, capsys):
    split = split_of()
    good = np.array(cache.features(split, "train"))
    path = only_folder(cache) / "features.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    calls = Calls(monkeypatch)
    np.testing.assert_array_equal(cache.features(split, "train"), good)
    assert calls.count == 4
    assert "damaged parts: 1 of 3; they are computed again" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": 1, "sums": {"a": 1}}'])
def test_with_a_damaged_index_everything_is_computed_again(cache, monkeypatch, capsys, content):
    split = split_of()
    good = np.array(cache.features(split, "train"))
    (only_folder(cache) / "progress.json").write_text(content)
    calls = Calls(monkeypatch)
    np.testing.assert_array_equal(cache.features(split, "train"), good)
    assert calls.count == COUNT
    assert "is damaged; all features are computed again" in capsys.readouterr().out


def test_the_cache_of_another_version_is_replaced(cache, monkeypatch, capsys):
    split = split_of()
    cache.features(split, "train")
    index = only_folder(cache) / "progress.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "version": 0}))
    calls = Calls(monkeypatch)
    cache.features(split, "train")
    assert calls.count == COUNT
    told = capsys.readouterr().out
    assert "written by another version (0, this is 1)" in told
    assert json.loads(index.read_text())["version"] == feature_cache.VERSION


def test_a_full_disk_is_one_line_and_training_goes_on(cache, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert cache.features(split_of(), "train") is None
    told = capsys.readouterr().out
    assert "No space left on device" in told and "continues without the cache" in told
    assert told.count("\n") == 1
    assert not (only_folder(cache) / "features.bin").exists()


def test_a_cache_that_would_fill_the_disk_is_skipped(cache, monkeypatch, capsys):
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: usage)
    assert cache.features(split_of(), "train") is None
    assert "more than half of" in capsys.readouterr().out


def test_a_folder_that_cannot_be_used_is_one_line(cache, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    elsewhere = dataclasses.replace(cache, folder=tmp_path / "file")
    assert elsewhere.features(split_of(), "train") is None
    assert "cannot be used (Not a directory)" in capsys.readouterr().out


def test_features_that_half_precision_cannot_hold_are_not_kept(cache, capsys):
    encoder = cache.variables["encoder"]
    last = encoder["layers"]["block_10_project"]  # the features of stride 16
    layers = {**encoder["layers"], "block_10_project": jax.tree.map(lambda x: 1e6 * x, last)}
    huge = {**cache.variables, "encoder": {**encoder, "layers": layers}}
    assert dataclasses.replace(cache, variables=huge).features(split_of(), "train") is None
    assert "which float16 cannot hold" in capsys.readouterr().out


def test_a_signal_ends_the_wait_for_another_process(cache, capsys):
    split = split_of()
    features = cache.features(split, "train")
    (folder,) = cache.folder.iterdir()
    with (folder / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with interrupts.handled(), pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            cache.features(split, "train")
    assert "another process computes the same features" in capsys.readouterr().out
    np.testing.assert_array_equal(cache.features(split, "train"), features)

"""Exported detectors score as the run does, from one file, with JAX and NumPy alone."""

import contextlib
import json
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

import jaxad
from jaxad.calibration.calibration_set import CalibrationSet
from jaxad.config import get_config
from jaxad.config.model import make_model
from jaxad.detector import export, exported
from jaxad.detector.restored import RestoredDetector
from jaxad.errors import UserError
from jaxad.models import SYSTEMS
from jaxad.train.state import initial_variables


def make_detector(system):
    """Returns a detector with initial parameters."""
    config = get_config(f"{system}:smoke")
    config.data.root = "/home/Mrs. Miller"
    return RestoredDetector(config, initial_variables(make_model(config), 0), 3)


def write(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_deflated(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def calibration():
    scores = np.linspace(0, 1, 30)
    ids, groups = (tuple(f"{what} {n}" for n in range(30)) for what in ("image", "Mrs. Miller"))
    return CalibrationSet(
        "/home/x/site.npz", False, 3, ids, groups, True, scores, {"mse": scores}, scores
    )


@pytest.fixture(scope="module")
def members(calibration):
    return export.pack(make_detector("ae"), {"system": "ae"}, calibration)


@pytest.fixture
def file(members, tmp_path):
    return write(tmp_path / "detector.jaxad", members)


_LONG = ("aeflow", "differnet")


@pytest.mark.parametrize(
    "system",
    # Pretrained encoders compile slowly; FastFlow's is the fastest of them.
    [pytest.param(one, marks=pytest.mark.long if one in _LONG else ()) for one in SYSTEMS],
)
def test_it_scores_as_the_run_does(system, tmp_path):
    detector = make_detector(system)
    path = write(tmp_path / "detector.jaxad", export.pack(detector, {}, None))
    loaded = jaxad.load(path)
    rng = np.random.default_rng(1)
    images = rng.uniform(size=(5, *detector.image_shape)).astype(np.float32)
    ours, theirs = detector.score(images), loaded.score(images)
    np.testing.assert_allclose(theirs.image, ours.image, rtol=1e-5)
    leaves = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    for expected, found in leaves:  # squares of small differences in maps are near 0
        largest = float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * largest)
    for name in ("step", "image_shape", "num_parameters", "num_latents", "score_weights"):
        assert getattr(loaded, name) == getattr(detector, name)
    # The score is the weighted sum of its components.
    parts = [weight * ours.components[name] for name, weight in detector.score_weights.items()]
    np.testing.assert_allclose(sum(parts), ours.image, rtol=1e-5)


def test_the_program_is_for_cpu_cuda_and_tpu_and_any_number_of_images(members):
    program = jax.export.deserialize(bytearray(members[exported.PROGRAM]))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert str(program.in_avals[-1].shape[0]) == "batch"


def test_it_needs_neither_flax_nor_tensorflow(file):
    """Readers of files and configs are imported on first use, too."""
    script = f"""
import sys
import numpy as np
import jaxad
detector = jaxad.load({str(file)!r})
print(detector.score(np.zeros((1, *detector.image_shape), np.float32)).image.shape)
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    shape, names = result.stdout.strip().splitlines()
    assert shape == "(1,)"
    heavy = {"tensorflow", "flax", "optax", "orbax", "distrax", "ml_collections", "PIL", "nibabel",
             "sklearn", "skimage", "matplotlib", "pandas"}  # fmt: skip
    assert {"jax", "numpy"} <= set(names.split()) and not heavy & set(names.split())


def test_exported_calibrations_have_no_names_and_the_same_thresholds(file, calibration, members):
    content = b"".join(members.values())
    assert b"Miller" not in content and b"/home" not in content
    kept = jaxad.load(file).calibration_set
    assert (kept.name, kept.checkpoint_step) == ("another site", 3)
    ours = jaxad.load_calibration(file)
    for rate in (0.05, 0.2):  # rates are chosen at run time
        assert ours.image_threshold(rate) == calibration.calibration.image_threshold(rate)
    np.testing.assert_array_equal(kept.pixel_maxima, calibration.pixel_maxima)


def test_a_file_without_a_calibration_is_reported(tmp_path):
    path = write(tmp_path / "a.jaxad", export.pack(make_detector("ae"), {}, None))
    assert jaxad.load(path).calibration_set is None
    with pytest.raises(UserError, match="has no calibration; evaluate the run, then export"):
        jaxad.load_calibration(path)


@pytest.mark.parametrize("name", [exported.WEIGHTS, exported.PROGRAM, exported.CALIBRATION])
def test_a_changed_member_is_rejected(members, name, tmp_path):
    content = bytearray(members[name])
    content[len(content) // 2] ^= 1
    path = write(tmp_path / "a.jaxad", {**members, name: bytes(content)})
    with pytest.raises(UserError, match=f"{name} has changed since the export.*copy it again"):
        jaxad.load(path)


def with_digests(members):
    manifest = json.loads(members[exported.MANIFEST])
    for name in manifest["digests"]:
        manifest["digests"][name] = exported.digest(members[name])
    return {**members, exported.MANIFEST: json.dumps(manifest).encode()}


def test_different_golden_scores_are_rejected(members, tmp_path):
    """Simulates a processor that computes differently, by changing the expected score."""
    golden = exported._arrays(members[exported.GOLDEN])
    golden["score"] = golden["score"] * 1.01
    changed = with_digests({**members, exported.GOLDEN: export._npz(golden)})
    with pytest.raises(UserError, match="golden images score differently here: the score is off"):
        jaxad.load(write(tmp_path / "a.jaxad", changed))


def test_other_files_are_rejected_in_one_line(members, tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match="is not an exported detector, or is damaged"):
        jaxad.load(tmp_path / "text")
    manifest = {**json.loads(members[exported.MANIFEST]), "format": 99}
    newer = {**members, exported.MANIFEST: json.dumps(manifest).encode()}
    with pytest.raises(UserError, match="has format 99, but this version of jaxad reads 1"):
        jaxad.load(write(tmp_path / "newer", newer))
    garbage = with_digests({**members, exported.PROGRAM: b"garbage"})
    with pytest.raises(UserError, match="cannot be loaded") as raised:
        jaxad.load(write(tmp_path / "garbage", garbage))
    assert "\n" not in str(raised.value)


def test_any_damage_raises_a_user_error_or_nothing(members, tmp_path):
    content = write_deflated(tmp_path / "a.jaxad", members).read_bytes()
    rng, path = np.random.default_rng(0), tmp_path / "b.jaxad"
    for place in rng.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):  # bytes outside of members are not checked
            exported._members(path)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_may_be_smaller_than_the_golden_images(batch_size, tmp_path):
    config = get_config("lowvae:smoke")
    config.evaluate.batch_size = batch_size
    detector = RestoredDetector(config, initial_variables(make_model(config), 0), 3)
    jaxad.load(write(tmp_path / "a.jaxad", export.pack(detector, {}, None)))

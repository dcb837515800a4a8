"""Writes a run's detector to one file that scores without flax, TensorFlow or the run's folder."""

import importlib.metadata
import io
import json
import platform
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from jaxad import config as config_lib
from jaxad.calibration import stored as calibration_lib
from jaxad.config.model import make_model
from jaxad.detector import from_file
from jaxad.detector import from_run as detector_lib
from jaxad.detector.from_run import Detector, score_batch
from jaxad.errors import UserError
from jaxad.storage.workdir import Workdir, atomic_write
from jaxad.types import group_numbers

PLATFORMS = ("cpu", "cuda", "tpu")

#: Images that a file's scores are checked on; made here: patients' would travel with the file.
_NUM_GOLDEN = 4

_PURPOSE = (
    "Research. Scores how unlike an image is to the normal images that the system learnt from. It "
    "is no medical device, names no disease, and an image of another scanner, protocol or part of "
    "the body is unlike them too. Decisions hold for patients like those it is calibrated on."
)


def export(run: Workdir) -> Path:
    """Writes `detector.jaxad` from the last checkpoint of a run.

    Raises:
        UserError: no run, no checkpoint, or a calibration of another one.
    """
    detector = detector_lib.load(run.path)
    stored = calibration_lib.read(run)
    if stored is not None and stored.checkpoint_step != detector.step:
        raise UserError(
            f"workdir '{run.path}': its calibration is of checkpoint "
            f"{stored.checkpoint_step}, not of {detector.step}; evaluate it again first."
        )
    members = pack(detector, card(run, detector), stored)
    with (
        atomic_write(run.exported, "wb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, content in members.items():
            archive.writestr(name, content)
    return run.exported


def pack(
    detector: Detector, about: dict[str, Any], stored: calibration_lib.StoredCalibration | None
) -> dict[str, bytes]:
    """The members of a detector's file by name, the manifest first.

    Args:
        detector: what is exported.
        about: its card.
        stored: its calibration, if it has one.
    """
    members = {
        from_file.PROGRAM: program(detector),
        from_file.WEIGHTS: _npz(_leaves(detector)),
        from_file.CONFIG: config_lib.to_json(config_lib.without_paths(detector.config)).encode(),
        from_file.CARD: _json(about),
        from_file.GOLDEN: _npz(_golden(detector)),
    }
    if stored is not None:
        members[from_file.CALIBRATION] = _json(_without_names(stored.as_json()))
    manifest = {
        "format": from_file.FORMAT,
        "step": detector.step,
        "image_shape": detector.image_shape,
        "num_parameters": detector.num_parameters,
        "num_latents": detector.num_latents,
        "score_weights": dict(detector.score_weights),
        "batch_size": detector.config.evaluate.batch_size,
        "digests": {name: from_file.digest(content) for name, content in members.items()},
    }
    return {from_file.MANIFEST: _json(manifest), **members}


def program(detector: Detector) -> bytes:
    """The scoring program for all platforms and any number of images, serialised."""
    model = make_model(detector.config)
    variables = detector.variables
    structure = jax.tree.structure(variables)

    def run(weights: list[Any], images: Any) -> dict[str, Any]:
        found = score_batch(model, jax.tree.unflatten(structure, weights), images)
        return {
            "image": found.image,
            "pixel": found.pixel,
            "components": dict(found.components),
            "reconstructions": dict(found.reconstructions),
            "maps": dict(found.maps),
        }

    (batch,) = jax.export.symbolic_shape("batch")
    weights = [jax.ShapeDtypeStruct(one.shape, one.dtype) for one in jax.tree.leaves(variables)]
    images = jax.ShapeDtypeStruct((batch, *detector.image_shape), np.float32)
    lowered = jax.export.export(jax.jit(run), platforms=PLATFORMS)(weights, images)
    return bytes(lowered.serialize())


def card(run: Workdir, detector: Detector) -> dict[str, Any]:
    """What people should know of a detector before they use it."""
    config = detector.config
    evaluated = {}
    for folder in sorted(run.evaluation("x").parent.glob("*/metrics.json")):
        found = json.loads(folder.read_text(encoding="utf-8"))
        if found["checkpoint_step"] == detector.step:
            evaluated[folder.parent.name] = {
                name: found[name] for name in ("auroc", "num_images", "num_groups") if name in found
            }
    stored = calibration_lib.read(run)
    return {
        "system": config.model.name,
        "purpose": _PURPOSE,
        "data": config.data.name,
        "image_shape": list(detector.image_shape),
        "updates": detector.step,
        "seed": config.seed,
        "parameters": detector.num_parameters,
        "calibration_patients": None if stored is None else stored.calibration.num_patients,
        "evaluated_on": evaluated,
        "written_by": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")},
        },
        "platforms": list(PLATFORMS),
    }


def _leaves(detector: Detector) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves(detector.variables)
    return {str(place): np.asarray(leaf) for place, leaf in enumerate(leaves)}


def _golden(detector: Detector) -> dict[str, np.ndarray]:
    """Smooth noise of several brightnesses, and what the run's own detector makes of it."""
    height, width, channels = detector.image_shape
    coarse = np.random.default_rng(0).uniform(size=(_NUM_GOLDEN, 5, 5, channels))
    rows, columns = (np.linspace(0, 4, length) for length in (height, width))
    images = np.stack([_stretched(one, rows, columns) for one in coarse])
    images *= np.linspace(0.25, 1, _NUM_GOLDEN)[:, None, None, None]
    images = images.astype(np.float32)
    scores = detector.score(images)
    found = {"score": scores.image, "anomaly map": scores.pixel}
    return {"images": images, **{name: np.asarray(values) for name, values in found.items()}}


def _stretched(coarse: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Linearly interpolated at these places."""

    def along(values: np.ndarray, places: np.ndarray) -> np.ndarray:
        first = np.minimum(places.astype(int), len(values) - 2)
        share = (places - first).reshape(-1, *[1] * (values.ndim - 1))
        return values[first] * (1 - share) + values[first + 1] * share

    return along(along(coarse, rows).swapaxes(0, 1), columns).swapaxes(0, 1)


def _without_names(calibration: dict[str, Any]) -> dict[str, Any]:
    """Numbers for names: those of patients, also in a file's name, stay where they are."""
    numbers = group_numbers(calibration["groups"])
    return {
        **calibration,
        "source": calibration["source"] if calibration["is_own"] else "another site",
        "ids": [str(place) for place in range(len(calibration["ids"]))],
        "groups": [str(number) for number in numbers],
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub takes names for its options
    return file.getvalue()

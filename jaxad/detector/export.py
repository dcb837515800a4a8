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
import scipy.ndimage

from jaxad import config as config_lib
from jaxad.calibration.calibration_set import CalibrationSet, read_calibration_set
from jaxad.config.model import make_model
from jaxad.detector import exported
from jaxad.detector.restored import RestoredDetector, restore, score_batch
from jaxad.errors import UserError
from jaxad.storage.workdir import Workdir, atomic_write
from jaxad.types import group_numbers

PLATFORMS = ("cpu", "cuda", "tpu")

#: Number of synthetic images that check the file; images of patients must not be in it.
_NUM_GOLDEN = 4

_PURPOSE = (
    "Research. Scores how much an image differs from the normal images that the system was trained "
    "on. It is not a medical device and names no disease; an image of another scanner, protocol or "
    "part of the body differs too. Decisions hold for patients like those of the calibration."
)


def export(run: Workdir) -> Path:
    """Writes `detector.jaxad` from the last checkpoint of a run.

    Raises:
        UserError: there is no run or checkpoint, or its calibration was made with another
            checkpoint.
    """
    detector = restore(run.path)
    normals = read_calibration_set(run.calibration)
    if normals is not None and normals.checkpoint_step != detector.step:
        raise UserError(
            f"workdir '{run.path}': its calibration was made with checkpoint "
            f"{normals.checkpoint_step}, not {detector.step}; run --mode=evaluate first."
        )
    members = pack(detector, _card(run, detector, normals), normals)
    with (
        atomic_write(run.exported, "wb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, content in members.items():
            archive.writestr(name, content)
    return run.exported


def pack(
    detector: RestoredDetector, card: dict[str, Any], normals: CalibrationSet | None
) -> dict[str, bytes]:
    """Returns the members of a detector's file by name, the manifest first.

    Args:
        detector: the detector to export.
        card: facts for users; see `ExportedDetector.card`.
        normals: its calibration set, if any.
    """
    leaves = jax.tree.leaves(detector.variables)
    members = {
        exported.PROGRAM: _program(detector),
        exported.WEIGHTS: _npz({str(place): np.asarray(x) for place, x in enumerate(leaves)}),
        exported.CONFIG: config_lib.to_json(config_lib.without_paths(detector.config)).encode(),
        exported.CARD: _json(card),
        exported.GOLDEN: _npz(_golden(detector)),
    }
    if normals is not None:
        members[exported.CALIBRATION] = _json(_without_names(normals.as_json()))
    manifest = {
        "format": exported.FORMAT,
        "step": detector.step,
        "image_shape": detector.image_shape,
        "num_parameters": detector.num_parameters,
        "num_latents": detector.num_latents,
        "score_weights": dict(detector.score_weights),
        "batch_size": detector.config.evaluate.batch_size,
        "digests": {name: exported.digest(content) for name, content in members.items()},
    }
    return {exported.MANIFEST: _json(manifest), **members}


def _program(detector: RestoredDetector) -> bytes:
    """Serialises the scoring program for all platforms and any number of images."""
    model = make_model(detector.config)
    leaves, structure = jax.tree.flatten(detector.variables)

    def run(weights: list[Any], images: Any) -> dict[str, Any]:
        scores = score_batch(model, jax.tree.unflatten(structure, weights), images)
        return {
            "image": scores.image,
            "pixel": scores.pixel,
            "components": dict(scores.components),
            "reconstructions": dict(scores.reconstructions),
            "maps": dict(scores.maps),
        }

    (batch,) = jax.export.symbolic_shape("batch")
    weights = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    images = jax.ShapeDtypeStruct((batch, *detector.image_shape), np.float32)
    lowered = jax.export.export(jax.jit(run), platforms=PLATFORMS)(weights, images)
    return bytes(lowered.serialize())


def _card(
    run: Workdir, detector: RestoredDetector, normals: CalibrationSet | None
) -> dict[str, Any]:
    """Collects the facts that users need before they use a detector."""
    config = detector.config
    evaluated = {}
    for path in sorted(run.evaluation("x").parent.glob("*/metrics.json")):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        # The name of another site must not leave this one.
        if metrics["checkpoint_step"] == detector.step and "external" not in metrics:
            evaluated[path.parent.name] = {
                name: metrics[name] for name in ("auroc", "num_images", "num_patients")
            }
    return {
        "system": config.model.name,
        "purpose": _PURPOSE,
        "data": config.data.name,
        "image_shape": list(detector.image_shape),
        "updates": detector.step,
        "seed": config.seed,
        "parameters": detector.num_parameters,
        "calibration_patients": None if normals is None else normals.calibration.num_patients,
        "evaluated_on": evaluated,
        "written_by": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")},
        },
        "platforms": list(PLATFORMS),
    }


def _golden(detector: RestoredDetector) -> dict[str, np.ndarray]:
    """Returns smooth noise at several brightnesses with the scores of the run's own detector."""
    height, width, channels = detector.image_shape
    coarse = np.random.default_rng(0).uniform(size=(_NUM_GOLDEN, 5, 5, channels))
    images = scipy.ndimage.zoom(coarse, (1, height / 5, width / 5, 1), order=1)
    images *= np.linspace(0.25, 1, _NUM_GOLDEN)[:, None, None, None]
    images = images.astype(np.float32)
    scores = detector.score(images)
    return {
        "images": images,
        "score": np.asarray(scores.image),
        "anomaly map": np.asarray(scores.pixel),
    }


def _without_names(calibration: dict[str, Any]) -> dict[str, Any]:
    """Replaces names of patients, images and another site's file: they must not leave the site."""
    return {
        **calibration,
        "source": calibration["source"] if calibration["is_own"] else "another site",
        "ids": [str(place) for place in range(len(calibration["ids"]))],
        "groups": [str(number) for number in group_numbers(calibration["groups"])],
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub takes names for its options
    return file.getvalue()

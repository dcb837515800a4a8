"""An exported detector: one file that scores with JAX and NumPy alone.

`jaxad.detector.export` writes the file, a zip archive of

- `manifest.json`: the version of the format, digests of all other members, sizes of the detector;
- `program.bin`: the scoring program, StableHLO for CPU, CUDA and TPU with any number of images;
- `weights.npz`: its first argument, in order;
- `config.json`, `card.json`, `calibration.json`: for preprocessing, for people, for decisions;
- `golden.npz`: images with their scores by the run's own detector.

Nothing in it is unpickled, and a program that calls anything but `CUSTOM_CALLS` (such as Python) is
rejected. Importing this module imports neither flax nor TensorFlow.
"""

import functools
import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxad.data.pipeline.batching import eval_batches
from jaxad.detector.detector import Detector
from jaxad.errors import UserError, first_line
from jaxad.runtime import interrupts
from jaxad.types import Pixels, Scores

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from jaxad.calibration.calibration_set import CalibrationSet

#: Version of the archive's layout; files of other versions are rejected.
FORMAT = 1

MANIFEST = "manifest.json"
PROGRAM = "program.bin"
WEIGHTS = "weights.npz"
CONFIG = "config.json"
CARD = "card.json"
CALIBRATION = "calibration.json"
GOLDEN = "golden.npz"

#: Custom calls that programs may contain: checks of shapes, annotations of layouts.
CUSTOM_CALLS = frozenset(["shape_assertion", "Sharding"])

#: Largest relative error of a golden score: processors round differently.
_TOLERANCE = 1e-3


class ExportedDetector(Detector):
    """A detector from a file; see `Detector`.

    Attributes:
        card: facts for users: purpose, data, evaluation, versions.
    """

    def __init__(self, members: Mapping[str, bytes]):
        """Builds the detector from the archive's members, whose digests `load` has checked."""
        manifest, weights = json.loads(members[MANIFEST]), _arrays(members[WEIGHTS])
        self.step = int(manifest["step"])
        self.image_shape = tuple(manifest["image_shape"])
        self.num_parameters = int(manifest["num_parameters"])
        self.num_latents = int(manifest["num_latents"])
        self.score_weights = {str(k): float(v) for k, v in manifest["score_weights"].items()}
        self.card: dict[str, Any] = json.loads(members[CARD])
        self._calibration_json = json.loads(members.get(CALIBRATION, b"null"))
        self._batch_size = int(manifest["batch_size"])
        self._config_json = members[CONFIG].decode()
        self._weights = jax.device_put([weights[str(place)] for place in range(len(weights))])
        program = jax.export.deserialize(bytearray(members[PROGRAM]))
        check_calls(program.mlir_module())
        self._compiled = jax.jit(lambda weights, images: program.call(weights, images))

    @functools.cached_property
    def config(self) -> "ConfigDict":
        """Config of the run that trained this detector."""
        from jaxad import config  # imports ml_collections, which scoring does not need

        return config.from_json(self._config_json)

    @functools.cached_property
    def calibration_set(self) -> "CalibrationSet | None":
        """The normal images that decisions are calibrated on; None without a calibration."""
        from jaxad.calibration.calibration_set import CalibrationSet  # SciPy: scoring needs none

        fields = self._calibration_json
        return None if fields is None else CalibrationSet.from_json(fields)

    def score_batches(self, images: Pixels) -> Iterator[Scores]:
        """See `Detector.score_batches`."""
        for batch in eval_batches(images, {}, batch_size=self._batch_size):
            interrupts.check()
            outputs = self._compiled(self._weights, jnp.asarray(batch["image"]))
            valid = int(batch["_valid"].sum())
            rows = jax.tree.map(lambda array, count=valid: np.asarray(array)[:count], outputs)
            yield Scores(**rows)


def has_calibration(path: Path, normals: "CalibrationSet") -> bool:
    """Tells whether an exported file has this calibration; False if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            fields = json.loads(archive.read(CALIBRATION))
        step, scores = fields["checkpoint_step"], fields["scores"]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return False
    return (step, scores) == (normals.checkpoint_step, normals.scores.tolist())


def load(path: Path) -> ExportedDetector:
    """Loads the detector of an exported file and checks it on the golden images.

    Raises:
        UserError: the file is damaged or not a detector, or it scores differently on this machine.
    """
    members = _members(path)
    try:
        detector = ExportedDetector(members)
        golden = _arrays(members[GOLDEN])
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise UserError(f"'{path}': cannot be loaded ({_line(error)}); export it again.") from error
    scores = detector.score(golden["images"])
    for name, values in (("score", scores.image), ("anomaly map", scores.pixel)):
        expected = golden[name]
        # For scores near 0, relative to how much scores differ.
        scale = np.maximum(np.abs(expected), float(np.ptp(expected)))
        off = float(np.max(np.abs(values - expected) / np.maximum(scale, 1e-12)))
        if not off <= _TOLERANCE:
            raise UserError(
                f"'{path}': its golden images score differently here: the {name} is off by "
                f"{off:.2g} (relative; {_TOLERANCE:g} is allowed). Do not use it on this machine; "
                "export it again, or update jax."
            )
    return detector


def read_weights(path: Path) -> tuple[str, int, list[np.ndarray]]:
    """Reads the config (JSON), the step, and the variables' leaves in order, without the program.

    Raises:
        UserError: the file is damaged or not a detector.
    """
    members = _members(path)
    try:
        weights, step = _arrays(members[WEIGHTS]), int(json.loads(members[MANIFEST])["step"])
        return members[CONFIG].decode(), step, [weights[str(n)] for n in range(len(weights))]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}': cannot be loaded ({_line(error)}); export it again.") from error


def check_calls(program: str) -> None:
    """Checks the custom calls of a program, given as StableHLO text.

    Raises:
        ValueError: a call is not in `CUSTOM_CALLS`.
    """
    for line in program.splitlines():
        if "custom_call" not in line:
            continue
        name = re.search(r'custom_call(?:"\(.*call_target_name = "| *@"?)([\w.$-]+)', line)
        if name is None or name[1] not in CUSTOM_CALLS:
            call = line.strip()[:60] if name is None else name[1]
            raise ValueError(f"its program calls '{call}'")


def digest(content: bytes) -> str:
    """Returns the digest of a member, for the manifest."""
    return hashlib.sha256(content).hexdigest()


def _members(path: Path) -> dict[str, bytes]:
    """Reads the archive's members and checks their digests."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            manifest = json.loads(archive.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise UserError(
                    f"'{path}': has format {manifest['format']}, but this version of jaxad reads "
                    f"{FORMAT}; export it again."
                )
            members = {name: archive.read(name) for name in manifest["digests"] if name in names}
        for name, expected in manifest["digests"].items():
            if name not in members or digest(members[name]) != expected:
                raise ValueError(f"{name} has changed since the export")
        return {**members, MANIFEST: json.dumps(manifest).encode()}
    except OSError as error:
        raise UserError(f"'{path}': {error.strerror or error}; name an exported file.") from error
    except (
        zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, AttributeError,
        RuntimeError, EOFError,
    ) as error:  # fmt: skip
        raise UserError(
            f"'{path}': is not an exported detector, or is damaged ({_line(error)}); copy it again."
        ) from error


def _line(error: Exception) -> str:
    return first_line(error)[:200]


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}

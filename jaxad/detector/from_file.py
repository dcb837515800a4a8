"""An exported detector: one file that scores with JAX and NumPy alone.

`jaxad.detector.export` writes the file, a zip archive of

- `manifest.json`: the version of the format, digests of all other members, the names of outputs;
- `program.bin`: the scoring program, StableHLO for CPU, CUDA and TPU with any number of images;
- `weights.npz`: its first argument, in order;
- `config.json`, `card.json`, `calibration.json`: for preprocessing, for people, for decisions;
- `golden.npz`: images with the scores that the run's own detector gave them.

Nothing in it is unpickled, and a program that calls anything but `CUSTOM_CALLS` (Python, say) is
refused. Importing this module imports neither flax nor TensorFlow.
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
from jaxtyping import Float

from jaxad.data.pipeline.batching import eval_batches
from jaxad.detector.scorer import Scorer
from jaxad.errors import UserError, first_line
from jaxad.runtime import interrupts
from jaxad.types import Scores

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from jaxad.calibration.stored import StoredCalibration

#: Of the layout of the archive; a file of another one is refused.
FORMAT = 1

MANIFEST = "manifest.json"
PROGRAM = "program.bin"
WEIGHTS = "weights.npz"
CONFIG = "config.json"
CARD = "card.json"
CALIBRATION = "calibration.json"
GOLDEN = "golden.npz"

#: What programs may call beside StableHLO's own operations: checks of shapes, notes on layouts.
CUSTOM_CALLS = frozenset(["shape_assertion", "Sharding"])

#: How far a golden score may lie off: other processors round otherwise.
_TOLERANCE = 1e-3


class ExportedDetector(Scorer):
    """A detector from a file; see `Scorer`.

    Attributes:
        card: what people should know of it, by topic.
    """

    def __init__(self, members: Mapping[str, bytes]):
        """Takes the archive's members, which `load` has checked."""
        manifest, weights = json.loads(members[MANIFEST]), _arrays(members[WEIGHTS])
        self.step = int(manifest["step"])
        self.image_shape = tuple(manifest["image_shape"])
        self.num_parameters = int(manifest["num_parameters"])
        self.num_latents = int(manifest["num_latents"])
        self.score_weights = {str(k): float(v) for k, v in manifest["score_weights"].items()}
        self.card: dict[str, Any] = json.loads(members[CARD])
        found = members.get(CALIBRATION)
        self._calibration_json = None if found is None else json.loads(found)
        self._batch_size = int(manifest["batch_size"])
        self._config_json = members[CONFIG].decode()
        self._weights = jax.device_put([weights[str(place)] for place in range(len(weights))])
        program = jax.export.deserialize(bytearray(members[PROGRAM]))
        check_calls(program.mlir_module())
        self._compiled = jax.jit(lambda weights, images: program.call(weights, images))
        # Where only image scores are wanted the compiler drops all that they do not need.
        self._compiled_image_only = jax.jit(
            lambda weights, images: program.call(weights, images)["image"]
        )

    @functools.cached_property
    def config(self) -> "ConfigDict":
        """Of the run."""
        from jaxad import config  # it reads YAML and more; scoring needs none of it

        return config.from_json(self._config_json)

    @functools.cached_property
    def calibration(self) -> "StoredCalibration | None":
        """What decisions follow from; None where the run had none."""
        from jaxad.calibration import stored  # scikit-learn: scoring needs none of it

        found = self._calibration_json
        return None if found is None else stored.from_json(found)

    def score_batches(self, images: np.ndarray) -> Iterator[Scores]:
        """See `Scorer.score_batches`."""
        for found in self._batches(images, self._compiled):
            yield Scores(**found)

    def image_score_batches(self, images: np.ndarray) -> Iterator[Float[np.ndarray, " batch"]]:
        """See `Scorer.image_score_batches`."""
        return self._batches(images, self._compiled_image_only)

    def _batches(self, images: np.ndarray, compiled: Any) -> Iterator[Any]:
        for batch in eval_batches(images, {}, batch_size=self._batch_size):
            interrupts.check()
            found = compiled(self._weights, jnp.asarray(batch["image"]))
            valid = int(batch["_valid"].sum())
            yield jax.tree.map(lambda array, count=valid: np.asarray(array)[:count], found)


def load(path: Path) -> ExportedDetector:
    """The detector of an exported file, after its golden images scored as they should.

    Raises:
        UserError: it is no such file, is damaged, or scores otherwise here.
    """
    members = _members(path)
    try:
        detector = ExportedDetector(members)
        golden = _arrays(members[GOLDEN])
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise UserError(f"'{path}': cannot be loaded ({_line(error)}); export it again.") from error
    found = detector.score(golden["images"])
    for name, values in (("score", found.image), ("anomaly map", found.pixel)):
        expected = golden[name]
        # Of a score near 0 what matters is how scores differ.
        scale = np.maximum(np.abs(expected), float(np.ptp(expected)))
        off = float(np.max(np.abs(values - expected) / np.maximum(scale, 1e-12)))
        if not off <= _TOLERANCE:
            raise UserError(
                f"'{path}': its golden images score otherwise here: the {name} is off by {off:.2g} "
                f"(relative; {_TOLERANCE:g} is allowed). Do not use it on this machine; export it "
                "again, or update jax."
            )
    return detector


def check_calls(program: str) -> None:
    """Checks what a program in StableHLO's text calls.

    Raises:
        ValueError: anything that is not of `CUSTOM_CALLS`.
    """
    for line in program.splitlines():
        if "custom_call" not in line:
            continue
        name = re.search(r'custom_call(?:"\(.*call_target_name = "| *@"?)([\w.$-]+)', line)
        if name is None or name[1] not in CUSTOM_CALLS:
            raise ValueError(
                f"its program calls '{line.strip()[:60] if name is None else name[1]}'"
            )


def digest(content: bytes) -> str:
    """Of a member, for the manifest."""
    return hashlib.sha256(content).hexdigest()


def _members(path: Path) -> dict[str, bytes]:
    """The archive's members, none of them changed since it was written."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            manifest = json.loads(archive.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise UserError(
                    f"'{path}': is of format {manifest['format']}, this version of jaxad reads "
                    f"{FORMAT}; export it again."
                )
            found = {name: archive.read(name) for name in manifest["digests"] if name in names}
        for name, expected in manifest["digests"].items():
            if name not in found or digest(found[name]) != expected:
                raise ValueError(f"{name} is not what was exported")
        return {**found, MANIFEST: json.dumps(manifest).encode()}
    except OSError as error:
        raise UserError(f"'{path}': {error.strerror or error}; name an exported file.") from error
    except (
        zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, AttributeError,
        RuntimeError, EOFError,
    ) as error:  # fmt: skip
        raise UserError(
            f"'{path}': is no exported detector or is damaged ({_line(error)}); copy it again."
        ) from error


def _line(error: Exception) -> str:
    return first_line(error)[:200]


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}

"""Features of a frozen encoder, computed once and kept on disk.

An encoder that never changes gives the same features in every epoch. They are written as one array
[N, ...] in two bytes a number, memory-mapped when they are read, and found again by the content of
everything that they depend on: the encoder's variables, the images, and how both are used. Only
training reads them; scores are always computed from the image.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from tqdm import tqdm

from jaxad.data.pipeline import eval_batches
from jaxad.errors import UserError
from jaxad.parallel import Parallel
from jaxad.types import Batch, PretrainedModel, Split, Tree
from jaxad.workdir import write_json

#: Of the files' layout and of what else the features depend on in this package (normalisation).
VERSION = 1

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

#: Examples that are written, checked and, where damaged, computed again together.
_CHUNK = 256
#: Share of the free disk that a cache may take.
_LARGEST_SHARE = 0.5


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/jaxad/features`, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jaxad" / "features"


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """Where features are kept and how they are computed.

    Attributes:
        folder: holds a folder for every set of features.
        dtype: one of `DTYPES`.
        model: whose encoder.
        variables: of the model, the encoder's read.
        parallel: the devices to compute on.
        batch_size: at which to compute.
    """

    folder: Path
    dtype: str
    model: PretrainedModel
    variables: Tree
    parallel: Parallel
    batch_size: int

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(
                f"config.train.feature_cache_dtype: unknown type '{self.dtype}'; "
                f"known: {', '.join(DTYPES)}."
            )

    def features(self, split: Split, name: str) -> np.ndarray | None:
        """Features of every image of a split, [N, ...], memory-mapped; None where it cannot be.

        What is there already is checked; what is missing or damaged is computed, with a progress
        bar. A run that is killed meanwhile goes on from where it was. Where the disk is too small
        or cannot be written, a line says so and training computes features as it goes.
        """
        shape = (len(split), *self._feature_shape())
        target = self.folder.expanduser() / self._key(split, shape)
        size = int(np.prod(shape)) * DTYPES[self.dtype].itemsize
        try:
            target.mkdir(parents=True, exist_ok=True)
            with _locked(target / ".lock"):
                return self._open(target, split, name, shape, size)
        except _NoCache as error:
            _say(f"{name}: {error}; training goes on without the cache.")
        except OSError as error:
            _say(
                f"{name}: '{target}' cannot be used ({error.strerror}); training goes on without "
                "the cache."
            )
        return None

    def _feature_shape(self) -> tuple[int, ...]:
        one = jax.ShapeDtypeStruct((1, *self.model.image_shape), np.float32)
        return jax.eval_shape(self.model.features, self.variables, one).shape[1:]

    def _key(self, split: Split, shape: tuple[int, ...]) -> str:
        """A name made of all that the features depend on."""
        digest = hashlib.blake2b(digest_size=16)
        about = [self.model.encoder_name, self.dtype, shape, str(split.images.dtype)]
        digest.update(json.dumps([*about, split.images.shape]).encode())
        frozen = self.model.pretrained_variables(jax.random.key(0))
        own = {collection: self.variables[collection] for collection in frozen}
        for path, leaf in jax.tree_util.tree_leaves_with_path(own):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).data)
        for start in range(0, len(split), _CHUNK):
            digest.update(np.ascontiguousarray(split.images[start : start + _CHUNK]).data)
        return digest.hexdigest()

    def _open(
        self, target: Path, split: Split, name: str, shape: tuple[int, ...], size: int
    ) -> np.ndarray:
        data, index = target / "features.bin", target / "progress.json"
        sums = _read_sums(index, name)
        if not data.exists() or data.stat().st_size != size:
            sums = {}
            _allocate(data, size)
        array = np.memmap(data, DTYPES[self.dtype], "r+", shape=shape)
        chunks = range(0, len(split), _CHUNK)
        bad = [start for start in chunks if sums.get(start) != _check_sum(array, start)]
        damaged = [start for start in bad if start in sums]
        if damaged:
            _say(f"{name}: {len(damaged)} of {len(chunks)} parts are damaged, computed again.")
        if bad:
            where = "" if len(bad) == len(chunks) else f", {len(chunks) - len(bad)} parts are there"
            _say(f"{name}: {size / 1e6:.0f} MB to '{target}'{where}.")
            self._compute(array, split, name, bad, sums, index)
        return np.memmap(data, DTYPES[self.dtype], "r", shape=shape)

    def _compute(
        self,
        array: np.memmap,
        split: Split,
        name: str,
        starts: list[int],
        sums: dict[int, int],
        index: Path,
    ) -> None:
        compiled = self._compiled()
        variables = self.parallel.put_replicated(self.variables)
        batch_size = self.parallel.round_up(min(self.batch_size, _CHUNK))
        rows = [len(split.images[start : start + _CHUNK]) for start in starts]
        with tqdm(
            total=sum(rows), desc=f"features {name}", unit="image", dynamic_ncols=True
        ) as bar:
            for start, count in zip(starts, rows, strict=True):
                batches = eval_batches(
                    split.images[start : start + count], {}, batch_size=batch_size
                )
                done = 0
                for batch in self.parallel.prefetch(batches):
                    found = self.parallel.get_per_example(compiled(variables, batch))
                    found = found[: count - done]
                    _check_range(found, array.dtype)
                    array[start + done : start + done + len(found)] = found.astype(array.dtype)
                    done += len(found)
                    bar.update(len(found))
                array.flush()
                sums[start] = _check_sum(array, start)
                write_json(
                    index, {"version": VERSION, "sums": {str(k): v for k, v in sums.items()}}
                )

    def _compiled(self) -> Callable[[Tree, Tree], Tree]:
        def function(variables: Tree, batch: Batch) -> Tree:
            # As scores see them: accelerators would multiply in fewer bits.
            with jax.default_matmul_precision("highest"):
                return self.model.features(variables, batch["image"])

        return self.parallel.compile_per_example(function)


class _NoCache(Exception):
    """Why there is no cache."""


def _say(text: str) -> None:
    print(f"feature cache: {text}", flush=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits until no other process builds the same features."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_sums(index: Path, name: str) -> dict[int, int]:
    """Check sums of the parts that are complete, by their first example."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
        version, sums = found["version"], {int(k): int(v) for k, v in found["sums"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        _say(f"{name}: '{index}' is damaged, everything is computed again.")
        return {}
    if version != VERSION:
        _say(
            f"{name}: '{index.parent}' was written by another version ({version}, this is "
            f"{VERSION}), everything is computed again."
        )
        return {}
    return sums


def _check_sum(array: np.ndarray, start: int) -> int:
    return zlib.crc32(np.ascontiguousarray(array[start : start + _CHUNK]).view(np.uint8).data)


def _allocate(path: Path, size: int) -> None:
    """Takes the whole file's room at once: a disk that is too small says so before the work."""
    free = shutil.disk_usage(path.parent).free
    if size > free * _LARGEST_SHARE:
        raise _NoCache(
            f"{size / 1e9:.1f} GB of features are more than half of the {free / 1e9:.1f} GB that "
            f"are free on the disk of '{path.parent}' (set config.train.feature_cache to a folder "
            "on a larger one)"
        )
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _check_range(features: np.ndarray, dtype: np.dtype) -> None:
    largest = float(np.abs(features).max(initial=0.0))
    if not largest <= float(ml_dtypes.finfo(dtype).max):
        raise _NoCache(f"a feature is {largest:g}, which {dtype.name} cannot hold")

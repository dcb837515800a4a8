"""A cache on disk for the features of a frozen encoder.

A frozen encoder gives the same features in every epoch. They are written once as an array [N, ...]
in float16 or bfloat16, which is memory-mapped when it is read. Its folder is named by a digest of
everything that the features depend on: the encoder's variables, the images, and how both are used.
Training and reference scores read features; systems always score from the image.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from ml_collections import ConfigDict

from jaxad.data.pipeline.batching import HostBatch, eval_batches
from jaxad.runtime import interrupts, locks, processes
from jaxad.runtime.parallel import Parallel
from jaxad.runtime.progress import progress_bar
from jaxad.storage import data_copies
from jaxad.storage.buckets import StoreError
from jaxad.storage.home import cache_folder
from jaxad.storage.locations import locate_data
from jaxad.storage.workdir import write_json
from jaxad.types import FeatureExtractor, Model, Split, Tree, Variables

logger = logging.getLogger(__name__)

#: Version of the files and of everything else in this package that the features depend on
#: (normalisation).
VERSION = 1

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

#: Examples in a part: parts are written, checked and, if damaged, computed again as a whole.
_PART = 256
#: Largest share of the free disk space that a cache may take.
_LARGEST_SHARE = 0.5


def default_folder() -> Path | None:
    """Returns `$XDG_CACHE_HOME/jaxad/features`, by default below ~/.cache; None without."""
    base = cache_folder()
    return None if base is None else base / "jaxad" / "features"


def cached_features(
    config: ConfigDict,
    model: Model | FeatureExtractor,
    parallel: Parallel,
    variables: Sequence[Variables],
    splits: Mapping[str, Split],
    *,
    images_change: bool,
) -> dict[str, np.ndarray]:
    """Returns the features of splits from the cache, computing what is missing.

    Args:
        config: the config of the run.
        model: the model; without a frozen encoder there are no features.
        parallel: the devices of the run.
        variables: the variables of each seed.
        splits: the splits by name.
        images_change: whether augmentation changes the images at every step.

    Returns:
        Features [N, ...] by split, without splits whose features cannot be cached and are computed
        in every step.
    """
    setting = config.train.feature_cache
    if not isinstance(model, FeatureExtractor) or setting == "off":
        return {}
    folder = setting or default_folder()
    if folder is None:
        _log(
            "not used, this user has no home folder to write to; set XDG_CACHE_HOME, or "
            "config.train.feature_cache to a folder."
        )
        return {}
    encoders = [[of_seed[name] for name in model.frozen_collections] for of_seed in variables]
    equal = [jax.tree.map(np.array_equal, encoders[0], other) for other in encoders[1:]]
    if not all(jax.tree.leaves(equal)):
        _log("not used, every seed has an encoder of its own.")
        return {}
    if images_change:
        _log("not used, config.data.augment changes the images at every step.")
        return {}
    # Every process computes them itself; processes that share the folder take turns.
    devices, dtype = parallel.local(), config.train.feature_cache_dtype
    cache = FeatureCache(folder, dtype, model, variables[0], devices, config.evaluate.batch_size)
    features = {name: cache.features(split, name) for name, split in splits.items()}
    # All processes or none: cached features are rounded, and need a different program.
    in_all = {name: all(processes.of_all(x is not None)) for name, x in features.items()}
    return {name: array for name, array in features.items() if array is not None and in_all[name]}


class Encoder:
    """The frozen encoder of a model, compiled for several devices."""

    def __init__(self, model: FeatureExtractor, variables: Variables, parallel: Parallel):
        self._parallel = parallel
        self._variables = parallel.put_replicated(variables)
        self._compiled = parallel.compile_per_example(
            lambda variables, batch: model.features(variables, batch["image"])
        )

    def features(self, batches: Iterable[HostBatch]) -> Iterator[np.ndarray]:
        """Yields the features of each batch, [B, ...]; the devices must be able to share B."""
        for batch in self._parallel.prefetch(batches):
            yield self._parallel.get_per_example(self._compiled(self._variables, batch))


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """A folder that holds a folder for every set of features, and how they are computed."""

    folder: str | Path  # or a URL
    dtype: str  # one of `DTYPES`
    model: FeatureExtractor
    variables: Tree
    parallel: Parallel
    batch_size: int

    def features(self, split: Split, name: str) -> np.ndarray | None:
        """Returns the features of every image of a split, [N, ...], memory-mapped.

        Existing parts are checked; missing and damaged ones are computed, with a progress bar. A
        process that was killed meanwhile resumes where it was. If the disk is too small or cannot
        be written, a message says so and the result is None.
        """
        image = jax.ShapeDtypeStruct((1, *self.model.image_shape), np.float32)
        one = jax.eval_shape(self.model.features, self.variables, image)
        shape = (len(split), *one.shape[1:])
        path = f"{self.folder}/{self._key(split, shape)}"
        target = locate_data(path, "config.train.feature_cache")
        try:
            target.mkdir(parents=True, exist_ok=True)
            message = f"feature cache: {name}: another process computes the same features, waiting."
            with locks.wait_for_lock(target / ".lock", message):
                features = self._open(_Files(target, DTYPES[self.dtype], shape), split, name)
            data_copies.push(target)
            return features
        except _NoCache as error:
            reason = str(error)
        except OSError as error:
            reason = f"'{target}' cannot be used ({error.strerror})"
        except StoreError as error:
            reason = f"'{target}' cannot be written ({error})"
        _log(f"{name}: {reason}; training continues without the cache.")
        return None

    def _key(self, split: Split, shape: tuple[int, ...]) -> str:
        """Digests everything that the features depend on."""
        digest = hashlib.blake2b(digest_size=16)
        header = [self.model.encoder_description, self.dtype, shape, str(split.images.dtype)]
        digest.update(json.dumps([*header, split.images.shape]).encode())
        frozen = {name: self.variables[name] for name in self.model.frozen_collections}
        for path, leaf in jax.tree_util.tree_leaves_with_path(frozen):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).data)
        for start in range(0, len(split), _PART):
            digest.update(np.ascontiguousarray(split.images[start : start + _PART]).data)
        return digest.hexdigest()

    def _open(self, files: "_Files", split: Split, name: str) -> np.ndarray:
        checksums = files.read_checksums(name)
        starts = range(0, len(split), _PART)
        bad = [start for start in starts if not files.is_good(start, checksums)]
        if num_damaged := sum(start in checksums for start in bad):
            _log(f"{name}: damaged parts: {num_damaged} of {len(starts)}; they are computed again.")
        if bad or not files.complete.exists():
            num_good = len(starts) - len(bad)
            resumed = f", {num_good} parts are already there" if num_good else ""
            files.start()
            _log(f"{name}: {_size_text(files.size)} to '{files.folder}'{resumed}.")
            try:
                self._compute(files, split, name, bad, checksums)
            except _NoCache:
                files.remove()
                raise
            files.finish()
        else:
            _log(f"{name}: found {_size_text(files.size)} in '{files.folder}'.")
        return np.memmap(files.complete, files.dtype, "r", shape=files.shape)

    def _compute(
        self, files: "_Files", split: Split, name: str, starts: list[int], checksums: dict[int, int]
    ) -> None:
        """Writes the parts that begin at `starts`; complete ones stay if it is stopped."""
        encoder = Encoder(self.model, self.variables, self.parallel)
        batch_size = self.parallel.round_up(min(self.batch_size, _PART))
        counts = {start: min(_PART, len(split) - start) for start in starts}
        with progress_bar(total=sum(counts.values()), desc=f"features {name}", unit="image") as bar:
            for start, count in counts.items():
                images = split.images[start : start + count]
                batches = eval_batches(images, {}, batch_size=batch_size)
                features = np.concatenate(list(encoder.features(batches)))[:count]
                _check_range(features, files.dtype)
                checksums[start] = files.write(start, features.astype(files.dtype))
                files.write_checksums(checksums)
                bar.update(count)
                interrupts.check()


class _Files:
    """The files of one set of features, `size` bytes.

    A complete file is never written again, as other processes may have mapped it. A damaged one is
    repaired in a copy that then takes its name.
    """

    def __init__(self, folder: Path, dtype: np.dtype, shape: tuple[int, ...]):
        self.folder, self.dtype, self.shape = folder, dtype, shape
        self.size = int(np.prod(shape)) * dtype.itemsize
        self.complete = folder / "features.bin"
        self._partial = folder / "features.partial"
        self._index = folder / "progress.json"

    def _current(self) -> Path | None:
        """Returns the file that holds the parts so far."""
        for path in (self._partial, self.complete):
            if path.exists() and path.stat().st_size == self.size:
                return path
        return None

    def read_checksums(self, name: str) -> dict[int, int]:
        """Reads the checksums of the complete parts, by their first example."""
        if self._current() is None:
            return {}
        try:
            index = json.loads(self._index.read_text(encoding="utf-8"))
            version, sums = index["version"], {int(k): int(v) for k, v in index["sums"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            _log(f"{name}: '{self._index}' is damaged; all features are computed again.")
            return {}
        if version != VERSION:
            _log(
                f"{name}: '{self.folder}' was written by another version ({version}, this is "
                f"{VERSION}); all features are computed again."
            )
            return {}
        return sums

    def write_checksums(self, checksums: dict[int, int]) -> None:
        write_json(self._index, {"version": VERSION, "sums": checksums}, by_all=True)

    def is_good(self, start: int, checksums: dict[int, int]) -> bool:
        """Tells whether the part that begins at this example exists and is undamaged."""
        path = self._current()
        if start not in checksums or path is None:
            return False
        part = np.memmap(path, self.dtype, "r", shape=self.shape)[start : start + _PART]
        return checksums[start] == _checksum(part)

    def start(self) -> None:
        """Creates the partial file with the parts so far and allocates all of its space."""
        if self._current() == self._partial:
            return
        free = shutil.disk_usage(self.folder).free
        if self.size > free * _LARGEST_SHARE:
            raise _NoCache(
                f"{self.size / 1e9:.1f} GB of features are more than half of the "
                f"{free / 1e9:.1f} GB that are free on the disk of '{self.folder}' (set "
                "config.train.feature_cache to a folder on a larger one)"
            )
        try:
            if self._current() == self.complete:
                shutil.copyfile(self.complete, self._partial)
                return
            with self._partial.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self.size)
                file.truncate(self.size)
        except OSError:
            self._partial.unlink(missing_ok=True)
            raise

    def write(self, start: int, features: np.ndarray) -> int:
        """Writes a part and returns its checksum.

        It writes to the file and not to a memory map, where a full disk would be a crash.
        """
        with self._partial.open("r+b") as file:
            file.seek(start * (self.size // self.shape[0]))
            file.write(np.ascontiguousarray(features).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        return _checksum(features)

    def finish(self) -> None:
        """Gives the partial file its final name."""
        if self._partial.exists():
            self._partial.replace(self.complete)

    def remove(self) -> None:
        """Deletes the partial file."""
        self._partial.unlink(missing_ok=True)
        self._index.unlink(missing_ok=True)


class _NoCache(Exception):
    """The reason why features cannot be cached."""


def _size_text(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def _log(text: str) -> None:
    logger.info(f"feature cache: {text}")


def _checksum(features: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(features).view(np.uint8).data)


def _check_range(features: np.ndarray, dtype: np.dtype) -> None:
    largest = float(np.abs(features).max(initial=0.0))
    if not largest <= float(ml_dtypes.finfo(dtype).max):
        raise _NoCache(
            f"a feature is {largest:g}, which {dtype.name} cannot hold "
            "(config.train.feature_cache_dtype=bfloat16 may)"
        )

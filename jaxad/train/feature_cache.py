"""Features of a frozen encoder, computed once and kept on disk.

An encoder that never changes gives the same features in every epoch. They are written as one array
[N, ...] in two bytes a number, memory-mapped when they are read, and found again by the content of
everything that they depend on: the encoder's variables, the images, and how both are used. Only
training reads them; scores are always computed from the image.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import zlib
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from tqdm import tqdm

from jaxad.data.pipeline.batching import eval_batches
from jaxad.runtime import interrupts, locks
from jaxad.runtime.parallel import Parallel
from jaxad.storage.user_folders import user_cache
from jaxad.storage.workdir import write_json
from jaxad.types import PretrainedModel, Split, Tree

logger = logging.getLogger(__name__)

#: Of the files' layout and of what else the features depend on in this package (normalisation).
VERSION = 1

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

#: Examples that are written, checked and, where damaged, computed again together.
_CHUNK = 256
#: Share of the free disk that a cache may take.
_LARGEST_SHARE = 0.5


def default_folder() -> Path | None:
    """`$XDG_CACHE_HOME/jaxad/features`, by default below ~/.cache; None without a home folder."""
    base = user_cache()
    return None if base is None else base / "jaxad" / "features"


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

    def features(self, split: Split, name: str) -> np.ndarray | None:
        """Features of every image of a split, [N, ...], memory-mapped; None where it cannot be.

        What is there already is checked; what is missing or damaged is computed, with a progress
        bar. A run that is killed meanwhile goes on from where it was. Where the disk is too small
        or cannot be written, a line says so and training computes features as it goes.
        """
        shape = (len(split), *self._feature_shape())
        target = self.folder / self._key(split, shape)
        try:
            target.mkdir(parents=True, exist_ok=True)
            waiting = f"feature cache: {name}: another process computes the same features, waiting."
            with locks.wait_for_lock(target / ".lock", waiting):
                return self._open(_Files(target, DTYPES[self.dtype], shape), split, name)
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
        about = [self.model.encoder_description, self.dtype, shape, str(split.images.dtype)]
        digest.update(json.dumps([*about, split.images.shape]).encode())
        own = {name: self.variables[name] for name in self.model.frozen_collections}
        for path, leaf in jax.tree_util.tree_leaves_with_path(own):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).data)
        for start in range(0, len(split), _CHUNK):
            digest.update(np.ascontiguousarray(split.images[start : start + _CHUNK]).data)
        return digest.hexdigest()

    def _open(self, files: "_Files", split: Split, name: str) -> np.ndarray:
        sums = files.read_sums(name)
        starts = range(0, len(split), _CHUNK)
        bad = [start for start in starts if not files.is_good(start, sums)]
        damaged = [start for start in bad if start in sums]
        if damaged:
            _say(f"{name}: {len(damaged)} of {len(starts)} parts are damaged, computed again.")
        if bad or not files.complete.exists():
            there = f", {len(starts) - len(bad)} parts are there" if len(bad) < len(starts) else ""
            files.start()
            _say(f"{name}: {_size_text(files.size)} to '{files.folder}'{there}.")
            try:
                self._compute(files, split, name, bad, sums)
            except _NoCache:
                files.remove()
                raise
            files.finish()
        else:
            _say(f"{name}: found {_size_text(files.size)} in '{files.folder}'.")
        return np.memmap(files.complete, files.dtype, "r", shape=files.shape)

    def _compute(
        self, files: "_Files", split: Split, name: str, starts: list[int], sums: dict[int, int]
    ) -> None:
        """Writes the parts that begin at `starts`; what is written stays if it is stopped."""
        compiled = self.parallel.compile_per_example(
            lambda variables, batch: self.model.features(variables, batch["image"])
        )
        variables = self.parallel.put_replicated(self.variables)
        batch_size = self.parallel.round_up(min(self.batch_size, _CHUNK))
        rows = {start: len(split.images[start : start + _CHUNK]) for start in starts}
        with tqdm(
            total=sum(rows.values()), desc=f"features {name}", unit="image", dynamic_ncols=True
        ) as bar:
            for start, count in rows.items():
                images = split.images[start : start + count]
                batches = self.parallel.prefetch(eval_batches(images, {}, batch_size=batch_size))
                found = np.concatenate(
                    [self.parallel.get_per_example(compiled(variables, one)) for one in batches]
                )[:count]
                _check_range(found, files.dtype)
                sums[start] = files.write(start, found.astype(files.dtype))
                files.write_sums(sums)
                bar.update(count)
                interrupts.check()


@dataclasses.dataclass(frozen=True)
class _Files:
    """The files of one set of features.

    A finished file is never written again: who has it mapped keeps it. What is to be mended is
    mended in a copy that then takes its name.
    """

    folder: Path
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def complete(self) -> Path:
        return self.folder / "features.bin"

    @property
    def _partial(self) -> Path:
        return self.folder / "features.partial"

    @property
    def _index(self) -> Path:
        return self.folder / "progress.json"

    def _current(self) -> Path | None:
        """The file that holds what is there so far."""
        for path in (self._partial, self.complete):
            if path.exists() and path.stat().st_size == self.size:
                return path
        return None

    def read_sums(self, name: str) -> dict[int, int]:
        """Check sums of the parts that are complete, by their first example."""
        if self._current() is None:
            return {}
        try:
            found = json.loads(self._index.read_text(encoding="utf-8"))
            version, sums = found["version"], {int(k): int(v) for k, v in found["sums"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            _say(f"{name}: '{self._index}' is damaged, everything is computed again.")
            return {}
        if version != VERSION:
            _say(
                f"{name}: '{self.folder}' was written by another version ({version}, this is "
                f"{VERSION}), everything is computed again."
            )
            return {}
        return sums

    def write_sums(self, sums: dict[int, int]) -> None:
        values = {str(start): value for start, value in sums.items()}
        write_json(self._index, {"version": VERSION, "sums": values}, by_all=True)

    def is_good(self, start: int, sums: dict[int, int]) -> bool:
        """Whether the part that begins at this example is there and undamaged."""
        path = self._current()
        if start not in sums or path is None:
            return False
        part = np.memmap(path, self.dtype, "r", shape=self.shape)[start : start + _CHUNK]
        return sums[start] == _check_sum(part)

    def start(self) -> None:
        """Makes the file to write to, with what there is, its whole room taken at once."""
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
        """Writes a part and returns its check sum. Not through the map: a full disk is told so."""
        with self._partial.open("r+b") as file:
            file.seek(start * (self.size // self.shape[0]))
            file.write(np.ascontiguousarray(features).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        return _check_sum(features)

    def finish(self) -> None:
        """Gives the file its name; who has the old one mapped keeps that."""
        if self._partial.exists():
            self._partial.replace(self.complete)

    def remove(self) -> None:
        """Gives the room back."""
        self._partial.unlink(missing_ok=True)
        self._index.unlink(missing_ok=True)


class _NoCache(Exception):
    """Why there is no cache."""


def _size_text(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def _say(text: str) -> None:
    logger.info(f"feature cache: {text}")


def _check_sum(features: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(features).view(np.uint8).data)


def _check_range(features: np.ndarray, dtype: np.dtype) -> None:
    largest = float(np.abs(features).max(initial=0.0))
    if not largest <= float(ml_dtypes.finfo(dtype).max):
        raise _NoCache(
            f"a feature is {largest:g}, which {dtype.name} cannot hold "
            "(config.train.feature_cache_dtype=bfloat16 may)"
        )

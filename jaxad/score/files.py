"""`--mode=score`: every file at a path, in memory that does not grow with them."""

import abc
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from jaxad.data import replay
from jaxad.data.files.items import Item, Reading, Rows
from jaxad.data.files.names import is_archive
from jaxad.data.files.npz import read_npz
from jaxad.data.files.tree import check_not_hidden
from jaxad.data.prepare.preprocess import are_constant, to_unit_interval
from jaxad.detector.calibrated import CalibratedDetector
from jaxad.detector.scorer import SCORE, Scorer, score_columns
from jaxad.errors import UserError
from jaxad.score import maps
from jaxad.score.tables import ERRORS, PATIENTS, SCORES, Tables, digest
from jaxad.storage.workdir import Workdir
from jaxad.types import Scores

logger = logging.getLogger(__name__)

#: Items that are read, scored and written before the next are: images, and scans.
_BLOCK = {"image": 256, "scan": 8}

#: Which images get a map; of a scan all slices do, or none.
MAPS = ("all", "anomalous", "none")

_PATIENT_COLUMNS = (
    "group", "num_images", "num_anomalous", "score", "p_value", "anomalous", "highest",
)  # fmt: skip


class _Source(abc.ABC):
    """What is to be scored.

    Attributes:
        items: in a fixed order.
        unit: `image` or `scan`.
    """

    items: Sequence[Item]
    unit: str

    @abc.abstractmethod
    def read(self, items: Sequence[Item]) -> Iterator[Rows]:
        """What items become, in their order."""


class _Files(_Source):
    """Files as the run's data set has them."""

    def __init__(self, path: Path, data: ConfigDict):
        self.items = replay.find_items(path, data)
        self._data = data
        self.reading = replay.reading_of(data)
        self.unit = "image" if self.reading.kind == "image" else "scan"

    def read(self, items: Sequence[Item]) -> Iterator[Rows]:
        """See `_Source.read`."""
        return replay.read_rows_of(items, self._data)


class _Archive(_Source):
    """An `.npz` file of images that were prepared; see `jaxad.data.files.npz`."""

    unit = "image"

    def __init__(self, path: Path, scorer: Scorer):
        self._split = read_npz(path, needed=(), is_labelled=False)
        scorer.check(self._split.images, self._split.ids)
        groups = zip(self._split.ids, self._split.groups, strict=True)
        self.items = [Item(name, group, (path,), 0) for name, group in groups]
        if len({item.id for item in self.items}) < len(self.items):
            raise UserError(f"{path}: two images have the same id; give every image its own.")
        self._is_constant = are_constant(self._split.images)
        self._places = {item.id: place for place, item in enumerate(self.items)}

    def read(self, items: Sequence[Item]) -> Iterator[Rows]:
        """See `_Source.read`."""
        for item in items:
            place = self._places[item.id]
            image, label = self._split.images[place : place + 1], np.zeros(1, np.int32)
            # As for files: an image that shows nothing is no reason not to score the others.
            error = "is constant; leave it out" if self._is_constant[place] else ""
            yield Rows(item, image, label, error=error)


def score_files(
    detector: CalibratedDetector,
    path: Path,
    output: Path,
    *,
    which_maps: str = "all",
    name: str = "",
) -> None:
    """Scores what is at a path to `scores.csv`, `patients.csv`, `errors.csv` and `maps/`.

    A bad file does not stop the others. Stopped, the same call goes on where it was.

    Args:
        detector: with the normal images that decisions are calibrated on.
        path: an image, a scan, a DICOM series, a folder or table of them; or an `.npz` file.
        output: a folder.
        which_maps: one of `MAPS`.
        name: of the detector, so that another one's scores are not mixed with these.

    Raises:
        UserError: there is nothing to score, no file could be, or the folder holds something else.
    """
    if which_maps not in MAPS:
        raise UserError(f"--maps={which_maps}: is not one of {', '.join(MAPS)}.")
    scorer = detector.scorer
    check_not_hidden(path)
    source = _Archive(path, scorer) if is_archive(path) else _Files(path, scorer.config.data)
    reading = source.reading if isinstance(source, _Files) else None
    if which_maps == "anomalous" and detector.stored is None:
        raise UserError(
            "--maps=anomalous: without a calibration nothing is called anomalous; write one with "
            "--mode=evaluate, or choose all or none."
        )
    columns = ("id", "group", "position", *detector.columns)
    asked = {
        "detector": name,
        "input": digest(_told(item) for item in source.items),
        "calibration": detector.digest,
        "rate": detector.rate,
        "choice of maps": which_maps,
        "columns": ",".join(columns),
    }
    places = maps.Places(output / "maps", [item.id for item in source.items])
    folder = Workdir(output)
    folder.check_writable()
    with folder.lock():
        tables = Tables(output, columns, asked)
        draw = _drawer(detector, places, which_maps, reading)
        with tqdm(
            total=len(source.items), initial=tables.num_done, desc="score", unit=source.unit,
            disable=len(source.items) < 20,
        ) as bar:  # fmt: skip
            while tables.num_done < len(source.items):
                start = tables.num_done
                block = source.items[start : start + _BLOCK[source.unit]]
                rows, errors = _score_block(source.read(block), detector, draw)
                tables.add(rows, errors, len(block))
                bar.update(len(block))
        _finish(tables, detector, output)


#: Writes the maps of one item: its rows, images, scores and which of them are anomalous.
_Draw = Callable[[Rows, Scores, Sequence[bool]], None]


def _score_block(
    found: Iterator[Rows], detector: CalibratedDetector, draw: _Draw
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The rows of `scores.csv` and of `errors.csv` that some items make."""
    rows: list[dict[str, Any]] = []
    errors: list[tuple[str, str]] = []
    waiting: list[Rows] = []

    def flush() -> None:
        """Images one by one would each fill a batch: they are scored together."""
        if not waiting:
            return
        images = np.concatenate([to_unit_interval(one.images) for one in waiting])
        parts = list(detector.scorer.score_batches(images))
        scores = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
        table_rows = detector.rows(score_columns(scores))
        start = 0
        for one in waiting:
            end = start + len(one.images)
            names = {"group": one.item.group}
            positions = one.positions
            for place in range(start, end):
                position = "" if positions is None else int(positions[place - start])
                ids = {"id": one.ids[place - start], **names, "position": position}
                rows.append({**ids, **table_rows[place]})
            called = [table_rows[place]["anomalous"] == 1 for place in range(start, end)]
            part = jax.tree.map(lambda array, a=start, b=end: array[a:b], scores)
            draw(one, part, called)
            start = end
        waiting.clear()

    for one in found:
        if one.error or not len(one.images):
            reason = one.error or "no slice has enough foreground (config.data.volume)"
            errors.append((one.item.id, reason))
            continue
        waiting.append(one)
        if sum(len(other.images) for other in waiting) >= _BLOCK["image"]:
            flush()
    flush()
    return rows, errors


def _told(item: Item) -> str:
    """What is another task where it is another: the file, and when it was written."""
    parts = [item.id, item.group]
    for path in item.paths:
        try:
            status = path.stat()
            parts += [str(path.absolute()), str(status.st_size), str(status.st_mtime_ns)]
        except OSError:  # what is wrong with it is told when it is read
            parts.append(str(path.absolute()))
    return "\0".join(parts)


def _drawer(
    detector: CalibratedDetector, places: maps.Places, which: str, reading: Reading | None
) -> _Draw:
    evidence = None if detector.stored is None else detector.stored.evidence
    brightest = None if evidence is None else evidence.brightest

    def draw(rows: Rows, scores: Scores, called: Sequence[bool]) -> None:
        if which == "none" or (which == "anomalous" and not any(called)):
            return
        pixel = np.asarray(scores.pixel)
        if rows.grid is not None and reading is not None:
            maps.write_volume(places.of(rows.item.id, "_map.nii.gz"), rows, pixel, reading)
            return
        # Without normal images to compare with, an image's own largest value is the brightest.
        top = float(pixel.max()) if brightest is None else brightest
        path = places.of(rows.item.id, "_map.png")
        maps.write_overlay(path, to_unit_interval(rows.images)[0], pixel[0], top)

    return draw


def _finish(tables: Tables, detector: CalibratedDetector, output: Path) -> None:
    """Writes what is said of patients, and tells where everything is."""
    patients: dict[str, dict[str, Any]] = {}
    num_images = num_anomalous = 0
    for row in tables.rows():
        # As it was before it was written: ties with normal scores are ties.
        score = float(np.float32(row[SCORE]))
        found = patients.setdefault(
            row["group"], {"images": 0, "anomalous": 0, "score": -np.inf, "highest": ""}
        )
        found["images"] += 1
        found["anomalous"] += row["anomalous"] == "1"
        num_images += 1
        num_anomalous += row["anomalous"] == "1"
        if score > found["score"]:
            found["score"], found["highest"] = score, row["id"]
    num_errors = tables.num_errors()
    if not num_images:
        raise UserError(f"none of {num_errors:,} files gives a score; see '{output / ERRORS}'.")
    lines, called = [], 0
    for group, found in sorted(patients.items()):
        p_value, anomalous = detector.patient(found["score"])
        called += anomalous == 1
        lines.append(
            (
                group, found["images"], found["anomalous"] if detector.stored else "",
                f"{found['score']:.9g}", p_value, anomalous, found["highest"],
            )
        )  # fmt: skip
    tables.write_patients(_PATIENT_COLUMNS, lines)
    told = f"scored {num_images:,} images of {len(patients):,} patients"
    if detector.stored is not None:
        told += (
            f"; anomalous at a false-positive rate of {detector.rate:g}: {num_anomalous:,} images, "
            f"{called:,} patients"
        )
    logger.info(f"{told}: {output / SCORES}, {output / PATIENTS}")
    if num_errors:
        logger.warning(f"{num_errors:,} files were left out: {output / ERRORS}")

"""Scores all files at a path, block by block: memory does not grow with their number."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxad.calibration.conformal import format_rate
from jaxad.data import membership, replay
from jaxad.data.files.items import Item, Reading, Rows
from jaxad.data.files.names import is_archive
from jaxad.data.files.npz import read_npz
from jaxad.data.files.reading import describe_noise_for_run
from jaxad.data.files.tree import check_not_hidden, describe_missing
from jaxad.data.prepare.preprocess import are_constant, to_unit_interval
from jaxad.detector.calibrated import CalibratedDetector
from jaxad.detector.detector import SCORE, Detector, extra_columns, score_columns
from jaxad.errors import UserError, suggest
from jaxad.runtime.progress import counted, progress_bar
from jaxad.score import maps
from jaxad.score.tables import ERRORS, PATIENTS, SCORES, Tables, digest
from jaxad.storage.paths import show
from jaxad.storage.workdir import Workdir
from jaxad.types import Scores

logger = logging.getLogger(__name__)

#: Number of items that are read, scored and written together, by unit.
_BLOCK = {"image": 256, "scan": 8}

#: Which images get a map; a scan gets the maps of all its slices or none.
MAPS = ("all", "anomalous", "none")

#: Parts of a task that only decisions depend on.
_DECISION_TASK = ("rate", "calibration")

_PATIENT_COLUMNS = (
    "group", "num_images", "num_anomalous", "score", "p_value", "anomalous", "highest",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Source:
    """Images or scans to score, in a fixed order, and how files are read (None: an `.npz` file)."""

    items: Sequence[Item]
    read: Callable[[Sequence[Item]], Iterator[Rows]]
    reading: Reading | None = None

    @property
    def unit(self) -> str:
        """What an item is: `image` or `scan`."""
        return "image" if self.reading is None or self.reading.kind == "image" else "scan"


def _open_archive(path: Path, detector: Detector) -> _Source:
    """Opens an `.npz` file of prepared images; see `jaxad.data.files.npz`."""
    split = read_npz(path, needed=(), is_labelled=False)
    detector.check(split.images[:], split.ids)
    positions = [None] * len(split) if split.positions is None else split.positions.tolist()
    all_items = [
        Item(name, group, (path,), 0, position=position, is_unnamed=group in split.unnamed)
        for name, group, position in zip(split.ids, split.groups, positions, strict=True)
    ]
    places = {item.id: place for place, item in enumerate(all_items)}
    if len(places) < len(all_items):
        raise UserError(f"{path}: two images have the same id; give every image its own.")
    is_constant = are_constant(split.images[:])

    def read(items: Sequence[Item]) -> Iterator[Rows]:
        for item in items:
            place = places[item.id]
            image, label = split.images[place : place + 1], np.zeros(1, np.int32)
            # As with files: a constant image must not stop the others.
            error = "is constant; leave it out" if is_constant[place] else ""
            position = None if item.position is None else np.array([item.position], np.int32)
            yield Rows(item, image, label, position, error=error)

    return _Source(all_items, read)


def _open_source(
    path: Path, detector: Detector, *, allow_outside_root: bool, group_pattern: str
) -> _Source:
    if is_archive(path):
        source = f"'{path}', whose array group names the patients"
        replay.refuse_group_pattern(group_pattern, source)
        return _open_archive(path, detector)
    data = detector.config.data
    return _Source(
        items=replay.find_items(
            path, data, allow_outside_root=allow_outside_root, group_pattern=group_pattern
        ),
        read=lambda items: replay.read_rows_of(items, data),
        reading=replay.reading_of(data),
    )


def check_flags(path: Path, which_maps: str) -> None:
    """Checks what `score_files` is given, before a detector is loaded.

    Raises:
        UserError: `which_maps` is not one of `MAPS`, or there is nothing at the path.
    """
    if which_maps not in MAPS:
        hint = suggest(which_maps, MAPS)
        raise UserError(f"--maps={which_maps}: unknown;{hint} known: {', '.join(MAPS)}.")
    if not path.exists():
        raise UserError(f"--input={path}: {describe_missing(path, '--input')}")
    check_not_hidden(path)


def score_files(
    detector: CalibratedDetector,
    path: Path,
    output: Path,
    *,
    which_maps: str = "all",
    name: str = "",
    allow_outside_root: bool = False,
    group_pattern: str = "",
    run: Workdir | None = None,
) -> None:
    """Scores the images at a path and writes `scores.csv`, `patients.csv`, `errors.csv`, `maps/`.

    Bad files are listed in `errors.csv`. After an interruption, the same call continues. With
    another rate or calibration, decisions are made again from the stored scores.

    Args:
        detector: scores and decides.
        path: an image, a scan, a DICOM series, a folder or table of them; or an `.npz` file.
        output: a folder.
        which_maps: one of `MAPS`.
        name: identifies the detector; a folder holds scores of one detector.
        allow_outside_root: whether a table may name files outside its folder, by absolute paths.
        group_pattern: finds the patient in a file's path; "": the run's.
        run: the run that trained the detector, to warn of images that it learnt from; None if the
            run is not known.

    Raises:
        UserError: there is nothing to score, no file could be scored, or the folder holds something
            else.
    """
    check_flags(path, which_maps)
    source = _open_source(
        path, detector.detector, allow_outside_root=allow_outside_root, group_pattern=group_pattern
    )
    if which_maps == "anomalous" and detector.normals is None:
        raise UserError(
            "--maps=anomalous: without a calibration no image is called anomalous; run "
            "--mode=evaluate first, or choose all or none."
        )
    if run is not None:
        membership.warn_of_learnt(run, source.items, detector.detector.config.data, path)
    heading = ("id", "group", "position")
    extra = extra_columns(
        source.items[0].extra if source.items else (), (*heading, *detector.columns)
    )
    columns = (*heading, *extra.values(), *detector.columns)
    task = {
        "detector": name,
        **_describe_input(source.items),
        "calibration": detector.digest,
        "rate": detector.rate,
        "choice of maps": which_maps,
        # With another calibration one may get the prefix of `extra_columns`.
        "set of columns": ",".join(extra.values()),
    }
    folder = Workdir(output)
    folder.check_writable()
    with folder.lock(), _reported_noise(str(path)) as noise:
        may_change = _what_may_change(which_maps, source.unit)
        tables = Tables(output, columns, task, may_change, lambda rows: _decide(detector, rows))
        if tables.num_decided_again:
            logger.info(
                f"decided again on {tables.num_decided_again:,} stored scores: {output / SCORES}"
            )
        draw = _make_draw(detector, output, source, which_maps)
        with progress_bar(
            total=len(source.items), initial=tables.num_done, desc="score", unit=source.unit,
            disable=len(source.items) < 20,
        ) as bar:  # fmt: skip
            while tables.num_done < len(source.items):
                start = tables.num_done
                block = source.items[start : start + _BLOCK[source.unit]]
                rows, errors = _score_block(noise.watch(source.read(block)), detector, extra, draw)
                tables.add(rows, errors, len(block))
                folder.publish()
                bar.update(len(block))
        _write_patients(tables, detector, output)


def _describe_input(items: Sequence[Item]) -> dict[str, str]:
    """Returns the parts of a task that the files to score decide."""
    return {
        "input": digest(_identity(item) for item in items),
        "assignment of files to patients (--group_pattern, or the column group)": digest(
            item.group for item in items
        ),
    }


@dataclasses.dataclass
class _Noise:
    """Counts the files that a command reads, and those whose background is noise."""

    num_read: int = 0
    num_noisy: int = 0
    first: str = ""  # id of the first noisy file

    def watch(self, items: Iterable[Rows]) -> Iterator[Rows]:
        """Yields items unchanged, and counts them."""
        for rows in items:
            self.num_read += 1
            self.num_noisy += rows.is_noisy
            if rows.is_noisy and not self.first:
                self.first = rows.item.id
            yield rows


@contextlib.contextmanager
def _reported_noise(source: str) -> Iterator[_Noise]:
    """Warns once of the noisy files that the block read, also if an interruption ends it."""
    noise = _Noise()
    try:
        yield noise
    finally:
        counts = (noise.num_noisy, noise.num_read, noise.first)
        if line := describe_noise_for_run(source, *counts):
            logger.warning(line)


def _what_may_change(which_maps: str, unit: str) -> tuple[str, ...]:
    """Returns the parts of a task that do not affect scores and maps that were written already."""
    if which_maps == "anomalous":
        return ()
    # The calibration sets the scale of the maps of images.
    return ("rate",) if (which_maps, unit) == ("all", "image") else _DECISION_TASK


def _decide(
    detector: CalibratedDetector, rows: Sequence[Mapping[str, str]]
) -> Iterator[dict[str, Any]]:
    """Yields stored rows of `scores.csv` with the decisions of this detector."""
    names = (SCORE, *detector.components)
    # Nine digits give back every float32.
    columns = {name: np.array([row[name] for row in rows], np.float32) for name in names}
    for row, cells in zip(rows, detector.rows(columns), strict=True):
        yield {**row, **cells}


#: Writes the maps of one item, given its images, scores and which images are called anomalous.
_Draw = Callable[[Rows, Scores, Sequence[bool]], None]


def _score_block(
    items: Iterable[Rows], detector: CalibratedDetector, extra: Mapping[str, str], draw: _Draw
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Returns the rows of `scores.csv` and of `errors.csv` for some items.

    `extra` maps the names of their extra columns to columns of `scores.csv`.
    """
    rows: list[dict[str, Any]] = []
    errors: list[tuple[str, str]] = []
    waiting: list[Rows] = []
    for item in items:
        if item.error or not len(item.images):
            reason = item.error or "no slice has enough foreground (config.data.volume)"
            errors.append((item.item.id, reason))
            continue
        waiting.append(item)
        if sum(len(other.images) for other in waiting) >= _BLOCK["image"]:
            rows += _score_together(waiting, detector, extra, draw)
            waiting = []
    if waiting:
        rows += _score_together(waiting, detector, extra, draw)
    return rows, errors


def _score_together(
    items: Sequence[Rows], detector: CalibratedDetector, extra: Mapping[str, str], draw: _Draw
) -> Iterator[dict[str, Any]]:
    """Yields rows of `scores.csv`; items share batches, which single images would not fill."""
    images = np.concatenate([to_unit_interval(item.images) for item in items])
    parts = list(detector.detector.score_batches(images))
    scores = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    cells = detector.rows(score_columns(scores))
    start = 0
    for item in items:
        end = start + len(item.images)
        positions = [""] * len(item.images) if item.positions is None else map(int, item.positions)
        texts = {extra[name]: text for name, text in item.item.extra.items()}
        for name, position, row in zip(item.ids, positions, cells[start:end], strict=True):
            yield {"id": name, "group": item.item.group, "position": position, **texts, **row}
        called = [row["anomalous"] == 1 for row in cells[start:end]]
        draw(item, jax.tree.map(lambda array, a=start, b=end: array[a:b], scores), called)
        start = end


def _identity(item: Item) -> str:
    """Returns a text that changes if the item's id, files or extra columns change."""
    parts = [item.id, str(item.position), *item.extra.values()]
    for path in item.paths:
        parts.append(show(str(path.absolute())))
        try:
            status = path.stat()
            parts += [str(status.st_size), str(status.st_mtime_ns)]
        except OSError:  # reported when the file is read
            pass
    return "\0".join(parts)


def _make_draw(
    detector: CalibratedDetector, output: Path, source: _Source, which_maps: str
) -> _Draw:
    places = maps.Places(output / "maps", [item.id for item in source.items])
    brightest = None if detector.normals is None else detector.normals.brightest

    def draw(rows: Rows, scores: Scores, called: Sequence[bool]) -> None:
        if which_maps == "none" or (which_maps == "anomalous" and not any(called)):
            return
        pixel = np.asarray(scores.pixel)
        if rows.grid is not None and source.reading is not None:
            path = places.of(rows.item.id, "_map.nii.gz")
            maps.write_volume(path, rows, pixel, source.reading)
            return
        # Without normal images to compare with, each map has its own scale.
        top = float(pixel.max()) if brightest is None else brightest
        path = places.of(rows.item.id, "_map.png")
        maps.write_overlay(path, to_unit_interval(rows.images)[0], pixel[0], top)

    return draw


@dataclasses.dataclass
class _Patient:
    """The images of one patient: their numbers, largest score and the id of its image."""

    num_images: int = 0
    num_anomalous: int = 0
    score: float = -math.inf
    highest: str = ""


def _write_patients(tables: Tables, detector: CalibratedDetector, output: Path) -> None:
    """Writes `patients.csv` and reports the results; a UserError if no image has a score."""
    patients: dict[str, _Patient] = {}
    for row in tables.rows():
        # Back to float32: a score that ties with a normal one must still tie.
        score = float(np.float32(row[SCORE]))
        patient = patients.setdefault(row["group"], _Patient())
        patient.num_images += 1
        patient.num_anomalous += row["anomalous"] == "1"
        if score > patient.score:
            patient.score, patient.highest = score, row["id"]
    num_errors = sum(1 for _ in tables.errors())
    if not patients:
        tables.discard_scores()
        first = next((f" The first: {row['error']}" for row in tables.errors()), "")
        raise UserError(
            f"none of {counted(num_errors, 'file')} has a score; see '{output / ERRORS}'.{first}"
        )
    lines = []
    for group, patient in sorted(patients.items()):
        decision = detector.patient(patient.score)
        called = "" if detector.normals is None else patient.num_anomalous
        cells = (patient.num_images, called, f"{patient.score:.9g}", *decision, patient.highest)
        lines.append((group, *cells))
    tables.write_patients(_PATIENT_COLUMNS, lines)
    num_images = sum(patient.num_images for patient in patients.values())
    text = f"scored {counted(num_images, 'image')} of {counted(len(patients), 'patient')}"
    if detector.normals is not None:
        num_anomalous = sum(patient.num_anomalous for patient in patients.values())
        text += (
            f"; anomalous at a false-positive rate of {format_rate(detector.rate)}: "
            f"{counted(num_anomalous, 'image')}, "
            f"{counted(sum(line[5] == 1 for line in lines), 'patient')}"
        )
    logger.info(f"{text}: {output / SCORES}, {output / PATIENTS}")
    if num_errors:
        were = "file was" if num_errors == 1 else "files were"
        logger.warning(f"{num_errors:,} {were} left out: {output / ERRORS}")

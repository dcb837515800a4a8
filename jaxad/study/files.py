"""The files of a study, made from its finished runs: tables, audit, figures and contact sheets."""

import dataclasses
import logging
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from jaxad.data.prepare.preprocess import to_unit_interval
from jaxad.data.sources import DataSet
from jaxad.detector.restored import restore
from jaxad.evaluate.references import ReferenceScores
from jaxad.report import study_figures
from jaxad.report.columns import Column, image_column, reconstruction_columns, system_columns
from jaxad.report.contact_sheet import draw_pages
from jaxad.report.figures import to_png
from jaxad.report.study_figures import SystemScores
from jaxad.storage.csv_text import csv_text
from jaxad.storage.workdir import Workdir, atomic_write
from jaxad.study import tables
from jaxad.study.audit import make_audit
from jaxad.study.heat_map import WEIGHTS, make_heat_map
from jaxad.study.plan import Runs
from jaxad.study.results import Scored, best_reference, make_table, read_scores
from jaxad.study.tables import title
from jaxad.types import Split

logger = logging.getLogger(__name__)


def write_results(
    config: ConfigDict,
    folder: Workdir,
    runs: Runs,
    data_set: DataSet,
    references: ReferenceScores,
    *,
    print_table: bool = True,
) -> None:
    """Writes `table.md`, `table.csv`, `audit.csv`, and figures and their data, of finished runs.

    With `print_table`, `table.md` is logged, too.
    """
    results, audits = [], []
    pictures: dict[str, list[tuple[str, str]]] = {}
    for split in data_set.test_split_names:
        scored = read_scores(runs, data_set, references, split)
        results.append(make_table(config, runs, scored, split))
        audit = make_audit(runs, scored, data_set, references, split)
        audits += [] if audit is None else [audit]
        drawn = [
            *_score_figures(runs, scored, split),
            *_sheets(config, runs, data_set.split(split), split),
            *_heat_map(config, folder, scored, split),
        ]
        for name, _, figure in drawn:
            _write(folder, f"figures/{name}.png", to_png(figure))
        pictures[split] = [(text, f"figures/{name}.png") for name, text, _ in drawn]
    _write(folder, "table.csv", csv_text(tables.table_rows(config, results)))
    _write(folder, "audit.csv", csv_text(tables.audit_rows(config, audits)))
    text = tables.markdown(config, results, audits, pictures)
    _write(folder, "table.md", text)
    if print_table:
        logger.info(f"\n{text}")
    logger.info(f"tables: {folder.path / 'table.md'}, {folder.path / 'table.csv'}")


#: A figure to save: file name without extension, description, figure.
_Drawn = tuple[str, str, Figure]


def _score_figures(runs: Runs, scored: Scored, split: str) -> Iterator[_Drawn]:
    """ROC curves and score densities of all systems, if the split has both classes."""
    labels = next(iter(scored.values()))[0].labels
    if labels.min() == labels.max():
        return
    systems = {}
    for name in (*runs, best_reference(scored)):
        scores = [run.columns["score"] for run in scored[name]]
        systems[title(name)] = SystemScores(labels, scores, is_baseline=name not in runs)
    curves = study_figures.roc_curves(systems, split, best_first=True)
    yield f"roc_{split}", f"ROC curves on {split}", curves
    densities = study_figures.score_densities(systems, split)
    yield f"densities_{split}", f"Score densities on {split}", densities


def _heat_map(config: ConfigDict, folder: Workdir, scored: Scored, split: str) -> Iterator[_Drawn]:
    """The heat map, if the config describes one; also writes it as CSV."""
    heat_map = make_heat_map(config, scored)
    if heat_map is None:
        return
    names = (config.heat_map.row_name, config.heat_map.column_name)
    heading = [" \\ ".join(names), *map("{:g}".format, WEIGHTS)]
    values = zip(heat_map.rows, heat_map.values, strict=True)
    rows = [heading, *([f"{weight:g}", *row] for weight, row in values)]
    _write(folder, f"heat_map_{split}.csv", csv_text(rows))
    figure = study_figures.heat_map(
        heat_map.values, heat_map.rows, WEIGHTS.tolist(), names, f"AUROC, {split}"
    )
    yield f"heat_map_{split}", f"AUROC over {' and '.join(names)} on {split}", figure


def _sheets(config: ConfigDict, runs: Runs, split: Split, name: str) -> Iterator[_Drawn]:
    """Contact sheets of the same slices for all systems, as in the paper's Figure 2.

    One sheet shows every reconstruction, the other the maps of pixel metrics. Of each experiment
    the first run is shown.
    """
    if config.num_slices <= 0:
        return
    rows = choose_slices(split, config.num_slices)
    images = to_unit_interval(split.images[rows])
    masks = None if split.masks is None else split.masks[rows]
    labels = [f"{split.ids[row]}\n{'anomalous' if split.labels[row] else 'normal'}" for row in rows]
    reconstructions = [image_column("input", images, masks)]
    maps = list(reconstructions)
    for experiment, (run, *_) in runs.items():
        scores = restore(run.workdir.path).score(images)
        for column in reconstruction_columns(scores).values():
            part = "" if column.title == "reconstruction" else f", {column.title}"
            reconstructions.append(dataclasses.replace(column, title=title(experiment) + part))
        # The last column locates anomalies.
        *_, column = system_columns(images, scores, masks).values()
        maps.append(dataclasses.replace(column, title=f"{title(experiment)}\n{column.title}"))
    for prefix, columns, text in (
        ("", reconstructions, "reconstructions of all systems"),
        ("maps_", maps, "anomaly maps"),
    ):
        columns += [] if masks is None else [Column("mask", masks)]
        for number, figure in enumerate(draw_pages(columns, labels), 1):
            page, of_page = (f"_{number}", f", page {number}") if number > 1 else ("", "")
            yield f"{prefix}{name}{page}", f"The same slices of {name}: {text}{of_page}", figure


def choose_slices(split: Split, count: int) -> Int[np.ndarray, " rows"]:
    """Returns the rows of up to `count` slices, one per patient, alternately anomalous and normal.

    Scores are not used: patients are spread evenly over the split, and the middle one of a
    patient's slices of the wanted kind is taken, or of all slices if there is none of that kind.
    """
    groups = np.asarray(split.groups)
    patients = list(dict.fromkeys(split.groups))
    chosen = np.linspace(0, len(patients) - 1, min(count, len(patients))).round().astype(int)
    rows = []
    for number, patient in enumerate(chosen):
        slices = np.flatnonzero(groups == patients[patient])
        wanted = slices[split.labels[slices] == (number + 1) % 2]
        candidates = wanted if len(wanted) else slices
        rows.append(int(candidates[len(candidates) // 2]))
    return np.asarray(rows)


def _write(folder: Workdir, name: str, content: str | bytes) -> None:
    with atomic_write(folder.path / name, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)

"""Several runs side by side: metrics, paired differences, ROC curves and the same slices."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.detector.detector import SCORE
from jaxad.errors import UserError
from jaxad.evaluate import paired
from jaxad.evaluate.examples import Examples
from jaxad.evaluate.metrics import Metric
from jaxad.evaluate.score_table import ScoreTable
from jaxad.models import title
from jaxad.report import study_figures
from jaxad.report.cases import case_outline, panel
from jaxad.report.columns import (
    as_shown,
    map_column,
    reconstruction_columns,
    residual_column,
)
from jaxad.report.figures import Column
from jaxad.report.pictures import figure_view
from jaxad.report.run_files import RunFiles, SplitFiles, read_run
from jaxad.report.study_figures import SystemScores
from jaxad.report.texts import difference, p_value
from jaxad.storage.workdir import Workdir

#: Of the slices that several runs kept, how many are shown.
_SHOWN = 4


def read_others(ours: RunFiles, others: Sequence[Workdir]) -> dict[str, RunFiles]:
    """The runs to compare by the names that tell them apart, ours first.

    Raises:
        UserError: a folder is no run's, is named twice, or its run has not been evaluated.
    """
    runs = [ours]
    for workdir in others:
        if workdir.path.resolve() in [run.workdir.path.resolve() for run in runs]:
            raise UserError(f"--compare: '{workdir.path}' is there twice; name each run once.")
        runs.append(read_run(workdir))
    for run in runs:
        if not any(split.table is not None for split in run.splits.values()):
            raise UserError(
                f"workdir '{run.workdir.path}': has no scores to compare; evaluate it with "
                "--mode=evaluate."
            )
    return dict(zip(_names([run.workdir.path for run in runs]), runs, strict=True))


def _names(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [path.resolve().parts for path in paths]
    depth = next(n for n in range(1, 1 + max(map(len, parts))) if _differ(p[-n:] for p in parts))
    return ["/".join(part[-depth:]) for part in parts]


def _differ(values: Any) -> bool:
    listed = list(values)
    return len(set(listed)) == len(listed)


def comparison_view(runs: Mapping[str, RunFiles], metrics: Sequence[Metric]) -> dict[str, Any]:
    """The section of several runs.

    Args:
        runs: by name; the others are compared with the first.
        metrics: to compare.
    """
    first = next(iter(runs.values()))
    return {
        "runs": [
            {"name": name, "system": system_of(run), "seed": run.config.get("seed")}
            for name, run in runs.items()
        ],
        "splits": [_split_view(runs, name, metrics) for name in first.splits],
    }


def system_of(run: RunFiles) -> str:
    """Returns the title of a run's system."""
    return title(str(run.config.get("model", {}).get("name", "")))


def _split_view(
    runs: Mapping[str, RunFiles], split: str, metrics: Sequence[Metric]
) -> dict[str, Any]:
    there = {name: run.splits[split] for name, run in runs.items() if split in run.splits}
    first, *others = there
    resamples = int(runs[first].config.evaluate.bootstrap_resamples)
    pairs = {name: _pair(there[first], there[name]) for name in others}
    comparable = {name: found for name, found in pairs.items() if isinstance(found, _Pair)}
    cells = {name: pair.cells(metrics, resamples) for name, pair in comparable.items()}
    measured = paired.errors_first(
        metric for metric in metrics if any(metric.name in found for found in cells.values())
    )
    notes = [f"{name}: {found}" for name, found in pairs.items() if isinstance(found, str)]
    notes += [f"{name}: it was not evaluated on {split}." for name in runs if name not in there]
    view: dict[str, Any] = {
        "name": split,
        "reference": first,
        "metrics": [
            metric.name
            for metric in metrics
            if any(_is_metric(files.metrics.get(metric.name)) for files in there.values())
        ],
        "rows": [{"name": name, "metrics": files.metrics} for name, files in there.items()],
        "measured": [metric.name for metric in measured],
        "differences": [
            {"name": name, "cells": [found.get(metric.name) for metric in measured]}
            for name, found in cells.items()
        ],
        "notes": notes,
        "slices": _slices(
            runs, {first: there[first], **{name: there[name] for name in comparable}}
        ),
    }
    systems = {
        f"{system_of(runs[name])}: {name}": SystemScores(
            files.table.labels, [files.table.columns[SCORE]]
        )
        for name, files in there.items()
        if files.table is not None and len(np.unique(files.table.labels)) == 2
    }
    if systems:
        figure = study_figures.roc_curves(systems, split)
        alt = f"ROC curves of the runs on {split}; their AUROCs are in the table."
        workdir = runs[first].workdir
        view["roc"] = figure_view(workdir, f"{split}_compared_roc", figure, alt)
    return view


def _is_metric(value: Any) -> bool:
    return isinstance(value, Mapping) and "value" in value


@dataclasses.dataclass(frozen=True)
class _Pair:
    """What two runs made of the same images, row by row."""

    ours: paired.ScoredSplit
    theirs: paired.ScoredSplit

    def cells(self, metrics: Sequence[Metric], resamples: int) -> dict[str, tuple[str, str]]:
        """Returns their metrics minus ours with p-values; intervals are over patients alone."""
        runs = [self.ours, self.theirs]
        return {
            metric.name: (difference(found, metric.decimals), p_value(found))
            for metric in paired.comparable(metrics, runs)
            for found in [
                paired.difference(
                    metric, [self.theirs], [self.ours], resamples, resample_runs=False
                )
            ]
        }


def _pair(ours: SplitFiles, theirs: SplitFiles) -> _Pair | str:
    """Both runs' scores of the same images, or why there is no pair."""
    if ours.table is None or theirs.table is None:
        return "there are no scores of both runs, so that no difference is shown."
    if ours.num_not_finite or theirs.num_not_finite:
        return "some scores are not finite, so that no difference is shown."
    aligned = _aligned(ours.table, theirs.table)
    if aligned is None:
        return "it was evaluated on other images, so that no difference is shown."
    for what, mine, other in (
        ("labels", ours.table.labels.tolist(), aligned.labels.tolist()),
        ("patients", list(ours.table.groups), list(aligned.groups)),
    ):
        if mine != other:
            return f"the images are the same, their {what} are not: no difference is shown."
    return _Pair(ours.table.scored(), aligned.scored())


def _aligned(ours: ScoreTable, theirs: ScoreTable) -> ScoreTable | None:
    """Their rows in our order; None where ids are others."""
    places = {name: row for row, name in enumerate(theirs.ids)}
    if len(places) != len(theirs) or set(places) != set(ours.ids) or len(ours) != len(theirs):
        return None
    return theirs.rows(np.array([places[name] for name in ours.ids], np.int64))


def _slices(runs: Mapping[str, RunFiles], there: Mapping[str, SplitFiles]) -> list[dict[str, Any]]:
    """Slices that the first run and another kept, through all that kept them."""
    kept = {name: files.examples for name, files in there.items() if files.examples is not None}
    if len(kept) < 2 or next(iter(kept)) != next(iter(there)):
        return []
    ours, *others = kept.values()
    shared = [name for name in ours.ids if any(name in other.ids for other in others)]
    # Those that most runs kept first, then those that ours ranks highest.
    place = {name: (-sum(name in one.ids for one in kept.values()), -score)
             for name, score in zip(ours.ids, ours.scores.tolist(), strict=True)}  # fmt: skip
    columns = {name: _columns(examples) for name, examples in kept.items()}
    found = []
    for slice_id in sorted(shared, key=place.__getitem__)[:_SHOWN]:
        row = ours.ids.index(slice_id)
        rows = {name: one.ids.index(slice_id) for name, one in kept.items() if slice_id in one.ids}
        panels = [panel(Column("input", as_shown(ours.images)), row)]
        for name, place_in_run in rows.items():
            for column in columns[name]:
                titled = dataclasses.replace(column, title=f"{name}: {column.title}")
                panels.append(panel(titled, place_in_run))
        found.append(
            {
                "id": slice_id,
                "label": int(ours.labels[row]),
                "scores": {name: float(kept[name].scores[place]) for name, place in rows.items()},
                "height": ours.pixel.shape[1],
                "width": ours.pixel.shape[2],
                "outline": case_outline(ours, row),
                "panels": panels,
            }
        )
    return found


def _columns(examples: Examples) -> list[Column]:
    """What is shown of one run: its reconstruction and residual, or its anomaly map."""
    reconstruction = examples.reconstructions.get("reconstruction")
    if reconstruction is None:
        return [map_column("anomaly map", examples.pixel)]
    shown = reconstruction_columns({"reconstruction": reconstruction})
    return [*shown.values(), residual_column("residual", examples.images, reconstruction)]

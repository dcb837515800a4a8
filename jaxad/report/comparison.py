"""The comparison of several runs: metrics, paired differences, ROC curves and shared slices."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.config import flatten
from jaxad.config.fields import FIELDS, find
from jaxad.data.data_sets import data_set_info
from jaxad.detector.detector import SCORE
from jaxad.errors import UserError
from jaxad.evaluate import paired
from jaxad.evaluate.metrics import Metric
from jaxad.evaluate.score_table import ScoreTable
from jaxad.models import title
from jaxad.report import study_figures
from jaxad.report.cases import images_view
from jaxad.report.columns import image_column, system_columns
from jaxad.report.pictures import figure_view, panel_view
from jaxad.report.record import stale_text
from jaxad.report.run_files import RunFiles, SplitFiles, read_run
from jaxad.report.study_figures import SystemScores
from jaxad.report.texts import difference, p_value
from jaxad.storage.paths import expand, original
from jaxad.storage.workdir import Workdir

#: The largest number of shared slices to show per split.
_MAX_SLICES = 4


def read_others(run: RunFiles, others: Sequence[Workdir]) -> dict[str, RunFiles]:
    """Reads the runs to compare, by the shortest names that are unique; `run` is the first.

    Raises:
        UserError: a folder does not hold a run, is named twice, or its run was not evaluated.
    """
    runs = [run]
    for workdir in others:
        path = workdir.path.resolve()
        if path == run.workdir.path.resolve():
            raise UserError(
                f"--compare: '{workdir.path}' is the run itself, which is compared with those "
                "listed; leave it out."
            )
        if path in [listed.workdir.path.resolve() for listed in runs]:
            raise UserError(f"--compare: '{workdir.path}' is listed twice; list each run once.")
        try:
            runs.append(read_run(workdir))
        except UserError as error:
            raise UserError(f"--compare: {error}") from error
    for run in runs:
        if not any(split.table is not None for split in run.splits.values()):
            raise UserError(
                f"workdir '{run.workdir.path}': has no scores to compare; evaluate it with "
                "--mode=evaluate."
            )
    return dict(zip(_unique_names([run.workdir.path for run in runs]), runs, strict=True))


def _unique_names(paths: Sequence[Path]) -> list[str]:
    """Returns the shortest endings of different paths that are unique."""
    parts = [original(path).parts for path in paths]
    candidates = (["/".join(part[-depth:]) for part in parts] for depth in itertools.count(1))
    return next(names for names in candidates if len(set(names)) == len(names))


def comparison_view(runs: Mapping[str, RunFiles], metrics: Sequence[Metric]) -> dict[str, Any]:
    """The comparison section of the page.

    Args:
        runs: name -> run; the others are compared with the first.
        metrics: the metrics to compare.
    """
    first, *others = runs.values()
    inputs = {name: _differing_inputs(first, run) for name, run in runs.items()}
    fields = sorted({field for fields in inputs.values() for field in fields})
    rows = [
        {"field": field, "values": [_input_text(run, field) for run in runs.values()]}
        for field in fields
    ]
    if data := _differing_data([*runs.values()], fields):
        rows = [row for row in rows if row["field"] != "config.data.name"]
        rows = [{"field": "data", "values": data}, *rows]
    return {
        "inputs": rows,
        "settings": _differing_settings([*runs.values()], fields),
        "runs": [
            {"name": name, "system": system_of(run), "seed": run.config.get("seed")}
            for name, run in runs.items()
        ],
        "notes": _run_notes(runs),
        "splits": [
            _split_view(runs, name, metrics, inputs)
            for name in first.splits
            if any(name in other.splits for other in others)
        ],
    }


def _run_notes(runs: Mapping[str, RunFiles]) -> list[str]:
    """Returns one sentence per run that lacks splits of another, or has stale results."""
    names = dict.fromkeys(name for run in runs.values() for name in run.splits)
    notes = []
    for number, (name, run) in enumerate(runs.items()):
        if missing := [split for split in names if split not in run.splits]:
            notes.append(f"Run {name} was not evaluated on {', '.join(missing)}.")
        stale = stale_text(run)
        if stale and number > 0:  # the page itself begins with that of the first run
            notes.append(f"{name}: {stale}")
    return notes


def _differing_inputs(first: RunFiles, other: RunFiles) -> list[str]:
    """Returns the config fields in which the runs differ and that change the images they get."""
    is_drawn = data_set_info(first.config.data.name).kind == "generated"
    uses_seed = is_drawn or bool(first.config.data.natural_objects)
    changing = {
        f"config.{field.path}"
        for field in FIELDS
        if field.changes_inputs and (uses_seed or field.path != "data.seed")
    }
    ours, theirs = flatten(first.config), flatten(other.config)
    return sorted(path for path in changing if ours.get(path) != theirs.get(path))


def _differing_data(runs: Sequence[RunFiles], fields: Sequence[str]) -> list[str]:
    """Returns the data set of each run, its name and its root; [] if the runs have the same one.

    The same data may lie elsewhere for another run. They are taken for other data if their name
    differs, if a split has other images, or if `fields`, the differing inputs, are not empty and
    the last part of their root differs. Only as much of a path is disclosed as tells roots apart.
    """
    names = [str(run.config.data.name) for run in runs]
    roots = [expand(str(run.config.data.root)).absolute() for run in runs]
    endings = [root.name for root in roots]
    have_other_images = any(
        _have_other_ids(ours, theirs) or (not fields and _show_other_images(ours, theirs))
        for run in runs[1:]
        for split, theirs in run.splits.items()
        if (ours := runs[0].splits.get(split)) is not None
    )
    if have_other_images and len(set(endings)) == 1 < len(set(roots)):
        unique = dict(zip(set(roots), _unique_names([*set(roots)]), strict=True))
        endings = [unique[root] for root in roots]
    texts = [
        f"{name}, '{ending}'" if run.config.data.root else name
        for run, name, ending in zip(runs, names, endings, strict=True)
    ]
    differ = len(set(texts)) > 1 and bool(have_other_images or fields)
    return texts if differ or len(set(names)) > 1 else []


def _differing_settings(runs: Sequence[RunFiles], inputs: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the settings in which the runs differ besides `inputs`: `field` and `values`.

    Paths of data and how a run is executed do not count. The table of runs has system and seed.
    """
    flat = [flatten(run.config) for run in runs]
    left_out = {*inputs, "config.seed", "config.model.name"}
    rows = []
    for path in sorted({path for config in flat for path in config} - left_out):
        field = find(path)
        if field is not None and field.role in ("path", "execution"):
            continue
        if any(config.get(path) != flat[0].get(path) for config in flat[1:]):
            rows.append({"field": path, "values": [_input_text(run, path) for run in runs]})
    return rows


def _input_text(run: RunFiles, field: str) -> str:
    value = flatten(run.config).get(field)
    if value and field in ("config.init_from", "config.model.weights") and isinstance(value, str):
        return Path(value).name  # of a path only as much as is needed
    return "–" if value in ("", (), None) else str(value)


def system_of(run: RunFiles) -> str:
    """Returns the title of a run's system."""
    return title(str(run.config.get("model", {}).get("name", "")))


def _split_view(
    runs: Mapping[str, RunFiles],
    split: str,
    metrics: Sequence[Metric],
    inputs: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The comparison on one test split of the first run.

    `inputs` are the fields by which the images of each run differ from those of the first.
    """
    evaluated = {name: run.splits[split] for name, run in runs.items() if split in run.splits}
    reference, *others = evaluated
    resamples = int(runs[reference].config.evaluate.bootstrap_resamples)
    pairs = {name: _pair(evaluated[reference], evaluated[name], inputs[name]) for name in others}
    comparable = {name: pair for name, pair in pairs.items() if isinstance(pair, _Pair)}
    cells = {name: pair.cells(metrics, resamples) for name, pair in comparable.items()}
    measured = [metric for metric in metrics if any(metric.name in row for row in cells.values())]
    notes = [f"{name}: {reason}" for name, reason in pairs.items() if isinstance(reason, str)]
    slices = _slices({name: evaluated[name] for name in (reference, *comparable)})
    view: dict[str, Any] = {
        "name": split,
        "reference": reference,
        "metrics": [
            metric.name
            for metric in metrics
            if any(is_metric(files.metrics.get(metric.name)) for files in evaluated.values())
        ],
        "rows": [{"name": name, "metrics": files.metrics} for name, files in evaluated.items()],
        "measured": [metric.name for metric in measured],
        "differences": [
            {"name": name, "cells": [row.get(metric.name) for metric in measured]}
            for name, row in cells.items()
        ],
        "notes": notes,
        "slices": slices,
        "not_shown": _describe_not_shown(evaluated, comparable, slices) if slices else [],
    }
    systems = {
        f"{system_of(runs[name])}: {name}": SystemScores(
            files.table.labels, [files.table.columns[SCORE]]
        )
        for name, files in evaluated.items()
        if files.table is not None and len(np.unique(files.table.labels)) == 2
    }
    if systems:
        figure = study_figures.roc_curves(systems, split)
        alt = f"ROC curves of the runs on {split}; the table has their AUROCs."
        workdir = runs[reference].workdir
        view["roc"] = figure_view(workdir, f"{split}_compared_roc", figure, alt)
    return view


def _describe_not_shown(
    evaluated: Mapping[str, SplitFiles],
    comparable: Collection[str],
    slices: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Returns one sentence for each run that none of the shared slices has, with the reason."""
    sentences = []
    for name, files in list(evaluated.items())[1:]:
        if any(name in case["scores"] for case in slices):
            continue
        reason = "it kept none of these slices"
        if name not in comparable:
            reason = "it cannot be paired, see above"
        elif files.examples is None:
            reason = "it kept no slices (config.evaluate.num_examples)"
        sentences.append(f"{name} is not shown: {reason}.")
    return sentences


def is_metric(value: Any) -> bool:
    """Whether an entry of metrics.json is a metric with its interval."""
    return isinstance(value, Mapping) and "value" in value


@dataclasses.dataclass(frozen=True)
class _Pair:
    """The scores of two runs for the same images, row by row."""

    reference: paired.ScoredSplit
    other: paired.ScoredSplit

    def cells(self, metrics: Sequence[Metric], resamples: int) -> dict[str, tuple[str, str]]:
        """The other's metrics minus the reference's, over patients alone, with p-values."""
        cells = {}
        for metric in paired.comparable(metrics, [self.reference, self.other]):
            result = paired.difference(
                metric, [self.other], [self.reference], resamples, resample_runs=False
            )
            cells[metric.name] = (difference(result, metric.decimals), p_value(result))
        return cells


def _pair(reference: SplitFiles, other: SplitFiles, inputs: Sequence[str]) -> _Pair | str:
    """The scores of both runs for the same images, or why they cannot be paired.

    `inputs` are the config fields by which the images of the runs differ.
    """
    if inputs:
        images = "it was evaluated on other images, " if _have_other_ids(reference, other) else ""
        return (
            f"no difference is shown, because {images}its images differ in {', '.join(inputs)}, "
            "and only results on the same images can be paired. Compare the metrics by their "
            "intervals."
        )
    if _show_other_images(reference, other):
        return (
            "no difference is shown, because images of the same name have other pixels, and only "
            "results on the same images can be paired. Compare the metrics by their intervals."
        )
    if reference.table is None or other.table is None:
        return "no difference is shown, because one of the runs has no scores."
    if reference.num_not_finite or other.num_not_finite:
        return "no difference is shown, because some scores are not finite."
    aligned = _align(reference.table, other.table)
    if aligned is None:
        return "no difference is shown, because it was evaluated on other images."
    for what, are_equal in (
        ("labels", np.array_equal(reference.table.labels, aligned.labels)),
        ("patients", reference.table.groups == aligned.groups),
    ):
        if not are_equal:
            return f"no difference is shown, because the same images have other {what}."
    return _Pair(reference.table.scored(), aligned.scored())


def _have_other_ids(reference: SplitFiles, other: SplitFiles) -> bool:
    """Tells whether both runs have scores, and of images with other ids."""
    if reference.table is None or other.table is None:
        return False
    return _align(reference.table, other.table) is None


def _show_other_images(reference: SplitFiles, other: SplitFiles) -> bool:
    """Tells whether an example that both runs kept has other pixels in the second."""
    ours, theirs = reference.examples, other.examples
    if ours is None or theirs is None:
        return False
    rows = {name: row for row, name in enumerate(theirs.ids)}
    return any(
        not np.array_equal(ours.images[row], theirs.images[rows[name]])
        for row, name in enumerate(ours.ids)
        if name in rows
    )


def _align(reference: ScoreTable, other: ScoreTable) -> ScoreTable | None:
    """The rows of `other` in the order of `reference`; None if the image IDs differ."""
    rows = {name: row for row, name in enumerate(other.ids)}
    if len(rows) != len(other) or set(rows) != set(reference.ids) or len(reference) != len(other):
        return None
    return other.rows(np.array([rows[name] for name in reference.ids], np.int64))


def _slices(evaluated: Mapping[str, SplitFiles]) -> list[dict[str, Any]]:
    """Slices that the first run and at least one other kept, as each of these runs sees them.

    Slices that more runs kept come first, then those with the higher score in the first run.
    """
    kept = {name: files.examples for name, files in evaluated.items() if files.examples is not None}
    if len(kept) < 2 or next(iter(kept)) != next(iter(evaluated)):
        return []
    first = next(iter(kept.values()))
    rows = {
        slice_id: {n: run.ids.index(slice_id) for n, run in kept.items() if slice_id in run.ids}
        for slice_id in first.ids
    }
    scores = dict(zip(first.ids, first.scores.tolist(), strict=True))
    shared = [slice_id for slice_id in first.ids if len(rows[slice_id]) > 1]
    shared.sort(key=lambda slice_id: (-len(rows[slice_id]), -scores[slice_id]))
    columns = {name: system_columns(run.images, run).values() for name, run in kept.items()}
    inputs = image_column("input", first.images)
    views = []
    for slice_id in shared[:_MAX_SLICES]:
        view = images_view(first, first.ids.index(slice_id), [inputs])
        view["scores"] = {name: float(kept[name].scores[at]) for name, at in rows[slice_id].items()}
        view["panels"] += [
            panel_view(dataclasses.replace(column, title=f"{name}: {column.title}"), at)
            for name, at in rows[slice_id].items()
            for column in columns[name]
        ]
        views.append(view)
    return views

"""What the page shows of training, curves, reference scores and decisions."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxad.calibration.calibration_set import CalibrationSet
from jaxad.config.repeat import PATH
from jaxad.detector.detector import SCORE
from jaxad.evaluate.references import TITLES
from jaxad.report import figures
from jaxad.report.figures import ComparedScore, Curve
from jaxad.report.pictures import figure_view, save_figure
from jaxad.report.run_files import RunFiles, SplitFiles
from jaxad.runtime.progress import counted
from jaxad.storage.workdir import Workdir
from jaxad.train.writer import FIT_IMAGES, FIT_SECONDS, read_metrics

#: Figures of a decision, in the order of the table's columns.
FIGURES = ("f1", "accuracy", "sensitivity", "specificity")


def training_view(workdir: Workdir) -> dict[str, Any]:
    """Training curves by metric (losses, terms, the rest), and the facts that introduce them."""
    rows = read_metrics(workdir.metrics)
    curves: dict[str, dict[str, Curve]] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        phase, _, name = key.partition("/")
        if phase in ("train", "validation") and name:
            steps = np.array([row["step"] for row in rows if key in row])
            values = np.array([row[key] for row in rows if key in row], np.float64)
            curves.setdefault(name, {})[phase] = Curve(steps, values)
    speed = curves.pop("images_per_second", {}).get("train")
    names = sorted(curves, key=lambda name: (not name.startswith("loss/"), name[:5] != "term/"))
    losses = [(row["validation_loss"], row["step"]) for row in rows if "validation_loss" in row]
    fits = [{"images": row[FIT_IMAGES], "seconds": row[FIT_SECONDS]}
            for row in rows if FIT_IMAGES in row]  # fmt: skip
    return {
        "fit": fits[-1] if fits else None,
        "last_step": max((row["step"] for row in rows), default=0),
        "steps": 0 if fits else max((row["step"] for row in rows), default=0),
        "best": min(losses, default=None),
        "images_per_second": None if speed is None else float(np.median(speed.values)),
        "names": names,
        "curves": [
            figure_view(workdir, f"training_{name}", figure, f"{name} over training steps.")
            for name in names
            for figure in [figures.training_curve(name, **curves[name])]
        ],
    }


def curves_view(workdir: Workdir, files: SplitFiles) -> tuple[list[dict[str, Any]], list[str]]:
    """ROC and precision-recall curves, and notes on what is undefined or left out.

    Also writes a histogram of the scores to `figures/`; the page itself has an interactive one.
    """
    notes: list[str] = []
    if files.num_not_finite:
        verb = "is" if files.num_not_finite == 1 else "are"
        slices = counted(files.num_not_finite, "slice")
        notes.append(f"{slices} with a non-finite score {verb} left out.")
    if files.table is None or not len(files.table):
        return [], notes
    labels, scores = files.table.labels, files.table.columns[SCORE]
    views = []
    if len(np.unique(labels)) == 2:
        for title, draw in (
            ("ROC curve", figures.roc_curve),
            ("Precision-recall curve", figures.precision_recall_curve),
        ):
            name, alt = f"{files.name}_{title.split()[0].lower()}", f"{title}, {files.name}."
            views.append(figure_view(workdir, name, draw(labels, scores), alt))
    else:
        kind = "anomalous" if labels[0] else "normal"
        notes.append(
            f"Every slice of this split is {kind}: ROC and precision-recall curves and their "
            "metrics are undefined."
        )
    if scores.min() == scores.max():
        notes.append("Every slice has the same score, so the score separates nothing.")
    save_figure(workdir, f"{files.name}_histogram", figures.score_histogram(labels, scores))
    return views, notes


def reference_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The system's AUROC, then that of each reference score, best first.

    Returns:
        Rows of `raw` and `corrected`, as in metrics.json, `score`, for the figure, and `undefined`,
        the reason why a score is not defined; [] where no reference scores were evaluated.
    """
    if not metrics.get("trivial"):
        return []

    def interval(metric: Mapping[str, Any] | None) -> tuple[float, float, float] | None:
        if metric is None or metric["value"] is None:
            return None
        value, low, high = metric["value"], metric.get("low"), metric.get("high")
        return (value, value if low is None else low, value if high is None else high)

    def row(name: str, scores: Mapping[str, Any], is_model: bool) -> dict[str, Any]:
        raw, corrected = scores.get("auroc"), scores.get("auroc_position_corrected")
        score = ComparedScore(name, is_model, interval(raw), interval(corrected))
        undefined = scores.get("undefined", "")
        return {"raw": raw, "corrected": corrected, "score": score, "undefined": undefined}

    def rank(row: Mapping[str, Any]) -> float:
        return -(row["score"].raw or (-math.inf,))[0]

    references = [
        row(TITLES.get(name, name), scores, False) for name, scores in metrics["trivial"].items()
    ]
    return [row("The system", metrics, True), *sorted(references, key=rank)]


def external_view(run: RunFiles, files: SplitFiles) -> str:
    """Returns a line on the evaluation of another site's data; "" for the run's own test splits."""
    metrics, checkpoint_step = files.metrics, run.newest_step
    external = metrics.get("external")
    if external is None:
        return ""
    text = f"external validation on {external['root']} ({external['data_set']}); "
    text += _calibration_used(run, files)
    if not external["compared_with_training_images"]:
        text += "; not compared with the training images"
    if metrics["checkpoint_step"] < checkpoint_step:
        text += (
            f"; scored with checkpoint {metrics['checkpoint_step']:,}, but the run now has "
            f"checkpoint {checkpoint_step:,}: evaluate this site again"
        )
    return f"{text}. "


def _calibration_used(run: RunFiles, files: SplitFiles) -> str:
    """Returns which calibration the decisions on another site use."""
    if files.metrics["external"]["calibrated_on_site"]:
        return "decisions calibrated on that site"
    if not run.workdir.config.exists():
        return "decisions use the calibration of the exported file"
    used, now = files.stored, run.stored
    if used is None or now is None or used.as_json() == now.as_json():
        return "decisions use the run's calibration"

    def describe(normals: CalibrationSet) -> str:
        return f"{counted(normals.calibration.num_patients, 'normal patient')} of {normals.name}"

    return (
        f"decisions use an earlier calibration of the run, on {describe(used)}; the run is now "
        f"calibrated on {describe(now)}: to use that, repeat the evaluation with --mode=evaluate "
        f"--workdir={run.workdir.path.resolve().name} --test.root={PATH} "
        f"--test.as={files.metrics['external']['name']} and the other options that it had"
    )


def verdict(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the system compares with the best reference score; None where AUROC is undefined."""
    best = metrics.get("best_reference")
    if not best:
        return None
    return {
        "model": metrics["auroc"],
        "name": TITLES.get(best["name"], best["name"]),
        "reference": metrics["trivial"][best["name"]]["auroc"],
        "difference": best["difference"],
    }


def decision_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per way to choose a threshold: `name`, `note` and `FIGURES`.

    Each figure is `{value, low, high}` as in `metrics`, the metrics.json of a test split, any of
    them possibly None.
    """
    decisions = metrics.get("decisions")
    if not decisions:
        return []
    rows = []
    if "best_on_test" in decisions:
        note = "needs the test labels: not available in use"
        rows.append(_decision_row("Best F1 on the test split", note, decisions["best_on_test"]))
        means, note = {}, "too few patients or slices for five folds"
        if folds := decisions["five_fold"]:
            means, deviation = folds["mean"], folds["deviation"]["f1"]
            note = f"needs labelled anomalies; mean of 5 folds, F1 ± {deviation:.3f}"
        name = "Best F1 on one fifth of the patients, tested on the others"
        rows.append(_decision_row(name, note, means))
    normals = decisions["normal_images_only"]
    rows += _normal_rows(normals, decisions["calibration"], decisions["images_are_patients"])
    if "all_positive_f1" in decisions:
        if "pixel_statistics" in decisions:
            name = "Best F1 of pixel statistics on the test split"
            note = "no network: deviation from the training mean of each pixel"
            rows.append(_decision_row(name, note, decisions["pixel_statistics"]))
        everything = {"f1": decisions["all_positive_f1"], "sensitivity": 1.0, "specificity": 0.0}
        if num_images := metrics.get("num_images"):  # it is right for the anomalous ones
            everything["accuracy"] = metrics["num_anomalous"] / num_images
        rows.append(_decision_row("Flag everything", "no model", everything))
    return rows


def _normal_rows(
    normals: Mapping[str, Any], calibration: str, images_are_patients: bool
) -> list[dict[str, Any]]:
    """The rows of the threshold from normal images alone, for images and for patients."""
    requested, granted = (100 * normals[name] for name in ("requested_rate", "rate"))
    rates = f"{requested:.3g} % false positives requested"
    note = f"{counted(normals['calibration_patients'], 'normal patient')} of {calibration}"
    if images_are_patients:
        note += ", each image counted as a patient"
    if granted > requested:
        rates += f", {granted:.3g} % granted"
        note += f"; too few for {requested:.3g} %"
    rows = []
    for unit in ("image", "patient"):
        observed = "no normal patients in this split"
        if number := normals["normal_patients"]:
            rate = 100 * normals[unit]["realised_rate"]
            observed = f"observed {rate:.3g} % in {counted(number, 'normal patient')}"
        name = f"Normal images alone, by {unit}: {rates}"
        rows.append(_decision_row(name, f"{note}; {observed}", normals[unit]))
    return rows


def _decision_row(name: str, note: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """A row of figures, each with an interval, without one (a number), or missing."""
    row: dict[str, Any] = {"name": name, "note": note}
    for key in FIGURES:
        figure = figures.get(key)
        has_interval = isinstance(figure, Mapping)
        row[key] = figure if has_interval else {"value": figure, "low": None, "high": None}
    return row

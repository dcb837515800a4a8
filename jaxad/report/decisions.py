"""The table of decisions: what is reported at which threshold, and what a user would get."""

from collections.abc import Mapping
from typing import Any

FIGURES = ("f1", "accuracy", "sensitivity", "specificity")

Row = dict[str, Any]
Figure = dict[str, float | None]


def decision_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """A row for every way to choose a threshold: `name`, `note`, and each figure.

    A figure is `{value, low, high}` as in metrics.json, each of them possibly None.

    Args:
        metrics: `metrics.json` of a test split; older ones have no `decisions`.
    """
    found = metrics.get("decisions")
    if not found:
        return []
    rows = []
    if "best_on_test" in found:
        rows.append(
            _row("Best F1 on the test split itself", "nobody has it", found["best_on_test"])
        )
        name = "Best F1 on a fifth of the patients, tested on the rest"
        if not found["five_fold"]:
            rows.append(_row(name, "too few patients or slices of a class for five folds", {}))
        else:
            means, deviations = (found["five_fold"][key] for key in ("mean", "deviation"))
            note = f"needs labelled anomalies; mean of five folds, F1 ± {deviations['f1']:.3f}"
            rows.append(_row(name, note, {figure: _alone(means[figure]) for figure in FIGURES}))
    own = found["normal_images_only"]
    note = f"{own['calibration_patients']} normal patients of {found['calibration']}"
    if found["images_are_patients"]:
        note += ", every image taken for one"
    if own["rate"] > own["requested_rate"]:
        note += f"; too few for {100 * own['requested_rate']:.3g} %"
    rate = f"{100 * own['requested_rate']:.3g} % false positives asked for"
    if own["rate"] > own["requested_rate"]:
        rate += f", {100 * own['rate']:.3g} % granted"
    rate += ", from normal images alone"
    for unit in ("image", "patient"):
        if own["normal_patients"]:
            realised = (
                f"realised {100 * own[unit]['realised_rate']:.3g} % over "
                f"{own['normal_patients']} normal patients"
            )
        else:
            realised = "no normal patient in this split to see it on"
        rows.append(_row(f"{rate}, by {unit}", f"{note}; {realised}", own[unit]))
    if "all_positive_f1" in found:
        if "pixel_statistics" in found:
            rows.append(
                _row(
                    "Best F1 of pixel statistics on the test split",
                    "no network: deviation from each pixel's training mean",
                    found["pixel_statistics"],
                )
            )
        everything = {"f1": found["all_positive_f1"], "sensitivity": 1.0, "specificity": 0.0}
        figures = {name: _alone(value) for name, value in everything.items()}
        rows.append(_row("Everything is anomalous", "no model at all", figures))
    return rows


def _alone(value: float) -> Figure:
    """A figure without an interval."""
    return {"value": value, "low": None, "high": None}


def _row(name: str, note: str, figures: Mapping[str, Any]) -> Row:
    missing: Figure = {"value": None, "low": None, "high": None}
    return {"name": name, "note": note, **{key: figures.get(key, missing) for key in FIGURES}}

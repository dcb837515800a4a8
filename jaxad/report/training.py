"""The training curves of a report."""

from typing import Any

import numpy as np

from jaxad.report import figures
from jaxad.report.figures import Curve
from jaxad.report.pictures import figure_view
from jaxad.storage.workdir import Workdir
from jaxad.train.writer import read_metrics


def training_view(workdir: Workdir) -> dict[str, Any]:
    """Curves by metric (losses, terms, the rest), and what is said of them."""
    rows = read_metrics(workdir.metrics)
    curves: dict[str, dict[str, Curve]] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        phase, _, name = key.partition("/")
        if phase in ("train", "validation") and name:
            steps = np.array([row["step"] for row in rows if key in row])
            values = np.array([row[key] for row in rows if key in row], np.float64)
            curves.setdefault(name, {})[phase] = Curve(steps, values)
    speed = curves.pop("images_per_second", {}).get("train")

    def rank(name: str) -> int:
        return 0 if name.startswith("loss/") else 1 if name.startswith("term/") else 2

    names = sorted(curves, key=rank)
    drawn = [figures.training_curve(name, **curves[name]) for name in names]
    losses = [(row["validation_loss"], row["step"]) for row in rows if "validation_loss" in row]
    return {
        "steps": max((row["step"] for row in rows), default=0),
        "best": min(losses, default=None),
        "images_per_second": None if speed is None else float(np.median(speed.values)),
        "names": names,
        "curves": [
            figure_view(workdir, f"training_{name}", figure, f"{name} over the steps of training.")
            for name, figure in zip(names, drawn, strict=True)
        ],
    }

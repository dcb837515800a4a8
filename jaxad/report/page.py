"""`report.html`: one self-contained page of a run, made from the files in its folder alone.

This file reads and draws; `template.html.jinja` holds the words. Whatever a run does not have (an
evaluation, masks, slice positions) the page names instead of failing.
"""

import base64
import csv
import dataclasses
import importlib.metadata
import json
import math
import platform
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from jaxad import config as config_lib
from jaxad.errors import UserError
from jaxad.report import figures
from jaxad.report.columns import sheet_columns
from jaxad.report.decisions import decision_rows
from jaxad.report.figures import Column, ComparedScore, Curve
from jaxad.report.names import METRICS, SYSTEMS
from jaxad.train.writer import read_metrics
from jaxad.workdir import Workdir, atomic_write

#: A test split without `scores.csv`: no rows, labels or scores.
_NO_SCORES: tuple[list[Any], np.ndarray, np.ndarray] = ([], np.zeros(0, int), np.zeros(0))
#: Names of the trivial scores, for the table and the figure of it.
TRIVIAL = {
    "mean": "Mean intensity",
    "standard_deviation": "Standard deviation",
    "area": "Area of the foreground",
    "total_variation": "Total variation",
    "pixel_gaussian": "Gaussian at each pixel",
}


def write_report(workdir: Workdir) -> Path:
    """Writes `report.html` and, as files of their own, its figures in `figures/`.

    Returns:
        The page's path.

    Raises:
        UserError: the folder is no run's, or a file in it is damaged.
    """
    config = workdir.read_config()
    evaluations = workdir.path / "eval"
    folders = sorted(evaluations.iterdir()) if evaluations.is_dir() else []
    environment = Environment(
        loader=PackageLoader("jaxad.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("template.html.jinja").render(
        model=str(config.get("model", {}).get("name", "")),
        data_name=str(config.get("data", {}).get("name", "")),
        folder=workdir.path.resolve().name,
        seed=config.get("seed"),
        splits=[_split_view(workdir, folder.name) for folder in folders if folder.is_dir()],
        training=_training_view(workdir),
        config=config_lib.to_json(config),
        systems=SYSTEMS,
        metric_names=METRICS,
        versions=_versions(),
    )
    with atomic_write(workdir.report) as file:
        file.write(page)
    return workdir.report


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    """What the reader makes of the file, None where there is no file."""
    try:
        return reader(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, csv.Error, zipfile.BadZipFile) as error:
        raise UserError(f"'{path}' cannot be read ({error!r}); evaluate the run again.") from error


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _read_scores(
    path: Path,
) -> tuple[list[dict[str, str]], Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The rows of scores.csv, their labels and their scores."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["label"]) for row in rows], np.int64)
    return rows, labels, np.array([float(row["score"]) for row in rows], np.float64)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _versions() -> dict[str, str]:
    """Versions of what the run needs, as installed where the report is written."""
    versions = {"python": platform.python_version()}
    for name in ("jaxad", "jax", "flax", "optax", "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def _save(workdir: Workdir, name: str, figure: Figure, alt: str) -> dict[str, Any]:
    """Writes figures/<name>.png and gives what the page needs to embed it."""
    png = figures.to_png(figure)
    file_name = re.sub(r"[^A-Za-z0-9_.-]+", "_", name) + ".png"
    with atomic_write(workdir.figures / file_name, "wb") as file:
        file.write(png)
    width, height = figures.css_size(figure)
    source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return {"source": source, "width": width, "height": height, "alt": alt}


def _training_view(workdir: Workdir) -> dict[str, Any]:
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
            _save(workdir, f"training_{name}", figure, f"{name} over the steps of training.")
            for name, figure in zip(names, drawn, strict=True)
        ],
    }


def _split_view(workdir: Workdir, split: str) -> dict[str, Any]:
    """What the page says and shows of one test split."""
    folder = workdir.evaluation(split)
    metrics = _read(folder / "metrics.json", _read_json) or {}
    table, labels, scores = _read(folder / "scores.csv", _read_scores) or _NO_SCORES
    examples = _read(folder / "examples.npz", _read_arrays)
    view: dict[str, Any] = {
        "name": split,
        "metrics": {name: value for name, value in metrics.items() if _is_metric(value)},
        "numbers": {k: v for k, v in metrics.items() if isinstance(v, int | float)},
        "json": json.dumps(metrics, indent=2) if metrics else "",
        "compared": _compared(metrics) if metrics.get("trivial") else [],
        "decisions": decision_rows(metrics),
        "curves": [],
        "notes": [],
        "sheets": [],
    }
    if view["compared"]:
        figure = figures.comparison([row["score"] for row in view["compared"]])
        alt = f"AUROC of the model and of the trivial scores on {split}, as in the table."
        view["lead"] = _lead([row["score"] for row in view["compared"]])
        view["comparison"] = _save(workdir, f"{split}_comparison", figure, alt)
    if table:
        view["curves"], view["notes"] = _score_figures(workdir, split, labels, scores)
    if examples is not None and len(examples["id"]):
        view["columns"] = sheet_columns(examples)
        view["sheets"] = [
            _sheet(workdir, split, kind, view["columns"], examples, table)
            for kind in ("most", "least")
            if (examples["kind"] == kind).any()
        ]
    return view


def _is_metric(value: Any) -> bool:
    return isinstance(value, Mapping) and "value" in value


def _compared(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The model, then the trivial scores, best first: `raw`, `corrected` and, to draw, `score`."""

    def triple(metric: Mapping[str, Any] | None) -> tuple[float, float, float] | None:
        if metric is None or metric["value"] is None:
            return None
        value, low, high = metric["value"], metric.get("low"), metric.get("high")
        return (value, value if low is None else low, value if high is None else high)

    def row(name: str, scores: Mapping[str, Any], is_model: bool) -> dict[str, Any]:
        raw, corrected = scores.get("auroc"), scores.get("auroc_position_corrected")
        if name.startswith("pca_"):
            name = f"PCA residual, {name.removeprefix('pca_')} components"
        name = TRIVIAL.get(name, name.replace("_", " "))
        score = ComparedScore(name, is_model, triple(raw), triple(corrected))
        return {"raw": raw, "corrected": corrected, "score": score}

    def rank(row: Mapping[str, Any]) -> float:
        return -(row["score"].corrected or row["score"].raw or (-math.inf,))[0]

    trivial = [row(name, scores, False) for name, scores in metrics["trivial"].items()]
    return [row("The model", metrics, True), *sorted(trivial, key=rank)]


def _lead(scores: Sequence[ComparedScore]) -> dict[str, Any] | None:
    """The model's AUROC and the best trivial score's, corrected where the model's is."""
    kind = "corrected" if scores[0].corrected else "raw"
    pairs = [(getattr(score, kind), score.name) for score in scores]
    rivals = [pair for pair in pairs[1:] if pair[0]]
    if not pairs[0][0] or not rivals:
        return None
    theirs, name = max(rivals)
    return {"kind": kind, "ours": pairs[0][0], "theirs": theirs, "name": name}


def _score_figures(
    workdir: Workdir, split: str, labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"]
) -> tuple[list[dict[str, Any]], list[str]]:
    """ROC, precision-recall and histogram where they are defined, and notes where they are not."""
    notes = []
    finite = np.isfinite(scores)
    if not finite.all():
        notes.append(f"Left out: {(~finite).sum():,} slices whose score is not finite.")
    labels, scores = labels[finite], scores[finite]
    if not len(scores):
        return [], notes
    made: dict[str, Figure] = {}
    if len(np.unique(labels)) == 2:
        made["ROC curve"] = figures.roc_curve(labels, scores)
        made["Precision-recall curve"] = figures.precision_recall_curve(labels, scores)
    else:
        kind = "anomalous" if labels[0] else "normal"
        notes.append(
            f"Every slice of this split is {kind}: ROC and precision-recall curves, and the "
            "metrics made from them, are not defined."
        )
    if scores.min() == scores.max():
        notes.append("Every slice has the same score: it tells nothing apart.")
    made["Histogram of the scores"] = figures.score_histogram(labels, scores)
    views = [
        _save(workdir, f"{split}_{title.split()[0].lower()}", figure, f"{title}, {split}.")
        for title, figure in made.items()
    ]
    return views, notes


def _sheet(
    workdir: Workdir,
    split: str,
    kind: str,
    columns: Mapping[str, Column],
    examples: Mapping[str, np.ndarray],
    table: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """The contact sheet of the most or the least anomalous slices, and their rows of scores.csv."""
    chosen = np.flatnonzero(examples["kind"] == kind)
    sign = -1 if kind == "most" else 1
    chosen = chosen[np.argsort(sign * examples["score"][chosen], kind="stable")]
    described = zip(*(examples[name][chosen] for name in ("id", "label", "score")), strict=True)
    labels = []
    for name, label, score in described:
        kind_of_slice = "anomalous" if label else "normal"
        labels.append(f"{_shortened(str(name))}\n{kind_of_slice}\nscore {score:,.5g}")
    shown = [dataclasses.replace(c, images=c.images[chosen]) for c in columns.values()]
    masks = examples["mask"][chosen] if "mask" in examples else None
    figure = figures.contact_sheet(shown, labels, masks)
    alt = f"The {kind} anomalous slices of {split}: " + ", ".join(c.title for c in shown)
    by_id = {row["id"]: row for row in table}
    rows = [by_id[name] for name in examples["id"][chosen].tolist() if name in by_id]
    return {"kind": kind, "rows": rows, **_save(workdir, f"{split}_{kind}", figure, alt + ".")}


def _shortened(name: str, length: int = 20) -> str:
    """The name, its middle left out where it is longer than `length`."""
    half = length // 2 - 1
    return name if len(name) <= length else f"{name[:half]}…{name[-half:]}"

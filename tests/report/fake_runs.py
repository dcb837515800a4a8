"""Run folders with made-up results, to write reports from without training."""

import csv
import json
import re

import numpy as np

from jaxad.calibration.calibration_set import make_calibration_set, write_calibration_set
from jaxad.config import base, run_config
from jaxad.evaluate.examples import KINDS
from jaxad.report import write_report
from jaxad.storage.workdir import Workdir, write_json
from jaxad.types import Split

HOSTILE = "</script><script>alert('$x^{$')</script>"
#: Component of the made-up score -> its weight.
WEIGHTS = {"nll": 1.0, "kl": 0.5}


def interval(value, spread=0.031):
    return {"value": value, "low": value - spread, "high": value + spread}


def make_metrics(**changes):
    names = ("mean", "standard_deviation", "area", "total_variation", "pixel_gaussian", "pca_64")
    trivial = {
        name: {
            "auroc": interval(0.5012 + 0.0211 * i),
            "auroc_position_corrected": interval(0.5119 + 0.0212 * i),
        }
        for i, name in enumerate(names)
    }
    metrics = {
        "auroc": interval(0.7234),
        "auroc_position_corrected": interval(0.7561),
        "average_precision": interval(0.6123),
        "mse": interval(0.002831, 0.000071),
        "pixel_auroc": interval(0.8437),
        "pixel_average_precision": interval(0.2239),
        "best_dice": interval(0.3141),
        "num_images": 1234,
        "num_anomalous": 43,
        "checkpoint_step": 100,
        "score_weights": WEIGHTS,
        "best_reference": {
            "name": "pca_64",
            "difference": {"value": 0.1167, "low": 0.0912, "high": 0.1433, "p_value": 0.001},
        },
        "reference_encoder": "efficientnet_lite0, stride 32",
        "trivial": trivial | {"feature_gaussian": {"undefined": "no encoder weights"}},
    }
    return metrics | changes


def make_workdir(path, name="pchvae", data="icbm_synth"):
    config = base()
    config.model.name = name
    config.data.name = data
    workdir = Workdir(path)
    run_config.write(workdir, config)
    return workdir


def add_training(workdir, losses=("model",), lines=4):
    rows = []
    for step in range(10, 10 * lines + 1, 10):
        row = {f"train/loss/{loss}": 100.0 / step for loss in losses}
        row |= {"train/term/nll": -5.0 * step, "train/grad_norm": 3.0}
        row |= {"train/images_per_second": 512.0, "train/learning_rate": 1e-3}
        rows.append({"step": step, **row})
    rows.append({"step": 10 * lines, "validation/loss/model": 2.5, "validation_loss": 2.5})
    workdir.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def add_scores(workdir, split, labels, scores, ids=None, groups=None, positions=None):
    """Writes scores.csv; the components are 1.25 and twice the rest, to match `WEIGHTS`."""
    folder = workdir.evaluation(split)
    folder.mkdir(parents=True, exist_ok=True)
    scores = np.asarray(scores, np.float32)
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "group", "position", "label", "score", *WEIGHTS, "mse"])
        for i, (label, score) in enumerate(zip(labels, scores, strict=True)):
            name = ids[i] if ids else f"slice-{i}"
            group = groups[i] if groups else f"group-{i // 4}"
            position = "" if positions is None else positions[i]
            kl = np.float32(2) * (score - np.float32(1.25))
            writer.writerow([name, group, position, int(label), str(score), 1.25, str(kl), 0.5])


def add_examples(workdir, split, names, channels=1, proportional=None, mask=True, ids=None):
    """Writes four slices: two with the highest and two with the lowest scores, and so on."""
    generator = np.random.default_rng(0)
    shape = (4, 16, 16, channels)
    image = generator.random(shape, np.float32)
    arrays = {f"reconstruction_{name}": generator.random(shape, np.float32) for name in names}
    pixel = generator.normal(size=shape[:3]).astype(np.float32)
    if "reconstruction" in names if proportional is None else proportional:
        pixel = 30 * ((image - arrays["reconstruction_reconstruction"]) ** 2).mean(axis=-1)
    if mask:
        arrays["mask"] = (pixel > np.median(pixel)).astype(np.uint8)
    kinds = {"most": [1, 1, 0, 0], "least": [0, 0, 1, 1], "false_alarms": [0, 1, 0, 0],
             "misses": [1, 0, 0, 1]}  # fmt: skip
    assert tuple(kinds) == KINDS
    folder = workdir.evaluation(split)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "examples.npz",
        id=np.array(ids or [f"slice-{i}" for i in range(4)]),
        label=np.array([1, 0, 0, 1], np.int32),
        score=np.array([9.5, 8.5, 1.5, 2.5], np.float32),
        image=image,
        pixel=pixel,
        **{f"kind_{name}": np.array(rows, bool) for name, rows in kinds.items()},
        **arrays,
    )


def add_calibration(workdir, scores, groups, step=100):
    """Calibrates a run on normal images; components of the scores are as in `add_scores`."""
    scores = np.asarray(scores, np.float32)
    split = Split(
        images=np.zeros((len(scores), 2, 2, 1), np.uint8),
        labels=np.zeros(len(scores), np.int32),
        ids=tuple(f"normal-{i}" for i in range(len(scores))),
        groups=tuple(groups),
    )
    components = {"nll": np.full(len(scores), 1.25), "kl": 2 * (scores.astype(np.float64) - 1.25)}
    maxima = np.ones(len(scores))
    normals = make_calibration_set(None, step, split, scores, components, maxima)
    write_calibration_set(workdir.calibration, normals)
    return normals.calibration


def add_split(workdir, split, **examples):
    labels = np.repeat([0, 1], 20)
    ids = examples.get("ids")
    ids = [*ids, *(f"slice-{i}" for i in range(len(ids), 40))] if ids else None
    add_scores(workdir, split, labels, np.random.default_rng(0).normal(labels), ids)
    write_json(workdir.evaluation(split) / "metrics.json", make_metrics())
    add_examples(workdir, split, **examples)


def read(workdir):
    return write_report(workdir).read_text(encoding="utf-8")


def visible(page):
    """The text of the page, without tags, styles, scripts, embedded figures and the raw JSON."""
    page = re.sub(r"(?s)<(style|script|pre)[ >].*?</\1>|<img[^>]*>", " ", page)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))

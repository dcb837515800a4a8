"""The report says what the files of a run say, whatever of them is missing."""

import csv
import json
import re

import numpy as np
import pytest

from jaxad.config import base
from jaxad.errors import UserError
from jaxad.report import write_report
from jaxad.workdir import Workdir, write_json

HOSTILE = "<script>alert('$x^{$')</script>"
SECTIONS = ("summary", "trivial", "training", "curves", "slices", "run")


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
        "trivial": trivial,
    }
    return metrics | changes


def make_workdir(path, name="pchvae", data="icbm_synth"):
    config = base()
    config.model.name = name
    config.data.name = data
    workdir = Workdir(path)
    workdir.claim(config)
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


def add_scores(workdir, split, labels, scores, ids=None):
    folder = workdir.evaluation(split)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "group", "position", "label", "score", "nll"])
        for i, (label, score) in enumerate(zip(labels, scores, strict=True)):
            name = ids[i] if ids else f"slice-{i}"
            writer.writerow([name, f"group-{i // 4}", "", label, float(score), 1.25])


def add_examples(workdir, split, names, channels=1, proportional=None, mask=True, ids=None):
    generator = np.random.default_rng(0)
    shape = (4, 16, 16, channels)
    image = generator.random(shape, np.float32)
    arrays = {f"reconstruction_{name}": generator.random(shape, np.float32) for name in names}
    pixel = generator.normal(size=shape[:3]).astype(np.float32)
    if "reconstruction" in names if proportional is None else proportional:
        pixel = 30 * ((image - arrays["reconstruction_reconstruction"]) ** 2).mean(axis=-1)
    if mask:
        arrays["mask"] = (pixel > np.median(pixel)).astype(np.uint8)
    folder = workdir.evaluation(split)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "examples.npz",
        id=np.array(ids or [f"slice-{i}" for i in range(4)]),
        kind=np.array(["most", "most", "least", "least"]),
        label=np.array([1, 0, 0, 1], np.int32),
        score=np.array([9.5, 8.5, 1.5, 2.5], np.float32),
        image=image,
        pixel=pixel,
        **arrays,
    )


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
    """The text of the page, without tags, styles, embedded figures and the raw JSON."""
    page = re.sub(r"(?s)<style>.*?</style>|<pre>.*?</pre>|<img[^>]*>", " ", page)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The workdir of a whole run, and its page."""
    workdir = make_workdir(tmp_path_factory.mktemp("full"))
    add_training(workdir)
    names = ["high", "low", "zero", "reconstruction"]
    ids = [HOSTILE, "slice-1", "slice-2", "slice-3"]
    add_split(workdir, "test_objects", names=names, ids=ids)
    return workdir, read(workdir)


def test_every_number_of_the_metrics_is_told(full):
    metrics, text = make_metrics(), visible(full[1])
    scores = [metrics["trivial"][name] for name in metrics["trivial"]]
    for row in (metrics, *scores):
        for name, metric in row.items():
            if isinstance(metric, dict) and "value" in metric:
                numbers = (
                    f"{metric[k]:#.3g}" if name == "mse" else f"{metric[k]:.3f}" for k in metric
                )
                value, low, high = numbers
                assert f"{value} {low} to {high}" in text
    assert "1,234 images, 43 anomalous" in text


def test_all_sections_are_there(full):
    for section in SECTIONS:
        assert full[1].count(f'<section id="{section}">') == 1
        assert full[1].count(f'href="#{section}"') == 1


def test_page_needs_no_other_file(full):
    references = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", full[1])
    assert references
    assert all(name.startswith(("#", "data:image/png;base64,")) for name in references)
    assert "<script" not in full[1] and "@import" not in full[1] and "<link" not in full[1]


def test_hostile_ids_are_text(full):
    assert "&lt;script&gt;alert" in full[1]


def test_the_figures_lie_in_their_folder_too(full):
    names = {path.name for path in full[0].figures.iterdir()}
    assert {"training_loss_model.png", "test_objects_most.png", "test_objects_roc.png"} <= names
    assert len(names) == full[1].count("<img ")


def test_what_the_data_and_the_software_are_not(full):
    text = visible(full[1])
    assert (
        "The data are semi-synthetic: deformations of one real template (ICBM152), with "
        "photographs or drawn lesions as anomalies. Figures here say how systems compare on this "
        "data, not how well they find disease."
    ) in text
    assert "Research software, not a medical device." in text


def test_what_was_run(full):
    assert "&#34;learning_rate&#34;: 0.0001" in full[1]
    assert all(name in visible(full[1]) for name in ("pchVAE", "jax", "flax", "python"))
    assert "median of 512 images per second" in visible(full[1])
    assert "lowest at step 40, with 2.5" in visible(full[1])


def test_model_is_compared_with_the_best_trivial_score(full):
    text = visible(full[1])
    assert "0.756 (0.725 to 0.787) against 0.618 (0.587 to 0.649)" in text
    assert "PCA residual, 64 components" in text
    assert "the intervals do not overlap" in text
    order = [
        text.index(name) for name in ("The model 0.723", "components 0.607", "intensity 0.501")
    ]
    assert order == sorted(order)


def test_columns_of_pchvae(full):
    columns = re.findall(r"<dt>(.*?)</dt>", full[1])
    assert columns == [
        *("input", "high level", "low level", "x_zero", "reconstruction", "residual", "mask")
    ]


def test_the_same_run_gives_the_same_page(tmp_path):
    workdir = make_workdir(tmp_path)
    add_scores(workdir, "test_a", [0, 1, 1], [0.5, 1.5, 2.5])
    add_examples(workdir, "test_a", names=[])
    assert read(workdir) == read(workdir)


def test_a_run_that_was_only_trained(tmp_path):
    workdir = make_workdir(tmp_path, "aeflow", "folder")
    add_training(workdir, losses=("generator", "critic"), lines=1)
    page = read(workdir)
    assert "has not been evaluated" in page and "No test split was evaluated" in page
    assert "No example slices were kept" in page
    assert "AE-FLOW" in page and "semi-synthetic" not in page
    assert (workdir.figures / "training_loss_critic.png").exists()


def test_a_config_alone(tmp_path):
    page = read(make_workdir(tmp_path, name="one of my own"))
    assert "No training metrics were recorded" in page and "one of my own" in page


def test_no_run(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json"):
        write_report(Workdir(tmp_path))


def test_a_split_of_one_class_with_a_constant_score(tmp_path):
    workdir = make_workdir(tmp_path)
    add_scores(workdir, "test_a", np.zeros(9, int), np.full(9, 2.0))
    undefined = {"value": None, "low": None, "high": None}
    metrics = make_metrics(auroc=undefined, auroc_position_corrected=undefined)
    metrics["trivial"] = {"mean": {"auroc": undefined}}
    write_json(workdir.evaluation("test_a") / "metrics.json", metrics)
    text = visible(read(workdir))
    assert "Every slice of this split is normal" in text
    assert "Every slice has the same score" in text
    assert "AUROC, raw undefined" in text
    assert not (workdir.figures / "test_a_roc.png").exists()


def test_splits_with_other_metrics_stand_side_by_side(tmp_path):
    workdir = make_workdir(tmp_path)
    few = {"auroc": interval(0.6), "sensitivity_at_best_f1": {"value": 0.4321}, "threshold": 0.25}
    for split, metrics in (("test_a", few), ("test_b", make_metrics())):
        workdir.evaluation(split).mkdir(parents=True)
        write_json(workdir.evaluation(split) / "metrics.json", metrics)
    text = visible(read(workdir))
    assert "AUROC, raw 0.600 0.569 to 0.631 0.723 0.692 to 0.754" in text
    assert "Best Dice – 0.314" in text
    assert "Sensitivity at best f1 0.432 –" in text and "threshold 0.25" in text
    assert "There are no scores of this split" in text


@pytest.mark.parametrize(
    ("examples", "columns"),
    [
        ({"names": ["reconstruction"], "mask": False}, ["input", "reconstruction", "residual"]),
        (
            {"names": ["reconstruction", "top_only"], "channels": 3, "proportional": False},
            ["input", "top only", "reconstruction", "residual", "anomaly map", "mask"],
        ),
        ({"names": []}, ["input", "anomaly map", "mask"]),
        ({"names": ["low", "reconstruction"], "channels": 3, "mask": False}, None),
    ],
)
def test_other_systems(tmp_path, examples, columns):
    workdir = make_workdir(tmp_path, "ae")
    add_examples(workdir, "test_a", **examples)
    page = read(workdir)
    if columns:
        assert re.findall(r"<dt>(.*?)</dt>", page) == columns
    assert ("no reconstruction, so there is no residual" in page) == (not examples["names"])
    assert (workdir.figures / "test_a_least.png").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("metrics.json", "{"), ("scores.csv", "id,label\na,1\n"), ("examples.npz", "PK\x03\x04")],
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    workdir = make_workdir(tmp_path)
    path = workdir.evaluation("test_a") / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match=f"{name}' cannot be read"):
        write_report(workdir)

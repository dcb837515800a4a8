"""The report shows what the files of a run contain, even if some of them are missing."""

import base64
import hashlib
import html
import json
import re
import shutil

import numpy as np
import pytest
from fake_runs import (
    HOSTILE,
    add_calibration,
    add_examples,
    add_scores,
    add_split,
    add_training,
    interval,
    make_metrics,
    make_workdir,
    read,
    visible,
)
from markupsafe import escape

from jaxad.config import get_config, run_config
from jaxad.errors import UserError
from jaxad.report import write_report
from jaxad.storage import history
from jaxad.storage.workdir import Workdir, write_json

SECTIONS = (
    "summary",
    "references",
    "slices",
    "thresholds",
    "patients",
    "curves",
    "training",
    "run",
)


def sections(page):
    return re.findall(r'<section id="(.*?)">', page)


def explained(page):
    """The titles of the images that the page explains."""
    return re.findall(
        r"<dt>(.*?)</dt><dd>", page.partition('<dl class="columns">')[2].partition("</dl>")[0]
    )


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The workdir of a complete run, and its page."""
    workdir = make_workdir(tmp_path_factory.mktemp("full"))
    add_training(workdir)
    names = ["high", "low", "zero", "reconstruction"]
    ids = [HOSTILE, "slice-1", "slice-2", "slice-3"]
    add_split(workdir, "test_objects", names=names, ids=ids)
    add_calibration(workdir, np.linspace(-1, 2, 40), [f"n{i // 2}" for i in range(40)])
    return workdir, read(workdir)


def test_every_metric_is_on_the_page(full):
    metrics, text = make_metrics(), visible(full[1])
    scores = list(metrics["trivial"].values())
    for row in (metrics, *scores):
        for name, metric in row.items():
            if isinstance(metric, dict) and "value" in metric:
                decimals = {"mse": 5}.get(name, 3)
                value, low, high = (f"{metric[k]:.{decimals}f}" for k in metric)
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
    assert "@import" not in full[1] and "<link" not in full[1]


def test_the_policy_lets_our_scripts_run_and_no_other(full):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', full[1])[1]
    assert policy.startswith(
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:;"
    )
    scripts = re.findall(r"(?s)<script>(.*?)</script>", full[1])
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    assert len(scripts) == 2
    assert re.findall(r"'sha256-([^']*)'", html.unescape(policy)) == digests


def test_paths_of_the_machine_stay_on_it(tmp_path):
    config = get_config("ae")
    config.data.root = config.train.feature_cache = "/home/Mrs. Miller"
    workdir = Workdir(tmp_path)
    run_config.write(workdir, config)
    page = read(workdir)
    assert "Miller" not in page and "feature_cache" in page


def test_hostile_ids_are_text(full):
    assert "&lt;script&gt;alert" in full[1]
    assert full[1].count("<script") == full[1].count("</script>") == 3
    data = re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', full[1])[1]
    assert HOSTILE in json.loads(data)["splits"][0]["slices"]["id"]


def test_the_figures_lie_in_their_folder_too(full):
    files = {path.name: path.read_bytes() for path in full[0].figures.iterdir()}
    names = ("training_loss_model", "test_objects_roc", "test_objects_most", "test_objects_least")
    assert {f"{name}.png" for name in names} <= set(files)
    shown = re.findall(r'plot"><img src="data:image/png;base64,([^"]*)"', full[1])
    assert len(shown) == 7
    assert {base64.b64decode(one) for one in shown} <= set(files.values())


def test_a_slice_of_several_kinds_is_on_the_page_once(full):
    cases = re.findall(r'<article class="case"([^>]*)>\n<h4>(.*?)</h4>', full[1])
    ranks = {name: dict(re.findall(r'data-rank-(\w+)="(\d+)"', text)) for text, name in cases}
    assert ranks == {
        str(escape(HOSTILE)): {"most": "0", "misses": "1"},
        "slice-1": {"most": "1", "false_alarms": "0"},
        "slice-2": {"least": "0"},
        "slice-3": {"least": "1", "misses": "0"},
    }
    assert "Among the lowest scores; among the lowest of anomalous slices" in visible(full[1])


def test_disclaimers_about_the_data_and_the_software(full):
    text = visible(full[1])
    assert (
        "The run’s own data are semi-synthetic: deformations of one real brain template (ICBM152), "
        "with photographs of objects or drawn lesions as anomalies. The results on them show how "
        "systems compare, not how well they find disease."
    ) in text
    assert "Research software, not a medical device." in text


def test_setup_lists_config_and_versions(full):
    assert "&#34;learning_rate&#34;: 0.0001" in full[1]
    assert all(name in visible(full[1]) for name in ("pchVAE", "jax", "flax", "python"))
    assert "median of 512 images per second" in visible(full[1])
    assert "lowest at step 40: 2.5" in visible(full[1])


def test_model_is_compared_with_the_best_reference_score(full):
    text = visible(full[1])
    assert "AUROC 0.723 against 0.607 of the best reference score on this split, " in text
    assert "“PCA of pixels, 64 components”: a difference of 0.117 (95&nbsp;% interval" in text
    assert "patients 0.091 to 0.143). The system is better." in text
    assert "Gaussian at each place of the features undefined: no encoder weights" in text
    assert "Features: efficientnet_lite0, stride 32." in text
    order = [
        text.index(name) for name in ("The system 0.723", "components 0.607", "intensity 0.501")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.14, -0.02, "The reference is better: on this split, training shows no benefit."),
        (-0.05, 0.03, "No difference is shown."),
    ],
)
def test_the_verdict_follows_the_interval(tmp_path, low, high, words):
    difference = {"value": (low + high) / 2, "low": low, "high": high, "p_value": 0.5}
    workdir = make_workdir(tmp_path)
    best = {"name": "pca_64", "difference": difference}
    write_json(workdir.evaluation("test_a") / "metrics.json", make_metrics(best_reference=best))
    assert words in visible(read(workdir))


def test_columns_of_pchvae(full):
    assert explained(full[1]) == [
        *("input", "high level", "low level", "x_zero", "reconstruction", "residual")
    ]
    assert "Blue outlines mark" in full[1]


def test_the_same_run_gives_the_same_page(tmp_path):
    workdir = make_workdir(tmp_path)
    add_scores(workdir, "test_a", [0, 1, 1], [0.5, 1.5, 2.5])
    add_examples(workdir, "test_a", names=[])
    assert read(workdir) == read(workdir)


def test_a_run_that_was_only_trained(tmp_path):
    workdir = make_workdir(tmp_path, "aeflow", "folder")
    add_training(workdir, losses=("generator", "critic"), lines=1)
    page = read(workdir)
    assert "has not been evaluated" in page
    assert sections(page) == ["summary", "training", "run"]
    assert "AE-FLOW" in page and "semi-synthetic" not in page
    assert (workdir.figures / "training_loss_critic.png").exists()


def test_a_run_that_was_fitted_in_one_pass(tmp_path):
    workdir = make_workdir(tmp_path, "padim", "folder")
    workdir.metrics.write_text('{"step": 1, "fit/images": 1234.0, "fit/seconds": 5.5}\n')
    page = read(workdir)
    assert "Fitted in one pass over 1,234 training images, in 5.5 s." in page
    assert "No training metrics" not in page and "training steps" not in page


def test_a_run_without_a_test_split_offers_scoring_and_calibration_alone(tmp_path):
    workdir = make_workdir(tmp_path / "one")
    add_training(workdir)
    add_calibration(workdir, np.linspace(0, 1, 40), [f"n{i}" for i in range(40)])
    with history.evaluation(workdir, ()):
        pass
    page = read(workdir)
    assert sections(page) == re.findall('href="#(.*?)"', page) == ["summary", "training", "run"]
    text = visible(page)
    assert "The data have no test split" in text and "mode=evaluate" not in page
    # 5 % of 40 normal patients: the threshold is the second highest score, 38 / 39.
    assert "Calibrated on 40 normal patients (val): at a false-positive rate of 0.05" in text
    assert "above 0.974359" in text
    assert "--mode=score --workdir=one" in page and "--mode=calibrate --workdir=one" in page


def test_another_site_follows_the_splits_of_the_run(tmp_path):
    workdir = make_workdir(tmp_path)
    external = {
        "name": "b", "root": "b", "data_set": "npz", "calibrated_on_site": False,
        "compared_with_training_images": True,
    }  # fmt: skip
    site = make_metrics(external=external, checkpoint_step=50, score_weights={"old": 1.0})
    add_scores(workdir, "a_site", [0, 1, 1], [0.5, 1.5, 2.5])
    write_json(workdir.evaluation("a_site") / "metrics.json", site)
    assert "evaluate this site again" not in read(workdir)
    # The newest checkpoint, 100, is known from the calibration, also without a test split.
    add_calibration(workdir, np.linspace(0, 1, 40), [f"n{i}" for i in range(40)])
    expected = "scored with checkpoint 50, but the run now has checkpoint 100: evaluate this site"
    assert expected in read(workdir)
    add_scores(workdir, "test_b", [0, 1, 1], [0.5, 1.5, 2.5])
    write_json(workdir.evaluation("test_b") / "metrics.json", make_metrics())
    text = visible(read(workdir))
    assert "Score = nll + 0.5 kl ." in text
    assert 0 < text.index("test_b") < text.index("a_site")


def test_decisions_name_the_calibration_that_they_used(tmp_path):
    workdir = make_workdir(tmp_path / "one")
    external = {
        "name": "b", "root": "b", "data_set": "npz", "calibrated_on_site": False,
        "compared_with_training_images": True,
    }  # fmt: skip
    normals = {"calibration_patients": 40, "requested_rate": 0.05, "rate": 0.05}
    figures = dict.fromkeys(("image", "patient"), {"realised_rate": None})
    decisions = {
        "calibration": "val", "images_are_patients": False,
        "normal_images_only": {**normals, "normal_patients": 0, **figures},
    }  # fmt: skip
    add_calibration(workdir, np.linspace(0, 1, 40), [f"n{i}" for i in range(40)])
    for name, facts in (("test_a", {}), ("b_x", {"external": external})):
        add_scores(workdir, name, [0, 1, 1], [0.5, 1.5, 2.5])
        metrics = make_metrics(decisions=decisions, **facts)
        write_json(workdir.evaluation(name) / "metrics.json", metrics)
    shutil.copy(workdir.calibration, workdir.evaluation("b_x"))
    text = visible(read(workdir))
    assert "decisions use the run's calibration" in html.unescape(text)
    assert "earlier calibration" not in text
    add_calibration(workdir, np.linspace(0, 2, 30), [f"m{i}" for i in range(30)])
    text = html.unescape(visible(read(workdir)))
    assert (
        "decisions use an earlier calibration of the run, on 40 normal patients of val; the run is "
        "now calibrated on 30 normal patients of val: to use that, repeat the evaluation with "
        "--mode=evaluate --workdir=one --test.root=PATH --test.as=b and the other "
        "options that it had."
    ) in text
    decisions = "The decisions on test_a use an earlier calibration, on 40 normal patients of val"
    assert decisions in text


def test_a_split_without_position_corrected_references_has_no_column_for_them(tmp_path):
    workdir = make_workdir(tmp_path)
    plain = make_metrics(trivial={"pca_64": {"auroc": make_metrics()["auroc"]}})
    del plain["auroc_position_corrected"]
    for name, metrics in (("test_a", make_metrics()), ("test_b", plain)):
        add_scores(workdir, name, [0, 1, 1], [0.5, 1.5, 2.5])
        write_json(workdir.evaluation(name) / "metrics.json", metrics)
    assert read(workdir).count("<th>AUROC, position-corrected</th>") == 2  # summary and test_a


def test_cut_names_have_a_tooltip_and_patients_of_one_slice_no_slices(tmp_path):
    workdir = make_workdir(tmp_path)
    ids = [f"folder/with-a-long-name/{i}.png" for i in range(4)]
    add_scores(workdir, "test_a", [0, 1, 1, 0], np.arange(4), ids, groups=list("ppqr"))
    page = read(workdir)
    assert f'<td class="slice" title="{ids[1]}">{ids[1]}</td>' in page
    assert 'class="name" title="p"' in page
    add_scores(workdir, "test_a", [0, 1, 1, 0], np.arange(4), ids, groups=ids)
    page = read(workdir)
    assert '<td class="slice"' not in page and "Every patient has one slice." in page


def test_a_config_alone(tmp_path):
    page = read(make_workdir(tmp_path, name="one of my own"))
    assert "No training metrics were recorded" in page and "one of my own" in page


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json"):
        write_report(Workdir(tmp_path))


def test_a_split_of_one_class_with_a_constant_score(tmp_path):
    workdir = make_workdir(tmp_path)
    add_scores(workdir, "test_a", np.zeros(9, int), np.full(9, 2.0))
    undefined = {"value": None, "low": None, "high": None}
    metrics = make_metrics(auroc=undefined, auroc_position_corrected=undefined)
    metrics["trivial"] = {"mean": {"auroc": undefined}}
    metrics["best_reference"] = None
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
    assert "This split has no scores" in text


@pytest.mark.parametrize(
    ("examples", "columns"),
    [
        ({"names": ["reconstruction"], "mask": False}, ["input", "reconstruction", "residual"]),
        (
            {"names": ["reconstruction", "top_only"], "channels": 3, "proportional": False},
            ["input", "top only", "reconstruction", "residual", "anomaly map"],
        ),
        ({"names": []}, ["input", "anomaly map"]),
        ({"names": ["low", "reconstruction"], "channels": 3, "mask": False}, None),
    ],
)
def test_other_systems(tmp_path, examples, columns):
    workdir = make_workdir(tmp_path, "ae")
    add_examples(workdir, "test_a", **examples)
    page = read(workdir)
    if columns:
        assert explained(page) == columns
    assert ("has no reconstruction and therefore no residual" in page) == (not examples["names"])
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

"""Comparisons of runs: differences are paired by image, in any order of rows."""

import shutil

import numpy as np
import pytest
from fake_runs import HOSTILE, add_examples, add_scores, add_split, make_metrics, make_workdir

import jaxad
from jaxad import cli
from jaxad.config import run_config, to_json
from jaxad.errors import UserError
from jaxad.evaluate import paired
from jaxad.evaluate.metrics import METRICS
from jaxad.evaluate.score_table import read_score_table
from jaxad.report.comparison import _unique_names, comparison_view, read_others
from jaxad.report.run_files import read_run
from jaxad.report.texts import difference, p_value
from jaxad.storage.locations import locate
from jaxad.storage.workdir import write_json

LABELS = np.tile([0, 1], 20)
IDS = [f"slice-{i}" for i in range(40)]


def make_run(path, seed, order=None, labels=LABELS, ids=IDS, groups=None):
    """A run with random scores from a seed, with its rows in the given order."""
    order = np.arange(40) if order is None else order
    workdir = make_workdir(path)
    scores = np.random.default_rng(seed).normal(LABELS)
    groups = groups or [f"group-{i // 4}" for i in range(40)]
    add_scores(
        workdir, "test_a", np.asarray(labels)[order], scores[order],
        [ids[i] for i in order], [groups[i] for i in order],
    )  # fmt: skip
    write_json(workdir.evaluation("test_a") / "metrics.json", make_metrics())
    return workdir


def compare(ours, *others):
    runs = read_others(read_run(ours), others)
    return comparison_view(runs, METRICS)["splits"][0]


def test_differences_are_paired_whatever_the_order_of_rows(tmp_path):
    ours = make_run(tmp_path / "a", 0)
    theirs = make_run(tmp_path / "b", 1, order=np.random.default_rng(2).permutation(40))
    split = compare(ours, theirs)
    assert not split["notes"] and split["measured"] == ["auroc", "average_precision", "mse"]
    plain = make_run(tmp_path / "c", 1)
    one, two = (
        read_score_table(run.evaluation("test_a") / "scores.csv").scored() for run in (ours, plain)
    )
    (row,) = split["differences"]
    by_name = {metric.name: metric for metric in METRICS}
    for name, cells in zip(split["measured"], row["cells"], strict=True):
        metric = by_name[name]
        found = paired.difference(metric, [two], [one], 1000, resample_runs=False)
        assert cells == (difference(found, metric.decimals), p_value(found))
    assert (ours.figures / "test_a_compared_roc.png").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": [*IDS[:-1], "other"]}, "evaluated on other images"),
        ({"ids": [*IDS[:-1], IDS[0]]}, "evaluated on other images"),
        ({"labels": 1 - LABELS}, "have other labels"),
        ({"groups": [f"g{i}" for i in range(40)]}, "have other patients"),
    ],
)
def test_other_images_labels_or_patients_show_no_difference(tmp_path, changes, words):
    split = compare(make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1, **changes))
    assert words in split["notes"][0] and split["differences"] == split["slices"] == []
    assert [row["name"] for row in split["rows"]] == ["a", "b"]


def test_splits_that_a_run_lacks_are_one_sentence(tmp_path):
    ours, theirs = make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1)
    for split in ("site", "test_c"):
        shutil.copytree(ours.evaluation("test_a"), ours.evaluation(split))
    shutil.copytree(theirs.evaluation("test_a"), theirs.evaluation("test_b"))
    view = comparison_view(read_others(read_run(ours), [theirs]), METRICS)
    assert view["notes"] == [
        "Run a was not evaluated on test_b.",
        "Run b was not evaluated on test_c, site.",
    ]
    assert [split["name"] for split in view["splits"]] == ["test_a"]
    shutil.rmtree(theirs.evaluation("test_a"))
    view = comparison_view(read_others(read_run(ours), [theirs]), METRICS)
    assert view["splits"] == [] and len(view["notes"]) == 2


def test_stale_results_of_another_run_are_noted(tmp_path):
    ours, theirs = make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1)
    (theirs.checkpoints / "120").mkdir(parents=True)
    (note,) = comparison_view(read_others(read_run(ours), [theirs]), METRICS)["notes"]
    assert note.startswith("b: these results are of checkpoint 100; the run is now at 120")


def test_names_tell_runs_apart(tmp_path):
    runs = [make_run(tmp_path / name / "seed_0", 0) for name in ("x", "y")]
    assert list(read_others(read_run(runs[0]), runs[1:])) == ["x/seed_0", "y/seed_0"]


def test_the_same_slices_stand_side_by_side_and_hostile_names_are_text(tmp_path):
    folders = [make_workdir(tmp_path / name) for name in ("a", "b")]
    for workdir in folders:
        add_split(workdir, "test_a", names=["reconstruction"], ids=[HOSTILE, *IDS[1:4]])
    add_examples(folders[1], "test_a", [], ids=[HOSTILE, "gone", "slice-2", "slice-3"])
    slices = compare(*folders)["slices"]
    assert {one["id"] for one in slices} == {HOSTILE, "slice-2", "slice-3"}
    assert [panel["title"] for panel in slices[0]["panels"]] == [
        "input", "a: reconstruction", "a: residual", "b: anomaly map",
    ]  # fmt: skip
    page = jaxad.write_report(folders[0].path, [folders[1].path]).read_text()
    assert page.count("<script") == 3 and '<section id="comparison">' in page
    # A report without --compare removes the comparison.
    assert '<section id="comparison">' not in jaxad.write_report(folders[0].path).read_text()


def test_folders_that_cannot_be_compared_end_in_one_line(tmp_path, capsys):
    ours = make_run(tmp_path / "a", 0)
    theirs = make_run(tmp_path / "b", 1)
    empty = make_workdir(tmp_path / "trained only")
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.json").write_text("{}")
    of_study = "name the folder of one of its runs, runs/<experiment>/seed_<seed>.\n"
    for others, words in (
        (f"{tmp_path / 'nowhere'}", "--compare: workdir"),
        (f"{tmp_path / 'nowhere'}", "nowhere': no such folder or file; name"),
        (f"{study}", f"--compare: workdir '{study}' holds a study; {of_study}"),
        (f"{tmp_path / 'a/'}", "is the run itself, which is compared"),
        (f"{theirs.path},{theirs.path}", "is listed twice"),
        (f"{empty.path}", "has no scores to compare"),
    ):
        code = cli.main(["--mode=report", f"--workdir={ours.path}", f"--compare={others}"])
        assert code == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    with pytest.raises(UserError, match="no such folder or file"):
        jaxad.write_report(tmp_path / "nowhere")


def test_runs_of_one_system_show_the_settings_in_which_they_differ(tmp_path):
    runs = [make_run(tmp_path / name, seed) for seed, name in enumerate("abc")]
    for run, changes in zip(runs[1:], ({"schedule": "cosine"}, {}), strict=True):
        config = run_config.read(run).unlock()
        config.optim.update(changes)
        config.train.num_epochs, config.train.early_stopping = 20.0, 3
        config.data.root, config.init_from = "/secret/data", "/secret/first"
        config.train.writers = ()  # how a run is executed is no difference
        run.config.write_text(to_json(config))
    view = comparison_view(read_others(read_run(runs[0]), runs[1:]), METRICS)
    assert {row["field"]: row["values"] for row in view["settings"]} == {
        "config.init_from": ["–", "first", "first"],
        "config.optim.schedule": ["constant", "cosine", "constant"],
        "config.train.early_stopping": ["0", "3", "3"],
        "config.train.num_epochs": ["10.0", "20.0", "20.0"],
    }
    page = jaxad.write_report(runs[0].path, [run.path for run in runs[1:]]).read_text()
    assert "4 settings in which these runs differ" in page and "/secret" not in page


def test_a_run_that_none_of_the_same_slices_has_is_named_with_the_reason(tmp_path):
    runs = [make_run(tmp_path / name, 0) for name in "abcde"]
    add_examples(runs[0], "test_a", ["reconstruction"], ids=IDS[:4])
    add_examples(runs[1], "test_a", ["reconstruction"], ids=IDS[:4])
    add_examples(runs[2], "test_a", ["reconstruction"], ids=IDS[4:8])
    reconfigure(runs[4], image_size=32)
    assert compare(*runs)["not_shown"] == [
        "c is not shown: it kept none of these slices.",
        "d is not shown: it kept no slices (config.evaluate.num_examples).",
        "e is not shown: it cannot be paired, see above.",
    ]


def test_the_command_writes_the_report_again(tmp_path, capsys):
    ours, theirs = make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1)
    command = ["--mode=report", f"--workdir={ours.path}", f"--compare={theirs.path}"]
    assert cli.main(command) == 0
    assert str(ours.report) in capsys.readouterr().out
    assert "b" in ours.report.read_text()


def reconfigure(workdir, **fields):
    """Sets fields of `config.data` in a run's folder; `__` stands for a dot."""
    config = run_config.read(workdir).unlock()
    for name, value in fields.items():
        *groups, last = name.split("__")
        group = config.data
        for key in groups:
            group = group[key]
        group[last] = value
    workdir.config.write_text(to_json(config))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"image_size": 32}, "config.data.image_size"),
        ({"preprocess__square": "crop"}, "config.data.preprocess.square"),
        ({"name": "folder", "channels": 3}, "config.data.channels, config.data.name"),
        ({"seed": 1}, "config.data.seed"),  # of data that are generated
    ],
)
def test_results_on_other_inputs_are_not_paired(tmp_path, fields, named):
    ours, theirs = make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1)
    reconfigure(theirs, **fields)
    runs = read_others(read_run(ours), [theirs])
    view = comparison_view(runs, METRICS)
    listed = [row["field"] for row in view["inputs"]]
    if "name" in fields:
        assert view["inputs"][0] == {"field": "data", "values": ["icbm_synth", "folder"]}
        listed = [*listed[1:], "config.data.name"]
    assert ", ".join(listed) == named
    (split,) = view["splits"]
    assert split["notes"] == [
        f"b: no difference is shown, because its images differ in {named}, and only results on the "
        "same images can be paired. Compare the metrics by their intervals."
    ]
    assert split["differences"] == split["slices"] == []
    assert [row["name"] for row in split["rows"]] == ["a", "b"]  # unpaired figures stay
    page = jaxad.write_report(ours.path, [theirs.path]).read_text()
    assert "Difference from a" not in page and "The images of these runs differ in" in page


@pytest.mark.parametrize(
    "fields",
    [{"batch_size": 7}, {"augment__noise": 0.1}, {"val_share": 0.3}, {"root": "/elsewhere"}],
)
def test_other_training_on_the_same_inputs_is_paired(tmp_path, fields):
    ours, theirs = make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1)
    reconfigure(theirs, **fields)
    assert compare(ours, theirs)["differences"]


@pytest.mark.parametrize(
    ("roots", "ids", "fields", "listed"),
    [
        (("x/A", "x/B"), IDS, {"preprocess__foreground": "otsu"}, ["folder, 'A'", "folder, 'B'"]),
        (("x/A", "y/A"), IDS, {"preprocess__foreground": "otsu"}, None),  # the same data elsewhere
        (("x/A", "y/A"), IDS[::-1], {}, None),
        (("x/A", "y/A"), [f"n{i}" for i in range(40)], {}, ["folder, 'x/A'", "folder, 'y/A'"]),
    ],
)
def test_data_of_other_files_are_listed_first(tmp_path, roots, ids, fields, listed):
    runs = [make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1, ids=ids)]
    for run, root, changes in zip(runs, roots, ({}, fields), strict=True):
        reconfigure(run, name="folder", root=f"/{root}", **changes)
    rows = comparison_view(read_others(read_run(runs[0]), runs[1:]), METRICS)["inputs"]
    assert [row["field"] for row in rows if row["field"] != "data"] == [
        "config.data.preprocess.foreground" for _ in fields
    ]
    assert [row["values"] for row in rows if row["field"] == "data"] == ([listed] if listed else [])
    assert not listed or rows[0]["field"] == "data"


def test_images_of_the_same_names_but_other_pixels_are_not_paired(tmp_path):
    ours, theirs = make_run(tmp_path / "a", 0), make_run(tmp_path / "b", 1)
    add_examples(ours, "test_a", ["reconstruction"], ids=IDS[:4])
    add_examples(theirs, "test_a", ["reconstruction"], ids=IDS[3::-1])
    split = compare(ours, theirs)
    assert "images of the same name have other pixels" in split["notes"][0]
    assert split["differences"] == []


@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_names_of_runs_in_a_bucket_do_not_show_their_copies(bucket):
    paths = [locate(f"{bucket}/{name}/run") for name in "ab"]
    assert _unique_names(paths) == ["a/run", "b/run"]

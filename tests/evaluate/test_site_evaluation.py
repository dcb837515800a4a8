"""External validation: a run, trained once, and its exported file on data of other sites."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from site_files import write, write_site

import jaxad
from jaxad import cli
from jaxad import config as config_lib
from jaxad.config import run_config
from jaxad.storage.workdir import Workdir


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a folder of images, two updates, and its exported file."""
    base = tmp_path_factory.mktemp("trained")
    for number in range(8):
        write(base / f"own/train/good/{number}.png", number)
    for number in range(4):
        write(base / f"own/val/good/{number}.png", 20 + number)
        write(base / f"own/test/good/{number}.png", 30 + number)
        write(base / f"own/test/bright/{number}.png", 40 + number, bright=True)
    config = config_lib.get_config("ae:smoke")
    config.data.name, config.data.root = "folder", str(base / "own")
    config.data.image_size, config.data.batch_size, config.train.num_epochs = 32, 8, 1
    config.evaluate.feature_references, config.evaluate.num_examples = False, 1
    config.evaluate.bootstrap_resamples, config.cpu_devices = 20, 8
    jaxad.fit(config, base / "run")
    jaxad.export_detector(base / "run")
    return base


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    return Workdir(tmp_path / "run")


def evaluate(run, *arguments):
    return cli.main(["--mode=evaluate", f"--workdir={run.path}", *arguments])


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def rows_of(folder):
    with (folder / "scores.csv").open() as file:
        return list(csv.DictReader(file))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_another_site(run, tmp_path, capsys):
    site = write_site(tmp_path / "Hospital B")
    Image.new("L", (40, 44)).save(site / "good/blank.png")
    (site / "good/broken.png").write_bytes(b"no image")
    own, calibration = contents(run.evaluation("test")), run.calibration.read_bytes()
    assert evaluate(run, f"--test.root={site}") == 2  # as the run, which stops at bad files
    assert "good/broken.png: not a readable image" in capsys.readouterr().err
    assert evaluate(run, f"--test.root={site}", "--test.on_error=skip") == 0
    assert contents(run.evaluation("test")) == own
    assert run.calibration.read_bytes() == calibration
    folder = run.evaluation("Hospital_B")
    metrics = metrics_of(folder)
    assert (metrics["num_images"], metrics["num_anomalous"]) == (8, 4)
    assert (metrics["num_files_skipped"], metrics["num_blank_images"]) == (1, 1)
    assert metrics["num_training_blank_images"] == 0
    assert metrics["auroc"]["value"] == 1.0
    assert metrics["trivial"]["mean"]["auroc"]["value"] == 1.0
    assert metrics["decisions"]["calibration"] == "val"
    assert metrics["external"] | {"digest": ""} == {
        "name": "Hospital_B", "data_set": "folder", "root": "Hospital B", "digest": "",
        "calibrated_on_site": False, "compared_with_training_images": True,
    }  # fmt: skip
    assert str(tmp_path) not in (folder / "metrics.json").read_text()
    # Prepared as the run's images were: the same scores as those of files that the run reads.
    detector = jaxad.load(run.path)
    read = detector.read(site / "bright")
    scores = {row["id"]: float(row["score"]) for row in rows_of(folder)}
    for name, score in zip(read.ids, detector.score(read.images).image, strict=True):
        assert scores[f"bright/{name}"] == pytest.approx(float(score), rel=1e-6)
    page = run.report.read_text()
    assert "external validation on Hospital B (folder)" in page
    assert re.search(r"1 file skipped,\s+1 blank image left out", page)


@pytest.mark.long
def test_later_evaluations_of_the_run_keep_those_of_other_sites(run, tmp_path, capsys):
    site = write_site(tmp_path / "b")
    assert evaluate(run, f"--test.root={site}") == 0
    before = contents(run.evaluation("b"))
    assert evaluate(run) == 0
    config = run_config.read(run)
    config.evaluate.false_positive_rate = 0.25
    config.train.num_epochs = 2
    jaxad.fit(config, run.path)
    assert contents(run.evaluation("b")) == before
    assert (
        "scored with checkpoint 1, but the run now has checkpoint 2: evaluate this site"
        in run.report.read_text()
    )
    assert evaluate(run, f"--test.root={site}") == 0
    metrics = metrics_of(run.evaluation("b"))
    assert metrics["checkpoint_step"] == 2
    assert metrics["decisions"]["normal_images_only"]["requested_rate"] == 0.25
    assert "evaluate this site again" not in run.report.read_text()
    # The file that leaves the site does not name the other one.
    jaxad.export_detector(run.path)
    assert [*jaxad.load(run.exported).card["evaluated_on"]] == ["test"]
    assert "error" not in capsys.readouterr().err


def test_what_training_said_of_the_run_s_own_data_is_not_repeated(trained, tmp_path, capsys):
    own = trained / "own"
    files = sorted(path.relative_to(own) for path in own.rglob("*.png"))
    lines = [f"{path},{'bright' in str(path):d},{path.parts[0]},x" for path in files]
    (own / "own.csv").write_text("\n".join(["path,label,split,scanner", *lines]))
    config = run_config.read(Workdir(trained / "run"))
    config.data.root = str(own / "own.csv")
    jaxad.fit(config, tmp_path / "run")
    said = "own.csv: extra columns carried through: scanner"
    assert said in capsys.readouterr().out
    site = write_site(tmp_path / "b")
    assert evaluate(Workdir(tmp_path / "run"), f"--test.root={site}") == 0
    assert said not in capsys.readouterr().out


def test_an_exported_file_of_another_calibration_is_named(run, tmp_path, capsys):
    site = write_site(tmp_path / "b", bright=0)
    calibrate = ["--mode=calibrate", f"--workdir={run.path}", f"--normals={site}"]
    assert evaluate(run) == 0
    assert "keeps its own calibration" not in capsys.readouterr().err
    assert cli.main(calibrate) == 0
    line = f"note: '{run.exported}' was exported before and keeps its own calibration; write it "
    assert f"{line}again with --mode=export.\n" in capsys.readouterr().err
    jaxad.export_detector(run.path)
    assert cli.main(calibrate) == 0
    assert "keeps its own calibration" not in capsys.readouterr().err


def test_a_table_has_its_own_labels_patients_and_masks(run, tmp_path, capsys):
    site = write_site(tmp_path / "site", good=3, bright=2)
    for number in range(2):
        mask = np.zeros((40, 44), np.uint8)
        mask[10:20, 12:24] = 255
        Image.fromarray(mask).save(site / f"m{number}.png")
    lines = ["path,label,group,mask,scanner"]
    lines += [f"good/{number}.png,fine,P{number},,A" for number in range(3)]
    lines += [f"bright/{number}.png,ill,P9,m{number}.png,B" for number in range(2)]
    (site / "list.csv").write_text("\n".join(lines))
    table = f"--test.root={site / 'list.csv'}"
    assert evaluate(run, table, "--test.as=c") == 2
    assert "--test.normal_classes" in capsys.readouterr().err
    assert evaluate(run, table, "--test.as=c", "--test.normal_classes=fine") == 0
    metrics = metrics_of(run.evaluation("c"))
    assert (metrics["num_images"], metrics["num_anomalous"], metrics["num_patients"]) == (5, 2, 4)
    assert metrics["pixel_auroc"]["value"] is not None
    assert [row["scanner"] for row in rows_of(run.evaluation("c"))] == ["A"] * 3 + ["B"] * 2


def test_fields_of_the_evaluation_may_differ_from_the_run_s(run, tmp_path):
    site = write_site(tmp_path / "b")
    before, config = contents(run.evaluation("test")), run.config.read_text()
    field = "--config.evaluate.false_positive_rate=0.25"
    assert evaluate(run, f"--test.root={site}", field) == 0
    decided = metrics_of(run.evaluation("b"))["decisions"]["normal_images_only"]
    assert decided["requested_rate"] == 0.25
    assert (contents(run.evaluation("test")), run.config.read_text()) == (before, config)


def test_patients_in_the_names_of_files(run, tmp_path):
    site = write_site(tmp_path / "d")
    assert evaluate(run, f"--test.root={site}", r"--test.group_pattern=[0-9]+") == 0
    assert metrics_of(run.evaluation("d"))["num_patients"] == 4
    assert run_config.read(run).data.group_pattern == ""


@pytest.mark.parametrize(("place", "number_anomalous"), [("good", 0), ("test/bright", 3)])
def test_one_class_leaves_metrics_undefined(run, tmp_path, capsys, place, number_anomalous):
    site = tmp_path / "e"
    for number in range(3):
        write(site / place / f"{number}.png", 200 + number)
    assert evaluate(run, f"--test.root={site}") == 0
    metrics = metrics_of(run.evaluation("e"))
    assert metrics["num_anomalous"] == number_anomalous
    assert metrics["auroc"]["value"] is None and metrics["best_reference"] is None
    assert "auroc undefined (one class only)" in capsys.readouterr().out
    kind = "anomalous" if number_anomalous else "normal"
    assert f"Every slice of this split is {kind}: ROC" in run.report.read_text()


def test_calibration_on_the_site(run, tmp_path, capsys):
    site = write_site(tmp_path / "f/test").parent
    calibrate = (f"--test.root={site}", "--test.calibrate=True")
    assert evaluate(run, *calibrate) == 2
    assert "has no normal images besides its test images" in capsys.readouterr().err
    assert not run.evaluation("f").exists()
    for number in range(9):
        write(site / f"train/good/{number}.png", 300 + number)
    before = run.calibration.read_bytes()
    assert evaluate(run, *calibrate) == 0
    assert run.calibration.read_bytes() == before
    metrics = metrics_of(run.evaluation("f"))
    assert metrics["num_images"] == 8 and metrics["external"]["calibrated_on_site"]
    decisions = metrics["decisions"]
    assert decisions["calibration"] == "f"
    assert decisions["normal_images_only"]["calibration_patients"] == 9
    # 9 patients support 1 / 10.
    assert decisions["normal_images_only"]["rate"] == 0.1
    assert "decisions calibrated on that site" in run.report.read_text()
    assert str(tmp_path) not in (run.evaluation("f") / "calibration.json").read_text()
    assert evaluate(run, f"--test.root={site}") == 0
    assert metrics_of(run.evaluation("f"))["decisions"]["calibration"] == "val"


def test_images_to_calibrate_on_are_not_tested(run, tmp_path, capsys):
    site = write_site(tmp_path / "g/test").parent
    write(site / "train/good/copy.png", 100)
    calibrate = (f"--test.root={site}", "--test.calibrate=True")
    assert evaluate(run, *calibrate) == 2
    assert "image 'test/good/0.png' of" in capsys.readouterr().err
    (site / "train/good/copy.png").unlink()
    write(site / "train/good/P1.png", 400)
    write(site / "test/good/P1_b.png", 401)
    assert evaluate(run, *calibrate, r"--test.group_pattern=P[0-9]|(?<=/)[0-9]+") == 2
    assert "patient 'P1' of" in capsys.readouterr().err
    assert not run.evaluation("g").exists()


@pytest.mark.long
def test_several_sites_side_by_side(run, tmp_path, capsys):
    first, second = write_site(tmp_path / "x/site"), write_site(tmp_path / "y/site", 500)
    assert evaluate(run, f"--test.root={first}") == 0
    before = contents(run.evaluation("site"))
    assert evaluate(run, f"--test.root={second}") == 2
    line = capsys.readouterr().err
    assert "holds the evaluation of other data ('site')" in line and "--test.as" in line
    assert evaluate(run, f"--test.root={second}", "--test.as=site-2") == 0
    assert contents(run.evaluation("site")) == before
    other = contents(run.evaluation("site-2"))
    write(first / "good/new.png", 700)
    assert evaluate(run, f"--test.root={first}") == 0
    assert metrics_of(run.evaluation("site"))["num_images"] == 9
    assert contents(run.evaluation("site-2")) == other
    # The comparison of runs shows the sites on which both were evaluated.
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    jaxad.write_report(run.path, [copy])
    comparison = run.report.read_text().partition('id="comparison"')[2].partition("</section>")[0]
    assert "<h3>site-2</h3>" in comparison and "not evaluated on" not in comparison


def test_an_exported_file(run, trained, tmp_path, capsys):
    site, output = write_site(tmp_path / "h"), tmp_path / "out"
    file, root = f"--workdir={run.exported}", f"--test.root={site}"
    assert cli.main(["--mode=evaluate", file, root]) == 2
    assert "--output: missing" in capsys.readouterr().err
    assert cli.main(["--mode=evaluate", file]) == 2
    assert "an exported file needs data; give --test.root" in capsys.readouterr().err
    assert cli.main(["--mode=evaluate", file, root, f"--output={run.path}"]) == 2
    assert "holds a run or a study" in capsys.readouterr().err
    assert cli.main(["--mode=evaluate", file, f"--test.root={site}/x", f"--output={output}"]) == 2
    assert not output.exists()
    assert jaxad.evaluate_site(run.exported, site, output) == output
    assert jaxad.evaluate_site(run.path, site) == run.path
    ours, theirs = rows_of(run.evaluation("h")), rows_of(output / "eval/h")
    assert [row["id"] for row in ours] == [row["id"] for row in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert float(our["score"]) == pytest.approx(float(their["score"]), rel=1e-5)
    metrics = metrics_of(output / "eval/h")
    assert metrics["auroc"] == metrics_of(run.evaluation("h"))["auroc"]
    assert metrics["trivial"]["mean"] == {"undefined": "the training images are not available"}
    assert not metrics["external"]["compared_with_training_images"]
    page = (output / "report.html").read_text()
    assert "not compared with the training images" in page
    assert "To repeat the run" in run.report.read_text() and "To repeat the run" not in page
    other = tmp_path / "other.jaxad"
    shutil.copy(run.exported, other)
    with other.open("ab") as end:
        end.write(b"\0")  # a zip archive may be followed by other bytes
    with pytest.raises(jaxad.errors.UserError, match="of another detector"):
        jaxad.evaluate_site(other, site, output)


def test_images_that_were_learnt_from_are_refused(run, trained, tmp_path, capsys):
    site = write_site(tmp_path / "i")
    shutil.copy(trained / "own/train/good/3.png", site / "good/copy.png")
    assert evaluate(run, f"--test.root={site}") == 2
    line = capsys.readouterr().err
    assert "image 'good/copy.png' is 'train/good/3.png' of the run's split 'train'" in line
    assert not run.evaluation("i").exists()


def test_patients_that_are_named_as_those_of_the_run_are_reported(run, tmp_path, capsys):
    site = write_site(tmp_path / "j", good=1, bright=1)
    table = site / "list.csv"
    table.write_text("path,label,group\ngood/0.png,0,P1\nbright/0.png,1,P2\n")
    members = json.loads(run.splits.read_text())
    members["train"]["patients"] = ["P2"]
    run.splits.write_text(json.dumps(members))
    assert evaluate(run, f"--test.root={table}", "--test.as=j") == 0
    line = capsys.readouterr().err
    assert "j: 1 of 2 patients have the same names as patients that the run was trained" in line
    # These members are not those of the data, so the data are not used.
    assert "the run's own data are not available" in line
    # The run that gave the initial weights was trained on the other patient.
    source = Workdir(tmp_path / "source")
    source.path.mkdir()
    members["train"]["patients"] = ["P1"]
    source.splits.write_text(json.dumps(members))
    config = run_config.read(run)
    config.init_from = str(source.path)
    run.config.write_text(config_lib.to_json(config))
    assert evaluate(run, f"--test.root={table}", "--test.as=j") == 0
    line = capsys.readouterr().err
    assert "such as 'P1'" in line and "such as 'P2'" in line


def test_a_run_without_its_data(run, tmp_path, capsys):
    config = run_config.read(run)
    config.data.root = str(tmp_path / "gone")
    run.config.write_text(config_lib.to_json(config))
    assert evaluate(run, f"--test.root={write_site(tmp_path / 'k')}") == 0
    assert "the run's own data are not available" in capsys.readouterr().err
    metrics = metrics_of(run.evaluation("k"))
    assert metrics["auroc"]["value"] == 1.0
    assert "undefined" in metrics["trivial"]["mean"]
    assert not metrics["external"]["compared_with_training_images"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--test.root={site}", "--test.as=test_b"], "is kept for the run's own splits"),
        (["--test.root={site}", "--test.as=../b"], "cannot name a folder"),
        (["--test.root={site}", "--test.as=val"], "is kept for the run's own splits"),
        (["--test.root={site}", "--test.name=foldr"], "--test.name: unknown data set 'foldr'"),
        (["--test.root={site}", "--test.name=nifti"], "holds scans, but the run was trained on im"),
        (["--test.root={site}", "--test.calibrate=yes"], "--test.calibrate=yes: write True or F"),
        (
            ["--test.root={site}", "--test.on_error=go"],
            "--test.on_error: unknown 'go'; known: ra",
        ),
        (["--test.root={site}", "--test.group_pattern=("], "--test.group_pattern: '(' is not a"),
        (["--test.root={site}", "--output={site}"], "--output: the results of a run go to"),
        (["--test.root={site}/good"], "To score files without labels, use --mode=score."),
        (["--test.root={site}/paths.csv"], "To score files without labels, use --mode=score."),
        (["--test.root={site}/nowhere"], "--test.root"),
        (["--test.root={own}"], "lies in the run's own data"),
        (["--test.root={site}/colour.npz"], "(32, 32, 3)"),
        (["--test.as=b"], "--test.as: belongs to another site's data; name them with --test.root"),
        (["--output=x"], "--output: belongs to another site's data; name them with --test.root"),
        (
            ["--test.root={site}", "--config=ae:smoke"],
            "holds a run of another config",
        ),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(run, trained, tmp_path, capsys, flags, message):
    site = write_site(tmp_path / "site", good=2, bright=2)
    (site / "paths.csv").write_text("path\ngood/0.png\n")
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    np.savez(site / "colour.npz", image=images, label=np.array([0, 1]))
    before = contents(run.path)
    arguments = [flag.format(site=site, own=trained / "own") for flag in flags]
    assert evaluate(run, *arguments) == 2
    error = capsys.readouterr().err.splitlines()
    assert message in error[-1] and error[-1].startswith("error: ")
    assert contents(run.path) == before


def test_what_is_no_evaluated_run(run, tmp_path, capsys):
    site = write_site(tmp_path / "site")
    root = f"--test.root={site}"
    assert cli.main(["--mode=fit", "--config=ae:smoke", f"--workdir={tmp_path}", root]) == 2
    assert "--mode=fit does not use it; it belongs to evaluate" in capsys.readouterr().err
    run.calibration.unlink()
    assert evaluate(run, root) == 2
    assert "has no calibration; evaluate the run with --mode=evaluate" in capsys.readouterr().err
    shutil.rmtree(run.checkpoints)
    assert evaluate(run, root) == 2
    assert "no checkpoint yet; train there first" in capsys.readouterr().err
    study = Workdir(tmp_path / "study")
    study.path.mkdir()
    study.study.write_text("{}")
    assert evaluate(study, root) == 2
    assert "holds a study; name the folder of one of its runs" in capsys.readouterr().err
    assert evaluate(Workdir(tmp_path / "nothing"), root) == 2
    assert "nothing': no such folder or file; name" in capsys.readouterr().err
    assert not run.evaluation("site").exists()

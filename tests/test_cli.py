"""The command line: every mistake is one line that names the thing and the remedy."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxad import cli, command
from jaxad import config as config_lib
from jaxad.config import run_config
from jaxad.data.data_sets import DATA_SETS
from jaxad.errors import RunError, UserError
from jaxad.models import SYSTEMS
from jaxad.runtime import processes
from jaxad.storage.workdir import Workdir

ROOT = Path(__file__).parent.parent
SMOKE = "--config=pchvae:smoke"
DATA_NAMES = (*DATA_SETS, "tfds:<name>", "<package.module>:<function>")


@pytest.fixture
def fail(capsys):
    """Runs a command line that holds a mistake, and returns the one line that it prints."""

    def run(*arguments):
        assert cli.main([str(argument) for argument in arguments]) == 2
        printed = capsys.readouterr()
        lines = printed.err.splitlines()
        assert len(lines) == 1, printed.err
        assert "Traceback" not in printed.out + printed.err
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


# --- Mistakes.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # Overrides.
        (
            ["--config.optim.learning_rat=1"],
            r"--config\.optim\.learning_rat: no such field; did you mean "
            r"'--config\.optim\.learning_rate'",
        ),
        (["--config.optim.learning_rat", "1"], r"learning_rat: no such field; .*learning_rate'"),
        (["--config.optm.learning_rate=1"], r"did you mean '--config\.optim\.learning_rate'"),
        (["--noconfig.data.augment.miror"], r"did you mean '--config\.data\.augment\.mirror'"),
        (["--config.optim=1"], r"--config\.optim: is a group of fields; .*--config\.optim\.FIELD="),
        (
            ["--config.optim.learning_rate=abc"],
            r"--config\.optim\.learning_rate=abc: give a num",
        ),
        (["--config.seed=1.5"], r"--config\.seed=1\.5: give a whole number"),
        (["--config.data.augment.mirror=maybe"], r"augment\.mirror=maybe: give True or False"),
        (["--config.seed"], r"--config\.seed: has no value; write --config\.seed=VALUE\.$"),
        # Values that the record of the field does not allow.
        (["--config.seed=-7"], r"config\.seed: -7 is not in \[0, 4294967295\]\."),
        (["--config.optim.learning_rate=nan"], r"learning_rate: nan is not in \[0, inf\)\."),
        (["--config.data.val_share=1"], r"config\.data\.val_share: 1\.0 is not in \(0, 1\)\."),
        (
            ["--config.precision=float16"],
            r"precision: unknown 'float16'; did you mean 'bfloat16'\? known: float32, bfloat16",
        ),
        (["--config.data.volume.slices=a,b"], r"slices=a,b: not .*slices=20,40\.$"),
        (["--config.data.volume.slices", "a,b"], r"slices=a,b: not .*slices=20,40\.$"),
        (["--config.optim.frozen=('a"], r"optim\.frozen=\('a: not understood; .*first,second"),
        (
            ["--config.data.num_subjects=40"],
            r"num_subjects is \(40,\); .*--config\.data\.num_subjects='\(40, 20, 10, 10\)'\.$",
        ),
        (["--config.data.num_subjects=(1,2"], r"num_subjects=\(1,2: write it as --config\S*=\d+,"),
        (["--config.model.widths=a,b"], r"model\.widths=a,b: not understood; .*=8,8"),
        (
            ["--config.data.volume.plane=axal"],
            r"volume\.plane: unknown 'axal'; did you mean 'axial'\? known: axial, coronal",
        ),
        (["--config.parallel=zzz"], r"parallel: unknown 'zzz'; known: jit, pmap\.$"),
        # Flags.
        (["--confg=pchvae"], r"--confg: no such flag; did you mean '--config'\? see --help"),
        (["--work_dir=x"], r"--work_dir: no such flag; did you mean '--workdir'\?"),
        (["--confg.seed=1"], r"--confg\.seed: no such flag; did you mean '--config\.seed'\?"),
        (["--confg.model.widths=1"], r"did you mean '--config\.model\.widths'\?"),
        (["--optim.b1=1"], r"--optim\.b1: no such flag; did you mean '--config\.optim\.b1'\?"),
        (["--zzz"], r"--zzz: no such flag; see --help"),
        (["--mode=trian"], r"--mode=trian: no such mode; did you mean 'train'\? known: fit, train"),
        (["--mode=zzz"], r"--mode=zzz: no such mode; known: fit, train, evaluate"),
        (["--workdir"], r"--workdir: has no value; write --workdir=VALUE\.$"),
        (["stray"], r"'stray': not understood; flags are written --name=value"),
        (["--config.seed=1", "stray"], r"'stray': not understood; write --config\.FIELD=VALUE"),
        # Configs.
        (["--config=pchva"], r"'pchva': no such config; did you mean 'pchvae'\? known: "),
        (["--config=PCHVEA"], r"'PCHVEA': no such config; did you mean 'pchvae'\? known: "),
        (["--config=pchvae:dem"], r"'pchvae:dem': no such variant; known: 'pchvae', 'pchvae:demo'"),
        (["--config=zzz.py"], r"'zzz\.py': no such file; known: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistake_is_named_with_the_remedy(fail, tmp_path, arguments, expected):
    workdir = tmp_path / "run"
    assert re.search(expected, fail(SMOKE, f"--workdir={workdir}", *arguments))
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], r"--workdir: missing; .*--workdir=runs/demo"),
        ([SMOKE], r"--workdir: missing; .*--workdir=runs/demo"),
        (["--workdir={folder}"], r"--config: missing; .*--config=pchvae:demo"),
        (["--workdir={folder}", "--config.seed=1"], r"--config\.seed=1: there is no config"),
    ],
    ids=["nothing", "no-workdir", "no-config", "override-without-config"],
)
def test_missing_flags_are_told(fail, tmp_path, arguments, expected):
    folder = tmp_path / "run"
    assert re.search(expected, fail(*(argument.format(folder=folder) for argument in arguments)))
    assert not folder.exists()


@pytest.mark.parametrize("mode", ["fit", "train", "profile"])
@pytest.mark.parametrize(
    ("override", "hint", "known"),
    [
        ("--config.data.name=icbm_sinth", "unknown data set 'icbm_sinth'; did you mean "
         "'icbm_synth'?", DATA_NAMES),
        ("--config.data.name=zzz", "unknown data set 'zzz'.", DATA_NAMES),
        ("--config.model.name=pchva", "unknown model 'pchva'; did you mean 'pchvae'?", SYSTEMS),
        ("--config.model.name=zzz", "unknown model 'zzz'.", SYSTEMS),
    ],
    ids=["data-set-near", "data-set-far", "model-near", "model-far"],
)  # fmt: skip
def test_unknown_data_sets_and_models_are_told_the_known_ones(
    fail, tmp_path, mode, override, hint, known
):
    line = fail(SMOKE, f"--workdir={tmp_path}/runs/new", f"--mode={mode}", override)
    assert hint in line
    assert line.endswith(f" Known: {', '.join(sorted(known))}.")
    assert list(tmp_path.iterdir()) == []  # no empty folder stays behind


@pytest.mark.parametrize("mode", ["fit", "train", "evaluate"])
def test_a_workdir_of_another_config_shows_the_difference(fail, tmp_path, mode):
    run_config.write(Workdir(tmp_path), config_lib.get_config("pchvae:smoke"))
    before = (tmp_path / "config.json").read_text()
    line = fail(SMOKE, f"--workdir={tmp_path}", f"--mode={mode}", "--config.optim.b1=0.5")
    assert "holds a run of another config; choose another --workdir or undo" in line
    assert line.endswith(": config.optim.b1: 0.9 -> 0.5.")
    assert (tmp_path / "config.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_studies_and_runs_are_not_mixed_up(fail, tmp_path):
    study = "--config=studies/pchvae_table1:smoke"
    line = fail(study, f"--workdir={tmp_path}")
    assert "--mode=fit: this config is a study of many runs; use --mode=study" in line
    line = fail(SMOKE, f"--workdir={tmp_path}", "--mode=study")
    assert "--mode=study: this config describes a single run; name a study" in line
    (tmp_path / "config.json").write_text(config_lib.to_json(config_lib.get_config("pchvae:smoke")))
    line = fail(study, f"--workdir={tmp_path}", "--mode=study")
    assert "holds a single run; choose another --workdir for a study" in line


@pytest.mark.parametrize("arguments", [[SMOKE], ["--mode=report"], [SMOKE, "--mode=inspect"]])
def test_a_workdir_that_is_a_file_is_named(fail, tmp_path, arguments):
    file = tmp_path / "run.log"
    file.write_text("")
    remedy = "is a file; name a folder, which need not exist."
    assert fail(f"--workdir={file}", *arguments) == f"error: workdir '{file}' {remedy}"
    line = fail(f"--workdir={file}/run", *arguments)
    assert line == f"error: workdir '{file}/run': '{file}' {remedy}"


@pytest.mark.parametrize("config", [[], [SMOKE]], ids=["saved-config", "named-config"])
@pytest.mark.parametrize("exists", [True, False], ids=["empty", "missing"])
def test_there_is_nothing_to_evaluate_in_a_folder_without_a_run(
    fail, tmp_path, monkeypatch, config, exists
):
    from jaxad import run

    # Data would be generated for minutes before a checkpoint is missed.
    monkeypatch.setattr(run, "DataSet", lambda data: pytest.fail("data are opened"))
    workdir = tmp_path / "run"
    if exists:
        workdir.mkdir()
    line = fail(*config, f"--workdir={workdir}", "--mode=evaluate")
    reason = "holds no config.json; train there first" if exists else "no such folder or file;"
    assert f"workdir '{workdir}': {reason}" in line
    assert workdir.exists() == exists


@pytest.mark.parametrize("name", ["fist", "first/detector.jaxd"])
def test_a_missing_workdir_is_answered_with_a_name_like_it(fail, tmp_path, name):
    run_config.write(Workdir(tmp_path / "first"), config_lib.get_config("pchvae:smoke"))
    (tmp_path / "first/detector.jaxad").write_text("")
    meant = {"fist": "first"}.get(name, "first/detector.jaxad")
    line = fail(f"--workdir={tmp_path / name}", "--mode=score", "--input=x", "--output=y")
    assert line == (
        f"error: workdir '{tmp_path / name}': no such folder or file; did you mean "
        f"'{tmp_path / meant}'? name the folder of a run."
    )


def test_an_experiment_that_a_study_lacks_is_named_with_those_it_has(fail, tmp_path):
    study = ["--config=studies/pchvae_table1:demo", "--mode=study", f"--workdir={tmp_path}/s"]
    line = fail(*study, "--config.experiments.pchvea.seed=1")
    assert "no such experiment; did you mean '--config.experiments.pchvae'? known: " in line
    line = fail(*study, "--config.seeds=0,x")
    assert re.search(r"--config\.seeds=0,x: not understood; write it as --config.seeds=\d,", line)


def test_a_run_cannot_become_shorter(fail, tmp_path):
    run_config.write(Workdir(tmp_path), config_lib.get_config("pchvae:smoke"))
    line = fail(SMOKE, f"--workdir={tmp_path}", "--config.train.num_epochs=0.5")
    assert line.endswith(" -> 0.5 (a run can only become longer).")


# --- What ends otherwise.


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("the user's."), 2, "error: the user's."),
        (RunError("the run's."), 1, "failed: the run's."),
        (KeyboardInterrupt(), 1, "interrupted; run the same command to resume from what is saved."),
        (None, 0, ""),
    ],
    ids=["user", "run", "interrupt", "success"],
)
@pytest.mark.parametrize("mode", command.MODES)
def test_exit_codes(capsys, tmp_path, monkeypatch, mode, error, code, line):
    from jaxad import run

    seen = []

    def work(config, workdir, **options):
        assert options == dict.fromkeys(taken, "") | given
        seen.append((config_lib.flatten(config)[changed], str(workdir)))
        if error is not None:
            raise error

    monkeypatch.setattr(run, mode, work)
    name, changed = SMOKE, "config.seed"
    if mode == "study":
        name, changed = "--config=studies/pchvae_table1:smoke", "config.num_slices"
    else:
        config = config_lib.get_config("pchvae:smoke")
        config.seed = 3
        run_config.write(Workdir(tmp_path), config)
    given = dict.fromkeys(command.MODES[mode].required, "x.npz")
    # The flags of processes are of the launch.
    taken = set(command.MODES[mode].options) - set(processes.FLAGS)
    taken = {flag.replace(".", "_") for flag in taken}
    arguments = [name, f"--{changed}=3", f"--workdir={tmp_path}", f"--mode={mode}"]
    arguments += [f"--{option}={value}" for option, value in given.items()]
    assert cli.main(arguments) == code
    assert capsys.readouterr().err.strip() == line
    assert seen == [(3, str(tmp_path))]


def test_evaluate_takes_the_config_of_the_run(tmp_path, monkeypatch):
    from jaxad import run

    seen = []
    monkeypatch.setattr(run, "evaluate", lambda config, *_, **options: seen.append(config.seed))
    config = config_lib.get_config("pchvae:smoke")
    config.seed = 11
    run_config.write(Workdir(tmp_path), config)
    assert cli.main([f"--workdir={tmp_path}", "--mode=evaluate"]) == 0
    assert seen == [11]


@pytest.mark.parametrize(
    ("mode", "override", "value"),
    [
        ("evaluate", "--noconfig.evaluate.position_correction", False),
        ("evaluate", "--config.train.writers=wandb", ("wandb",)),
        ("calibrate", "--config.data.on_error=skip", "skip"),
        ("score", "--config.cpu_devices=2", 2),
        ("inspect", "--config.data.duplicates=leave_out", "leave_out"),
    ],
)
def test_overrides_without_a_config_change_that_of_the_run(
    tmp_path, monkeypatch, mode, override, value
):
    from jaxad import run

    configs = []
    monkeypatch.setattr(run, mode, lambda config, *_, **options: configs.append(config))
    config = config_lib.get_config("pchvae:smoke")
    config.seed = 11
    run_config.write(Workdir(tmp_path), config)
    needed = {"calibrate": ["--normals=x"], "score": ["--input=x", "--output=y"]}.get(mode, [])
    assert cli.main([f"--workdir={tmp_path}", f"--mode={mode}", override, *needed]) == 0
    path = override.lstrip("-").partition("=")[0].removeprefix("no")
    assert configs[0].seed == 11
    assert config_lib.flatten(configs[0])[path] == value
    assert run_config.read(Workdir(tmp_path)).seed == 11


def test_overrides_without_a_config_that_a_mode_cannot_apply(fail, tmp_path):
    run = tmp_path / "run"
    run_config.write(Workdir(run), config_lib.get_config("pchvae:smoke"))
    for mode, override, needed in (
        ("evaluate", "--config.optim.b1=0.5", []),
        ("calibrate", "--config.evaluate.num_examples=7", ["--normals=x"]),
    ):
        line = fail(f"--workdir={run}", f"--mode={mode}", override, *needed)
        path, _, value = override.removeprefix("--").partition("=")
        assert "undo the difference: " in line
        assert line.endswith(f" -> {value}.")
        assert path in line
    line = fail(f"--workdir={run}", "--mode=evaluate", "--config.optim.b=0.5")
    assert "--config.optim.b: no such field; did you mean '--config.optim.b" in line
    line = fail(f"--workdir={tmp_path}/none", "--mode=evaluate", "--config.seed=1")
    assert "none': no such folder or file; name the folder of a run." in line
    line = fail(f"--workdir={tmp_path}/none", "--mode=inspect", "--config.seed=1")
    assert line == (
        "error: --config.seed=1: there is no config to override; name one with --config."
    )
    file = tmp_path / "detector.jaxad"
    file.write_bytes(b"")
    line = fail(f"--workdir={file}", "--mode=evaluate", "--config.seed=1", "--test.root=x")
    assert line == "error: --config.seed=1: an exported file has its own config; leave this out."


def test_options_are_of_one_mode(fail, tmp_path):
    run_config.write(Workdir(tmp_path), config_lib.get_config("pchvae:smoke"))
    workdir = f"--workdir={tmp_path}"
    line = fail(workdir, "--mode=calibrate")
    assert line == "error: --normals: missing; --mode=calibrate needs it, see --help."
    line = fail(workdir, "--mode=evaluate", "--normals=x.npz")
    assert "--normals: --mode=evaluate does not use it; it belongs to calibrate." in line


@pytest.mark.parametrize("group", ["optim.networks", "train.updates"])
def test_fields_of_networks_that_a_config_does_not_set_are_told_apart_from_typos(fail, group):
    line = fail("--config=fanogan:smoke", "--workdir=x", f"--config.{group}.discriminator.b1=0.5")
    assert f"set it in Python or in your own config file, under config.{group}." in line
    assert "did you mean" not in line


def test_every_mode_has_its_function():
    from jaxad import run

    assert all(callable(getattr(run, name)) for name in command.MODES)


def test_a_bug_of_ours_is_not_hidden(tmp_path, monkeypatch):
    from jaxad import run

    def work(config, workdir):
        raise ZeroDivisionError

    monkeypatch.setattr(run, "fit", work)
    with pytest.raises(ZeroDivisionError):
        cli.main([SMOKE, f"--workdir={tmp_path}"])


# --- What a process imports.


def test_it_also_runs_beside_the_main_thread():
    with ThreadPoolExecutor() as threads:
        assert threads.submit(cli.main, ["--help"]).result() == 0

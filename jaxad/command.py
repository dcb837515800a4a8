"""The command: its flags and modes, the config with its overrides, and the start of a mode.

`--help` and mistakes in the command line import nothing heavy.
"""

import dataclasses
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.config import run_config
from jaxad.config.checks import suggest_field
from jaxad.config.fields import FIELDS
from jaxad.config.help import field_lines
from jaxad.config.overrides import override
from jaxad.errors import UserError, suggest
from jaxad.extension import external_errors_named
from jaxad.runtime import interrupts, processes
from jaxad.storage.home import relocate_library_caches
from jaxad.storage.locations import locate
from jaxad.storage.workdir import Workdir, removed_if_empty


@dataclasses.dataclass(frozen=True)
class Mode:
    """A value of `--mode`; the function of `jaxad.run` of the same name does what it says.

    Attributes:
        help: what the mode does.
        options: flags that it takes besides those of every mode.
        required: the options that it needs.
        config: where its config comes from: the flag (`named`); the run in the workdir, which must
            exist (`saved`); or the flag, else the run in the workdir (`either`).
        folder: what the workdir is: a `run`'s, a `study`'s, any `output` folder, or only `read`.
        several_processes: whether several processes can do it as one run.
        evaluates: whether it evaluates a run, and may change how.
        trains: whether it trains a run, and may make it longer.
        takes_file: whether the workdir may be an exported file, which has its own config.
    """

    help: str
    options: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    config: Literal["named", "saved", "either"] = "named"
    folder: Literal["run", "study", "output", "read"] = "run"
    several_processes: bool = False
    evaluates: bool = False
    trains: bool = False
    takes_file: bool = False


#: Flags of another site's data, which `evaluate` takes.
SITE = (
    "test.root", "test.name", "test.as", "test.calibrate", "test.group_pattern",
    "test.normal_classes", "test.on_error", "test.allow_outside_root",
)  # fmt: skip

MODES: Mapping[str, Mode] = {
    "fit": Mode(
        "train, evaluate every test split, write the report", processes.FLAGS,
        several_processes=True, evaluates=True, trains=True,
    ),
    "train": Mode("train only", processes.FLAGS, several_processes=True, trains=True),
    "evaluate": Mode(
        "evaluate the last checkpoint of a run, or another site's data (--test.root)",
        (*processes.FLAGS, *SITE, "output"),
        config="saved", several_processes=True, evaluates=True, takes_file=True,
    ),
    "report": Mode(
        "write a run's report again, beside other runs (--compare)",
        ("compare",), config="saved",
    ),
    "calibrate": Mode(
        "set the thresholds of a run's decisions by other normal images (--normals)",
        ("normals", "group_pattern", "allow_outside_root"), ("normals",), config="saved",
    ),
    "study": Mode("do every run of a study (configs/studies/), write one table", folder="study"),
    "export": Mode(
        "write the last checkpoint of a run to one file that scores by itself", config="saved"
    ),
    "score": Mode(
        "score files with a run or an exported file (--input, --output)",
        ("input", "output", "rate", "maps", "group_pattern", "allow_outside_root"),
        ("input", "output"), config="saved", folder="read", takes_file=True,
    ),
    "inspect": Mode(
        "check the data: counts, bad files, what splits share, a contact sheet",
        config="either", folder="output",
    ),
    "profile": Mode(
        "time and trace updates, compare with the devices' limits (--steps)",
        ("steps",), config="either",
    ),
}  # fmt: skip

#: Flags that only some modes take -> their help; those of several processes share a line.
OPTIONS: Mapping[str, str] = {
    "compare": "report: folders of other runs, as runs/b,runs/c.",
    "normals": "calibrate: normal images: an .npz file, or, as for the run, a folder, a table\n"
    "              or a scan.",
    "input": "score: an image, a scan, a DICOM series, a folder or a table of them.",
    "output": "score: a folder for scores.csv, patients.csv, errors.csv and maps/;\n"
    "              evaluate: a folder for the results of an exported file.",
    "rate": "score: false-positive rate among normal patients, as 0.05; default: the run's.",
    "maps": "score: images to write maps of: all (default), anomalous or none.",
    "group_pattern": "score, calibrate: config.data.group_pattern of these files; default: "
    "the run's.",
    "allow_outside_root": "score, calibrate: True: a table may name files elsewhere, by "
    "absolute paths.",
    "steps": "profile: updates to time in each phase, each way (30).",
    "test.root": "evaluate: labelled data of another site: a folder, a table or an .npz file.",
    "test.name": "evaluate: their config.data.name; default: the kind of the run's own data.",
    "test.as": "evaluate: name of the results, eval/<name>/; default: the name of the root.",
    "test.calibrate": "evaluate: True: calibrate on that site's own train and val.",
    "test.group_pattern": "evaluate: config.data.group_pattern of that site.",
    "test.normal_classes": "evaluate: config.data.normal_classes of that site, as good,normal.",
    "test.on_error": "evaluate: raise or skip; config.data.on_error of that site.",
    "test.allow_outside_root": "evaluate: True: its table may name files elsewhere.",
}

_USAGE = """jaxad: anomaly detection in medical images, trained on normal images only.

  {program} --config=CONFIG --workdir=FOLDER [--mode=MODE] [--config.FIELD=VALUE ...]

  --config    name or file of a config, with a variant after a colon:
              pchvae:demo or configs/pchvae.py:demo.
              Variants: none (recommended), demo (minutes), smoke (seconds), paper.
  --workdir   the run's folder, or a URL in a bucket (gs://, s3://); the same command resumes.
  --mode      one of:
{modes}
{options}
  {processes}
              fit, train, evaluate: one of several processes. They find each other on a TPU pod
              and under SLURM (--cluster=none: run this process alone); see docs/launching.md.
  --config.optim.learning_rate=3e-4   any field of the config by its path; without --config
              of the run in the workdir, in modes that need no --config.
  --help      this text; with --config also the config's fields.
"""


def _option_line(flag: str, text: str) -> str:
    """Returns a flag with its help; the help of a long flag begins on the next line."""
    first = f"  {flag:11} " if len(flag) <= 11 else f"  {flag}\n{'':14}"
    return first + text


def _help(program: str, config: ConfigDict | None) -> str:
    width = max(100, shutil.get_terminal_size().columns)
    text = _USAGE.format(
        program=program,
        modes="\n".join(f"{'':14}{name:11}{mode.help}" for name, mode in MODES.items()),
        options="\n".join(_option_line(f"--{name}", text) for name, text in OPTIONS.items()),
        processes=textwrap.fill(
            ", ".join(f"--{name}" for name in processes.FLAGS), 90, subsequent_indent="  "
        ),
    )
    return text if config is None else "\n".join([text, *field_lines(config, width)])


class Arguments(NamedTuple):
    """A parsed command line: `config` is None if none is named; `options` are those of the mode."""

    mode: str
    config: ConfigDict | None
    workdir: str | None
    wants_help: bool
    options: dict[str, str]


def parse(arguments: Sequence[str]) -> Arguments:
    """Parses a command line.

    Raises:
        UserError: an argument is not understood; suggests the nearest one.
    """
    own, overrides = _split_arguments(arguments)
    names = [*OPTIONS, *processes.FLAGS]
    values = _define_flags(names)
    try:
        rest = values(["jaxad", *own])
    except flags.UnrecognizedFlagError as error:
        hint = suggest_field(error.flagname, _known_flags(error.flagname, names))
        raise UserError(f"--{error.flagname}: no such flag;{hint} see --help.") from error
    except flags.Error as error:
        if missing := re.match(r"Missing value for flag --([\w.]+)", str(error)):
            raise UserError(f"--{missing[1]}: has no value; write --{missing[1]}=VALUE.") from error
        raise UserError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise UserError(f"'{rest[1]}': not understood; flags are written --name=value.")
    if values.mode not in MODES:
        raise UserError(
            f"--mode={values.mode}: no such mode;{suggest(values.mode, MODES)} "
            f"known: {', '.join(MODES)}."
        )
    config = None
    if values.config is not None:
        config = override(config_lib.get_config(values.config), overrides)
    elif overrides:
        saved = _saved_config(values.mode, values.workdir or "", overrides[0])
        config = override(saved, overrides)
    options = _options(values.mode, {name: values[name].value for name in names})
    return Arguments(values.mode, config, values.workdir, values.help, options)


def _saved_config(mode: str, workdir: str, override: str) -> ConfigDict:
    """Returns the config in the workdir, for overrides without `--config`."""
    source = MODES[mode].config
    if workdir and locate(workdir, "--workdir").is_file() and MODES[mode].takes_file:
        raise UserError(f"{override}: an exported file has its own config; leave this out.")
    if (
        not workdir
        or source == "named"
        or (source == "either" and not Workdir(workdir).config.exists())
    ):
        raise UserError(f"{override}: there is no config to override; name one with --config.")
    return run_config.read(Workdir(workdir))


def _known_flags(flag: str, options: Sequence[str]) -> list[str]:
    """Returns the flags that an unknown one may mean, among them fields of a config."""
    known = ["config", "workdir", "mode", "help", *options]
    group, _, path = flag.partition(".")
    if path and suggest(group, ["config"]):  # a misspelt `config`; the path may be a model's field
        return [f"config.{path}"]
    return [*known, *(f"config.{field.path}" for field in FIELDS)]


def _split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into flags and overrides of the config, each with its value.

    Values may follow after `=` or as the next argument.
    """
    own: list[str] = []
    overrides: list[str] = []
    target = own
    for argument in arguments:
        if argument.startswith("-") and not _is_number(argument):
            is_override = argument.lstrip("-").startswith(("config.", "noconfig."))
            target = overrides if is_override else own
        target.append(argument)
    return own, overrides


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _define_flags(options: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "config name or file", flag_values=values)
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_string("mode", "fit", "what to do", flag_values=values)
    for name in options:
        flags.DEFINE_string(name, None, "see --help", flag_values=values)
    flags.DEFINE_bool("help", False, "show the help", flag_values=values)
    return values


def _options(mode: str, given: Mapping[str, str | None]) -> dict[str, str]:
    """The options of a mode, empty where they are not given; checks that no others are given."""
    for name, value in given.items():
        if value and name not in MODES[mode].options:
            takers = ", ".join(other for other, m in MODES.items() if name in m.options)
            raise UserError(f"--{name}: --mode={mode} does not use it; it belongs to {takers}.")
    return {name: given[name] or "" for name in MODES[mode].options}


def run(arguments: Sequence[str], program: str) -> int:
    """Runs a command line.

    Args:
        arguments: the arguments, without the program's name.
        program: how the user calls it, for `--help`.

    Returns:
        The exit code: 1 if Ctrl-C ended training after a save, 0 otherwise.

    Raises:
        UserError: the command line has a mistake.
        RunError: the run failed.
    """
    name, config, workdir, wants_help, options = parse(arguments)
    if wants_help:
        print(_help(program, config))
        return 0
    workdir = _check_flags(name, workdir, options)
    with removed_if_empty(locate(workdir, "--workdir")):
        return _run_mode(name, config, workdir, options)


def _run_mode(
    name: str, config: ConfigDict | None, workdir: str, options: Mapping[str, str]
) -> int:
    """Runs a mode and returns the exit code; see `run`."""
    mode = MODES[name]
    path = locate(workdir, "--workdir")
    if path.is_file() and not mode.takes_file and path.suffix == ".jaxad":
        raise UserError(
            f"--workdir={workdir}: is an exported file; --mode={name} needs the folder of the run."
        )
    if path.is_file() and mode.takes_file:
        if config is not None:
            raise UserError("--config: an exported file has its own; leave it out.")
    else:
        config = _config_of(name, config, workdir)
        _check_workdir(mode, config, Workdir(workdir))
    run = _import_run()
    interrupts.check()
    source = ""
    if mode.several_processes:
        source = processes.join(**{flag: options[flag] for flag in processes.FLAGS})
    run.configure_process(name, config)
    processes.log_devices(source)
    arguments = {
        flag.replace(".", "_"): value
        for flag, value in options.items()
        if flag not in processes.FLAGS
    }
    try:
        with external_errors_named(_texts(config)):
            getattr(run, name)(config, workdir, **arguments)
    except interrupts.Stopped:
        return interrupts.EXIT_CODE if interrupts.signal_name() == "SIGINT" else 0
    return 0


def _texts(config: ConfigDict | None) -> list[str]:
    """Returns every text in a config, some of which name external objects."""
    values = [] if config is None else config_lib.flatten(config).values()
    texts = (value if isinstance(value, tuple) else (value,) for value in values)
    return [text for items in texts for text in items if isinstance(text, str)]


def _check_flags(mode: str, workdir: str | None, options: Mapping[str, str]) -> str:
    """Checks that no flag that the mode needs is missing; returns the workdir."""
    if not workdir:
        raise UserError("--workdir: missing; name the run's folder, such as --workdir=runs/demo.")
    for name in MODES[mode].required:
        if not options[name]:
            raise UserError(f"--{name}: missing; --mode={mode} needs it, see --help.")
    return workdir


def _config_of(mode: str, config: ConfigDict | None, workdir: str) -> ConfigDict:
    """The config that a mode works with: the named one, or that of the run in the workdir."""
    source, folder = MODES[mode].config, Workdir(workdir)
    if source == "saved" or (source == "either" and config is None and folder.config.exists()):
        # Read even if a config is named: the folder must hold a run before data are generated.
        saved = run_config.read(folder)
        config = saved if config is None else config
    if config is None:
        raise UserError("--config: missing; name one, such as --config=pchvae:demo.")
    if config_lib.is_study(config) and mode != "study":
        raise UserError(f"--mode={mode}: this config is a study of many runs; use --mode=study.")
    if mode == "study" and not config_lib.is_study(config):
        raise UserError(
            "--mode=study: this config describes a single run; name a study, such as "
            "--config=studies/pchvae_table1:demo."
        )
    return config


def _check_workdir(mode: Mode, config: ConfigDict, workdir: Workdir) -> None:
    """Checks the workdir before the imports, which take seconds."""
    if mode.folder == "read":
        run_config.check_same(workdir, config)
    elif mode.folder == "run":
        run_config.check(workdir, config, evaluates=mode.evaluates, trains=mode.trains)
    else:
        workdir.check_writable(for_checkpoints=mode.folder == "study")


def _import_run() -> Any:
    """Imports `jaxad.run`, which takes seconds, and returns it."""
    relocate_library_caches()
    from jaxad import run

    return run

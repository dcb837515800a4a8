"""The command: what its flags say, the config with its overrides, and the mode that it starts.

Nothing heavy is imported before a run.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxad import config as config_lib
from jaxad.config import run_config
from jaxad.errors import UserError
from jaxad.runtime import interrupts, processes
from jaxad.storage import paths
from jaxad.storage.home import relocate_library_caches
from jaxad.storage.workdir import Workdir

#: Every mode with what it does; `jaxad.run.MODES` holds the functions.
MODES = {
    "fit": "train, evaluate every test split, write the report",
    "train": "train only",
    "evaluate": "evaluate the last checkpoint of a workdir and write the report",
    "report": "write a workdir's report again from its files, beside other runs (--compare)",
    "calibrate": "set the thresholds of a workdir's decisions by other normal images (--normals)",
    "study": "do every run of a config of configs/studies/ and write one table",
    "export": "write the last checkpoint of a workdir to one file that scores by itself",
    "score": "score files with a workdir or an exported file: tables and maps (--input, --output)",
    "inspect": "look at the data: counts, bad files, what splits share, a contact sheet",
    "profile": "time updates, trace them and compare with what the devices can do (--steps)",
}

#: Modes that several processes can do as one run.
_OF_SEVERAL = ("fit", "train", "evaluate")

#: Flags that some modes take -> whether these need them.
OPTIONS: Mapping[str, Mapping[str, bool]] = {
    **{mode: dict.fromkeys(processes.FLAGS, False) for mode in _OF_SEVERAL},
    "report": {"compare": False},
    "calibrate": {"normals": True},
    "score": {"input": True, "output": True, "rate": False, "maps": False},
    "profile": {"steps": False},
}

_OPTION_NAMES = tuple(dict.fromkeys(name for names in OPTIONS.values() for name in names))

#: Groups whose fields are a system's networks: there are others than a config has set.
_OPEN_GROUPS = ("config.optim.networks", "config.train.updates")

#: Tuples of whole numbers that are empty by default.
_OF_NUMBERS = ("config.data.volume.slices", "config.model.decoder_widths")

_USAGE = """jaxad: anomaly detection in medical images, learnt from normal images only.

  {program} --config=CONFIG --workdir=FOLDER [--mode=MODE] [--config.FIELD=VALUE ...]

  --config    a config's name or file, with a variant after a colon:
              pchvae:demo or configs/pchvae.py:demo.
              Variants: none (recommended), demo (minutes), smoke (seconds), paper.
  --workdir   the run's folder; the same command in the same folder resumes.
  --mode      {modes}.
  --compare   report: other runs' folders, as runs/b,runs/c.
  --normals   calibrate: normal images, an .npz file or what the run's data are (folder, scan).
  --input     score: an image, a scan, a DICOM series, a folder or a table of them.
  --output    score: a folder for scores.csv, patients.csv, errors.csv and maps/.
  --rate      score: false positives among normal patients, as 0.05; by default the run's.
  --maps      score: of which images: all (default), anomalous or none.
  --steps     profile: updates to time in each phase, each way (30).
  --cluster, --coordinator_address, --num_processes, --process_id, --heartbeat_seconds
              fit, train, evaluate: one of several processes; see docs/launching.md.
  --config.optim.learning_rate=3e-4   any field of the config by its path.
  --help      this text; with --config also the config's fields.
"""


def _closest(name: str, known: Sequence[str]) -> str:
    """` did you mean ...?` or nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" did you mean '{close[0]}'?" if close else ""


def _help(program: str) -> str:
    modes = "; ".join(f"{name}: {text}" for name, text in MODES.items())
    return _USAGE.format(program=program, modes=modes)


def _check_overrides(arguments: Sequence[str], config: ConfigDict) -> None:
    """Raises a UserError for the first `--config.x` that is not a field, naming the nearest."""
    fields = config_lib.flatten(config)
    for argument in arguments:
        name = argument.lstrip("-").split("=", 1)[0].removeprefix("no")
        if not argument.startswith("-") or not name.startswith("config."):
            continue
        if name in fields:
            continue
        if any(field.startswith(f"{name}.") for field in fields):
            raise UserError(f"--{name}: is a group of fields; set one of them, as --{name}.FIELD=.")
        opened = next((group for group in _OPEN_GROUPS if name.startswith(f"{group}.")), None)
        if opened is not None:
            raise UserError(
                f"--{name}: this config sets no such field, and the command line adds none; set it "
                f"in Python or in a config file of your own, under {opened}."
            )
        raise UserError(f"--{name}: no such field;{_closest(name, list(fields))}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our own flags, and the overrides of the config with their values.

    absl takes `--flag=value` and `--flag value`; both forms reach here.
    """
    own: list[str] = []
    overrides: list[str] = []
    target = own
    for argument in arguments:
        if argument.startswith("-") and not _is_number(argument):
            name = argument.lstrip("-")
            is_override = name.startswith(("config.", "noconfig."))
            target = overrides if is_override else own
        target.append(argument)
    return own, overrides


def _own_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "config name or file", flag_values=values)
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_string("mode", "fit", "what to do", flag_values=values)
    for name in _OPTION_NAMES:
        flags.DEFINE_string(name, None, "see --help", flag_values=values)
    flags.DEFINE_bool("help", False, "show the help", flag_values=values)
    return values


def _override(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """The config with overrides applied, each parsed to its field's type."""
    _check_overrides(overrides, config)
    defaults_text = config_lib.to_json(config)
    values = flags.FlagValues()
    argv = ["jaxad", *overrides]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        rest = values(argv)
    except (flags.Error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise UserError(f"'{rest[1]}': not understood; write --config.FIELD=VALUE.")
    changed = values["config"].value
    defaults = config_lib.flatten(config_lib.from_json(defaults_text))
    for field, value in config_lib.flatten(changed).items():
        if isinstance(value, tuple):
            _check_tuple(field, value, defaults[field])
    return changed


def _check_tuple(field: str, value: tuple[Any, ...], default: tuple[Any, ...]) -> None:
    """Raises a UserError where a tuple holds another kind of thing than its default.

    Tuples that are empty by default hold strings, but for `_OF_NUMBERS`. How many there must be,
    who takes them knows and says.
    """
    kinds = {type(item) for item in default} or {int if field in _OF_NUMBERS else str}
    allowed = (*kinds, int) if float in kinds else tuple(kinds)
    if not all(isinstance(item, allowed) for item in value):
        example = default or ((20, 40) if field in _OF_NUMBERS else ("stem/.*",))
        raise UserError(f"--{field}={value!r}: not understood; write it as --{field}='{example}'.")


class Arguments(NamedTuple):
    """A command line: `config` is resolved, None if none is named; `options` are the mode's own."""

    mode: str
    config: ConfigDict | None
    workdir: str | None
    wants_help: bool
    options: dict[str, str]


def parse(arguments: Sequence[str]) -> Arguments:
    """What a command line says.

    Raises:
        UserError: an argument that is not understood, with the nearest one that is.
    """
    own, overrides = _split_arguments(arguments)
    values = _own_flags()
    try:
        rest = values(["jaxad", *own])
    except flags.UnrecognizedFlagError as error:
        hint = _closest(error.flagname, ["config", "workdir", "mode", "help", *_OPTION_NAMES])
        raise UserError(f"--{error.flagname}: no such flag;{hint} see --help.") from error
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from error
    if len(rest) > 1:
        raise UserError(f"'{rest[1]}': not understood; flags are written --name=value.")
    if values.mode not in MODES:
        raise UserError(
            f"--mode={values.mode}: no such mode;{_closest(values.mode, list(MODES))} "
            f"known: {', '.join(MODES)}."
        )
    config = None
    if values.config is not None:
        config = _override(config_lib.get_config(values.config), overrides)
    elif overrides:
        raise UserError(f"{overrides[0]}: there is no config to override; name one with --config.")
    options = _options(values.mode, {name: values[name].value for name in _OPTION_NAMES})
    return Arguments(values.mode, config, values.workdir, values.help, options)


def _options(mode: str, given: Mapping[str, str | None]) -> dict[str, str]:
    """Those of the flags that the mode takes; there must be no others."""
    for name, value in given.items():
        takes = name in OPTIONS.get(mode, ())
        if value and not takes:
            modes = ", ".join(other for other, names in OPTIONS.items() if name in names)
            raise UserError(f"--{name}: --mode={mode} has no use for it; it is of {modes}.")
    return {name: given[name] or "" for name in OPTIONS.get(mode, ())}


def run(arguments: Sequence[str], program: str) -> int:
    """Does what a command line says.

    Args:
        arguments: without the program's name.
        program: how the user calls it, for `--help`.

    Returns:
        The exit code: 1 where Ctrl-C ended a training that was saved, 0 otherwise.

    Raises:
        UserError: the command line has a mistake.
        RunError: the run failed.
    """
    mode, config, workdir, wants_help, options = parse(arguments)
    if wants_help:
        print(_help(program))
        if config is not None:
            for field, value in config_lib.flatten(config).items():
                print(f"  --{field}={value}")
        return 0
    if not workdir:
        raise UserError("--workdir: missing; name the run's folder, as --workdir=runs/demo.")
    if "://" in workdir:
        raise UserError(f"--workdir={workdir}: not a local folder; name one on this machine.")
    for name, needed in OPTIONS.get(mode, {}).items():
        if needed and not options[name]:
            raise UserError(f"--{name}: missing; --mode={mode} needs it, see --help.")
    is_file = mode == "score" and paths.expand(workdir, "--workdir").is_file()
    if is_file and config is not None:
        raise UserError("--config: an exported file has its own; leave it out.")
    if mode in ("evaluate", "report", "calibrate", "export", "score") and not is_file:
        # Also with a config: data must not be generated for a folder that holds no run.
        saved = run_config.read(Workdir(workdir))
        config = saved if config is None else config
    if config is None and mode in ("inspect", "profile") and Workdir(workdir).config.exists():
        config = run_config.read(Workdir(workdir))
    if is_file:
        run = _import_run()
        run.configure_process(mode, None)
        run.MODES[mode](None, workdir, **options)
        return 0
    if config is None:
        raise UserError("--config: missing; name one, as --config=pchvae:demo.")
    if config_lib.is_study(config) != (mode == "study"):
        raise UserError(
            f"--mode={mode}: this config is of one run; name a study, as "
            "--config=studies/pchvae_table1:demo."
            if mode == "study"
            else f"--mode={mode}: this config is a study of many runs; use --mode=study."
        )
    # A folder that cannot be used is reported before the imports, which take seconds.
    if mode in ("study", "inspect"):
        Workdir(workdir).check_writable(for_checkpoints=mode == "study")
    elif mode == "score":  # what it reads need not be writable
        run_config.check_same(Workdir(workdir), config)
    else:
        run_config.check(Workdir(workdir), config)
    run = _import_run()
    interrupts.check()
    if mode in _OF_SEVERAL:
        processes.join(**options)
        options = {}
    run.configure_process(mode, config)
    try:
        run.MODES[mode](config, workdir, **options)
    except interrupts.Stopped:
        return interrupts.EXIT_CODE if interrupts.signal_name() == "SIGINT" else 0
    return 0


def _import_run() -> Any:
    """The module `jaxad.run`, whose import takes seconds."""
    relocate_library_caches()
    from jaxad import run

    return run

"""What the page says of a run as a whole: how it was made, how to repeat it, what its score is."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxad.config.repeat import PATH, repeat_command
from jaxad.evaluate.decisions import summary
from jaxad.models import score_description
from jaxad.report.run_files import RunFiles
from jaxad.runtime.progress import counted, duration
from jaxad.train import early_stopping
from jaxad.train.program import num_updates
from jaxad.train.writer import read_metrics

#: Counts in metrics.json that are shown only if they are not 0: a noun, and what follows it.
_LEFT_OUT = {
    "num_files_skipped": ("file", "skipped"),
    "num_blank_images": ("blank image", "left out"),
    "num_noisy_files": ("file", "with a noisy background"),
    "num_training_files_skipped": ("training file", "skipped"),
    "num_training_blank_images": ("blank training image", "left out"),
    "num_training_noisy_files": ("training file", "with a noisy background"),
}


def record_view(run: RunFiles, last_step: int) -> dict[str, Any]:
    """When, how long, on what and with which versions a run was made, and how to repeat it.

    `last_step` is the last step in the metrics of training. Facts that the run did not store are
    left out.
    """
    training, evaluation = run.history.get("training", []), run.history.get("evaluation")
    rows = []
    if training:
        rows.append(("Trained", _training_text(training, last_step)))
    if stop := _early_stop_text(run):
        rows.append(("Stopped early", stop))
    if evaluation:
        seconds = duration(evaluation["seconds"])
        text = f"{evaluation['started']}, in {seconds} on {evaluation['device']}"
        rows.append(("Evaluated", f"{text}; {_packages([evaluation])}"))
    is_run = run.workdir.config.exists()  # as opposed to results of an exported file
    command = repeat_command(run.config, run.workdir.path.resolve().name) if is_run else ""
    return {
        "rows": rows,
        "training": f"{_total(training)} on {_devices(training)}" if training else "",
        "command": command,
        "has_paths": f"={PATH}" in command,
    }


def _training_text(entries: Sequence[Mapping[str, Any]], last_step: int) -> str:
    text = f"{entries[0]['started']}, in {_total(entries)} on {_devices(entries)}"
    if len(entries) > 1:
        text += f"; in {len(entries)} parts, the last one from {entries[-1]['started']}"
    missing = last_step - sum(entry["steps"] for entry in entries)
    if missing > 0:
        text += f"; the time of {missing:,} of {last_step:,} updates is not recorded"
    return f"{text}; {_packages(entries)}"


def _early_stop_text(run: RunFiles) -> str:
    """Where and why the validation loss ended training early; "" if it did not."""
    patience = int(run.config.train.early_stopping)
    stopping = early_stopping.replay(patience, read_metrics(run.workdir.metrics))
    if not stopping.is_due:
        return ""
    text = f"at step {stopping.last_step:,}"
    try:
        num_images = json.loads(run.workdir.splits.read_text("utf-8"))["train"]["images"]
    except (OSError, ValueError, KeyError, TypeError):  # the members were not stored
        pass
    else:
        planned = num_updates(run.config, num_images)
        if stopping.last_step >= planned:
            return ""
        text += f" of {planned:,}"
    return (
        f"{text}; validations without a lower loss: {stopping.waited}. The validation loss chose "
        "the step, so false-positive rates of thresholds that are calibrated on val are not exact"
    )


def _total(entries: Sequence[Mapping[str, Any]]) -> str:
    return duration(sum(entry["seconds"] for entry in entries))


def _devices(entries: Sequence[Mapping[str, Any]]) -> str:
    return ", then ".join(dict.fromkeys(entry["device"] for entry in entries))


def _packages(entries: Sequence[Mapping[str, Any]]) -> str:
    texts = (f"jaxad {entry['jaxad']}, jax {entry['jax']}" for entry in entries)
    return ", then ".join(dict.fromkeys(texts))


def _old_decisions_text(run: RunFiles) -> str:
    """Says that decisions on the run's own splits precede its calibration; "" if none do."""
    now = run.stored
    if now is None:
        return ""
    old = {}
    for name, files in run.splits.items():
        decisions = files.metrics.get("decisions") or {}
        if not decisions or "external" in files.metrics:
            continue
        source, number = decisions["calibration"], decisions["normal_images_only"]
        number = number["calibration_patients"]
        if (source, number) != (now.name, now.calibration.num_patients):
            old[name] = f"{counted(number, 'normal patient')} of {source}"
    if not old:
        return ""
    return (
        f"the decisions on {', '.join(old)} use an earlier calibration, on "
        f"{' and '.join(dict.fromkeys(old.values()))}; the run is now calibrated on "
        f"{counted(now.calibration.num_patients, 'normal patient')} of {now.name}: evaluate again "
        "with --mode=evaluate."
    )


def stale_text(run: RunFiles) -> str:
    """Says that results on the run's own splits precede its checkpoint or its calibration.

    It is "" if none do.

    In a run without test splits, its calibration counts as the result.
    """
    newest = run.newest_step
    steps = {
        name: files.metrics.get("checkpoint_step", newest) for name, files in run.splits.items()
    }
    stale = {
        name: step
        for name, step in steps.items()
        if step < newest and "external" not in run.splits[name].metrics
    }
    everything = all(step < newest for step in steps.values())
    subject = "these results are" if everything else f"the results on {', '.join(stale)} are"
    if run.lacks_test_splits and run.stored is not None and run.stored.checkpoint_step < newest:
        stale, subject = {"": run.stored.checkpoint_step}, "the calibration is"
    if not stale:
        return _old_decisions_text(run)
    shown = " and ".join(map(str, sorted(set(stale.values()))))
    text = f"{subject} of checkpoint {shown}; the run is now at {newest}"
    return f"{text}: evaluate again with --mode=evaluate."


def score_view(run: RunFiles) -> dict[str, Any]:
    """What the run's score is, and the weights of its components."""
    metrics = (files.metrics for files in run.splits.values())
    weights: Mapping[str, float] = next(
        (m["score_weights"] for m in metrics if m.get("score_weights")), {}
    )
    terms = [
        name if weight == 1 else f"{weight:.4g} {name}"
        for name, weight in weights.items()
        if weight
    ]
    return {
        "description": score_description(str(run.config.get("model", {}).get("name", ""))),
        "sum": " + ".join(terms),
    }


def calibration_text(run: RunFiles) -> str:
    """The thresholds of the run's calibration; "" if it has none."""
    if run.stored is None:
        return ""
    text = summary(run.stored, float(run.config.evaluate.false_positive_rate))
    return (text[:1].upper() + text[1:]).replace("`", "")


def numbers_view(metrics: Mapping[str, Any]) -> str:
    """The plain numbers of metrics.json as one sentence; `""` if there are none."""
    parts = []
    for name, value in metrics.items():
        if not isinstance(value, int | float) or (name in _LEFT_OUT and not value):
            continue
        words = name.removeprefix("num_").replace("groups", "patients").replace("_", " ")
        if name.startswith("num_") and isinstance(value, int):
            noun, rest = _LEFT_OUT.get(name, (words.removesuffix("s"), ""))
            is_noun = name != "num_anomalous"
            text = counted(value, noun) if is_noun else f"{value:,} anomalous"
            parts.append(f"{text} {rest}".rstrip())
        else:
            parts.append(f"{words} {value:,}" if isinstance(value, int) else f"{words} {value:.4g}")
    return ", ".join(parts) + "." if parts else ""

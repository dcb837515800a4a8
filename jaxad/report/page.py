"""`report.html`: one self-contained page about a run, made from the files in its folder alone.

This module assembles the sections; `templates/` holds texts, styles and scripts. Where a run lacks
something (an evaluation, masks, slice positions), the page says so. Without JavaScript the page
shows everything except the interactive controls.
"""

import base64
import hashlib
import importlib.metadata
import json
import logging
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.errors import UserError
from jaxad.evaluate.examples import LEAST, MOST
from jaxad.evaluate.metrics import METRICS, Metric, load_metrics
from jaxad.report import figures
from jaxad.report.cases import cases_sheets, cases_view
from jaxad.report.comparison import comparison_view, is_metric, read_others, system_of
from jaxad.report.interactive import interactive_view
from jaxad.report.pictures import figure_view, save_figure
from jaxad.report.record import calibration_text, numbers_view, record_view, score_view, stale_text
from jaxad.report.run_files import RunFiles, SplitFiles, read_run
from jaxad.report.sections import (
    curves_view,
    decision_rows,
    external_view,
    reference_rows,
    training_view,
    verdict,
)
from jaxad.runtime.progress import counted
from jaxad.storage.workdir import Workdir, atomic_write

logger = logging.getLogger(__name__)

#: Scripts that run after the page is parsed, in this order; `theme.js` runs before.
_SCRIPTS = ("common.js", "cases.js", "thresholds.js", "patients.js")


def write_report(
    workdir: Workdir, compare: Sequence[Workdir] = (), config: ConfigDict | None = None
) -> Path:
    """Writes `report.html`, whose path it returns, and its figures as separate files in `figures/`.

    Args:
        workdir: the run.
        compare: other runs to compare it with.
        config: the config of the run, if the folder has none; see `read_run`.

    Raises:
        UserError: a folder does not hold a run, or a file in it is damaged.
    """
    run = read_run(workdir, config)
    metrics = _load_metrics(run.config)
    compared = comparison_view(read_others(run, compare), metrics) if compare else None
    environment = Environment(
        loader=PackageLoader("jaxad.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["count"] = counted
    environment.globals["decimals"] = {metric.name: metric.decimals for metric in metrics}
    training = training_view(workdir)
    if stale := stale_text(run):
        logger.warning(f"workdir '{workdir.path}': {stale}")
    splits = [
        {"number": number, **_split_view(run, files)}
        for number, files in enumerate(run.splits.values())
    ]
    page = environment.get_template("page.html.jinja").render(
        model=str(run.config.get("model", {}).get("name", "")),
        system=system_of(run),
        data_name=str(run.config.get("data", {}).get("name", "")),
        folder=workdir.path.resolve().name,
        seed=run.config.get("seed"),
        splits=splits,
        compared=compared,
        training=training,
        record=record_view(run, training["last_step"]),
        stale=stale,
        scoring=score_view(run),
        lacks_test_splits=run.lacks_test_splits,
        calibration=calibration_text(run),
        config=config_lib.to_json(config_lib.without_paths(run.config)),
        metric_names={metric.name: metric.title for metric in metrics},
        versions=_versions(),
        style=_source(environment, "style.css"),
        first_script=_source(environment, "theme.js"),
        script=_source(environment, *_SCRIPTS),
        digest=_digest,
        # Escapes <, > and &, so that no text in it can end the script element.
        data=htmlsafe_json_dumps(
            {"splits": [view["reader"] and view["reader"]["data"] for view in splits]},
            allow_nan=False,
            separators=(",", ":"),
        ),
    )
    with atomic_write(workdir.report) as file:
        file.write(page)
    return workdir.report


def _load_metrics(config: ConfigDict) -> tuple[Metric, ...]:
    """The metrics of a run; only those of jaxad, with a warning, if its own cannot be imported."""
    try:
        return load_metrics(config)
    except UserError as error:
        logger.warning(f"{error} The report shows only the stored values of these metrics.")
        return METRICS


def _source(environment: Environment, *names: str) -> Markup:
    """The text of files in `templates/`, unescaped."""
    assert environment.loader is not None
    sources = [environment.loader.get_source(environment, name)[0] for name in names]
    return Markup("\n".join(sources))


def _digest(script: str) -> str:
    """The hash by which a content security policy allows one script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _versions() -> dict[str, str]:
    """Versions of the main packages, as installed where the report is written."""
    versions = {"python": platform.python_version()}
    for name in ("jaxad", "jax", "flax", "optax", "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def _split_view(run: RunFiles, files: SplitFiles) -> dict[str, Any]:
    """What the page shows of one test split."""
    metrics = files.metrics
    curves, notes = curves_view(run.workdir, files)
    view: dict[str, Any] = {
        "name": files.name,
        "external": external_view(run, files),
        "metrics": {name: value for name, value in metrics.items() if is_metric(value)},
        "numbers": numbers_view(metrics),
        "json": json.dumps(metrics, indent=2) if metrics else "",
        "references": reference_rows(metrics),
        "reference_encoder": metrics.get("reference_encoder", ""),
        "verdict": verdict(metrics),
        "decisions": decision_rows(metrics),
        "curves": curves,
        "notes": notes,
        "cases": cases_view(files),
        "reader": interactive_view(files, float(run.config.evaluate.false_positive_rate)),
    }
    if view["references"]:
        scores = [row["score"] for row in view["references"] if not row["undefined"]]
        alt = f"AUROC of the system and of the reference scores on {files.name}, as in the table."
        figure = figures.comparison(scores)
        view["references_figure"] = figure_view(
            run.workdir, f"{files.name}_comparison", figure, alt
        )
    if files.examples is not None:
        # For papers and slides; the page shows the cases themselves.
        for kind in (MOST, LEAST):
            if files.examples.kinds[kind].any():
                for number, sheet in enumerate(cases_sheets(files.examples, kind), 1):
                    page = f"_{number}" if number > 1 else ""
                    save_figure(run.workdir, f"{files.name}_{kind}{page}", sheet)
    return view

"""`report.html`: one self-contained page of a run, made from the files in its folder alone.

This file puts the sections together; `templates/` holds the words, the styles and the scripts.
Whatever a run does not have (an evaluation, masks, slice positions) the page names instead of
failing. Without scripts it says the same, but for what a reader sets.
"""

import base64
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from jaxad import config as config_lib
from jaxad.evaluate.examples import LEAST, MOST, Examples
from jaxad.report import figures
from jaxad.report.cases import cases_view, sheet
from jaxad.report.comparison import comparison_view, read_others, system_of
from jaxad.report.curves import curves_view
from jaxad.report.decisions import decision_rows
from jaxad.report.interactive import interactive_view
from jaxad.report.names import METRICS
from jaxad.report.pictures import figure_view, save_figure
from jaxad.report.run_files import RunFiles, SplitFiles, read_run
from jaxad.report.training import training_view
from jaxad.report.trivial import compared_rows, lead
from jaxad.storage.workdir import Workdir, atomic_write

#: Runs before the page is shown, and after.
_FIRST_SCRIPTS = ("theme.js",)
_SCRIPTS = ("common.js", "cases.js", "thresholds.js", "patients.js")


def write_report(workdir: Workdir, compare: Sequence[Workdir] = ()) -> Path:
    """Writes `report.html` and, as files of their own, its figures in `figures/`.

    Args:
        workdir: the run.
        compare: other runs to set beside it.

    Returns:
        The page's path.

    Raises:
        UserError: a folder is no run's, or a file in it is damaged.
    """
    run = read_run(workdir)
    compared = comparison_view(read_others(run, compare)) if compare else None
    environment = Environment(
        loader=PackageLoader("jaxad.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
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
        training=training_view(workdir),
        config=config_lib.to_json(config_lib.without_paths(run.config)),
        metric_names=METRICS,
        versions=_versions(),
        style=_source(environment, "style.css"),
        first_script=_source(environment, *_FIRST_SCRIPTS),
        script=_source(environment, *_SCRIPTS),
        digest=_digest,
        data=_embedded({"splits": [view["reader"] and view["reader"]["data"] for view in splits]}),
    )
    with atomic_write(workdir.report) as file:
        file.write(page)
    return workdir.report


def _source(environment: Environment, *names: str) -> Markup:
    """Files of `templates/` as they are."""
    assert environment.loader is not None
    sources = [environment.loader.get_source(environment, name)[0] for name in names]
    return Markup("\n".join(sources))


def _digest(script: str) -> str:
    """What a content security policy calls the one script that may run."""
    found = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(found).decode('ascii')}'"


def _embedded(value: Any) -> Markup:
    """JSON for inside of a script element: no text in it can end the element."""
    return htmlsafe_json_dumps(value, allow_nan=False, separators=(",", ":"))


def _versions() -> dict[str, str]:
    """Versions of what the run needs, as installed where the report is written."""
    versions = {"python": platform.python_version()}
    for name in ("jaxad", "jax", "flax", "optax", "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def _split_view(run: RunFiles, files: SplitFiles) -> dict[str, Any]:
    """What the page says and shows of one test split."""
    metrics = files.metrics
    curves, notes = curves_view(run.workdir, files)
    view: dict[str, Any] = {
        "name": files.name,
        "metrics": {name: value for name, value in metrics.items() if _is_metric(value)},
        "numbers": {k: v for k, v in metrics.items() if isinstance(v, int | float)},
        "json": json.dumps(metrics, indent=2) if metrics else "",
        "compared": compared_rows(metrics) if metrics.get("trivial") else [],
        "decisions": decision_rows(metrics),
        "curves": curves,
        "notes": notes,
        "cases": cases_view(files),
        "reader": interactive_view(files, run.rate),
    }
    if view["compared"]:
        scores = [row["score"] for row in view["compared"]]
        alt = f"AUROC of the model and of the trivial scores on {files.name}, as in the table."
        figure = figures.comparison(scores)
        view["lead"] = lead(scores)
        view["comparison"] = figure_view(run.workdir, f"{files.name}_comparison", figure, alt)
    if view["cases"] is not None:
        assert files.examples is not None
        _save_sheets(run.workdir, files.name, files.examples)
    return view


def _save_sheets(workdir: Workdir, split: str, examples: Examples) -> None:
    """Writes contact sheets for papers and slides; the page shows the cases."""
    for kind in (MOST, LEAST):
        if examples.kinds[kind].any():
            save_figure(workdir, f"{split}_{kind}", sheet(examples, kind))


def _is_metric(value: Any) -> bool:
    return isinstance(value, Mapping) and "value" in value

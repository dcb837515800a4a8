"""A study's tables as Markdown and CSV."""

import csv
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence

from ml_collections import ConfigDict

from jaxad import models
from jaxad.evaluate.metrics import Metric
from jaxad.evaluate.trivial import LINEAR_BASELINE, PIXEL_STATISTICS
from jaxad.report.texts import difference, number, p_value
from jaxad.study.audit import BEST, FOLDS, NORMALS, Audit
from jaxad.study.results import Row, Spread, Table


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure beside the tables: what it shows, and its path in the study's folder."""

    text: str
    path: str


def title(experiment: str) -> str:
    """Returns the name of an experiment for people."""
    if experiment == PIXEL_STATISTICS:
        return "pixel statistics"
    if experiment == LINEAR_BASELINE:
        return f"residual of PCA, {LINEAR_BASELINE.removeprefix('pca_')} components"
    return models.title(experiment)


def _spread(spread: Spread | None, decimals: int = 3) -> str:
    if spread is None:
        return "–"
    text = number(spread.mean, decimals)
    if math.isnan(spread.deviation):
        return text
    return f"{text} ± {number(spread.deviation, decimals)}"


def _published(metric: Metric, pair: Sequence[float] | None) -> str:
    if pair is None:
        return "–"
    mean, deviation = pair
    return f"{mean:.{max(4, metric.decimals)}f} ± {deviation:.4f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _values(table: Table, published: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    """The table of means and standard deviations, the published ones beside them."""
    also = [m for m in table.metrics if any(m.name in row for row in published.values())]
    heading = ["system", "runs", "trained parameters", "latents", "training, s"]
    for metric in table.metrics:
        heading += [metric.heading, *([f"{metric.heading}, published"] if metric in also else [])]
    yield _line(heading)
    yield _line(["---"] * len(heading))
    for row in table.rows:
        size = ["–", "–"] if row.size is None else [f"{n:,}" for n in _size(row)]
        runs = str(max(spread.runs for spread in row.found.values()))
        cells = [title(row.experiment), runs, *size, _seconds(row)]
        for metric in table.metrics:
            cells.append(_spread(row.found.get(metric.name), metric.decimals))
            if metric in also:
                pair = published.get(row.experiment, {}).get(metric.name)
                cells.append(_published(metric, pair))
        yield _line(cells)


def _size(row: Row) -> tuple[int, int]:
    assert row.size is not None
    return row.size.parameters, row.size.latents


def _seconds(row: Row) -> str:
    return "–" if math.isnan(row.seconds) else f"{row.seconds:.0f}"


def _differences(table: Table) -> Iterator[str]:
    """The table of paired differences from the reference of each metric."""
    heading = ["system"]
    for metric in table.metrics:
        reference = title(table.references[metric.name])
        heading += [f"{metric.heading}, minus {reference}'s", "p"]
    yield _line(heading)
    yield _line(["---"] * len(heading))
    for row in table.rows:
        if not row.differences:
            continue
        cells = [title(row.experiment)]
        for metric in table.metrics:
            found = row.differences.get(metric.name)
            cells += (
                ["–", "–"]
                if found is None
                else [difference(found, metric.decimals), p_value(found)]
            )
        yield _line(cells)


def _ensembles(table: Table) -> Iterator[str]:
    """The table of ensembles of an experiment's runs."""
    metrics = [m for m in table.metrics if any(m.name in row.found for row in table.ensembles)]
    heading = ["the runs of each as one, by mean rank"]
    for metric in metrics:
        heading += [metric.heading, "minus the runs' mean", "p"]
    yield _line(heading)
    yield _line(["---"] * len(heading))
    for row in table.ensembles:
        cells = [title(row.experiment)]
        for metric in metrics:
            found, digits = row.differences[metric.name], metric.decimals
            spread = _spread(row.found[metric.name], digits)
            cells += [spread, difference(found, digits), p_value(found)]
        yield _line(cells)


#: Columns of the audit: heading, who chose the threshold, figure.
_AUDITED = (
    ("F1", BEST, "f1"),
    ("ACC", BEST, "accuracy"),
    ("SEN", BEST, "sensitivity"),
    ("SPE", BEST, "specificity"),
    ("F1, five folds", FOLDS, "f1"),
    ("F1, from normals", NORMALS, "f1"),
    ("SEN, from normals", NORMALS, "sensitivity"),
    ("SPE, from normals", NORMALS, "specificity"),
)


def _audit(audit: Audit) -> Iterator[str]:
    """One table, one glance: what papers report, what a user would get, and what is for free."""
    yield (
        "**Audit.** AUROC; F1, accuracy, sensitivity and specificity at the threshold that is best "
        "on this very split, as papers report them; F1 at the best threshold of a fifth of the "
        "patients on the rest, five times; and figures at the threshold that "
        f"{audit.patients} normal patients give for {100 * audit.rate:.3g} % false positives by "
        "image, the one that a user without labels has. Calling everything anomalous has an F1 of "
        f"{audit.all_positive_f1:.3f}. Specificity is of normal slices of patients who have "
        "anomalies elsewhere, too; the guarantee is of normal patients."
    )
    yield ""
    yield _line(["system", "AUROC", *(heading for heading, _, _ in _AUDITED)])
    yield _line(["---"] * (2 + len(_AUDITED)))
    for row in audit.rows:
        cells = [title(row.name), _spread(row.auroc)]
        for _, threshold, figure in _AUDITED:
            cells.append(_spread(row.figures.get(threshold, {}).get(figure)))
        yield _line(cells)


def markdown(
    config: ConfigDict,
    tables: Sequence[Table],
    audits: Sequence[Audit],
    pictures: Mapping[str, Sequence[Picture]],
) -> str:
    """The whole `table.md`.

    Args:
        config: of the study.
        tables: one per test split.
        audits: of the test splits with both classes.
        pictures: test split -> its figures and sheets.
    """
    data, published = config.data, config.published.to_dict()
    longer = {name: n for name, n in config.lengths.items() if n != 1}
    also = "".join(f"; {title(name)} {n:g} times as long" for name, n in longer.items())
    lines = [
        "# Results",
        "",
        f"{len(config.experiments)} experiments, seeds {', '.join(map(str, config.seeds))}; data "
        f"`{data.name}`, {data.image_size} px, data seed {data.seed}; "
        f"{config.num_epochs:g} epochs{also}.",
        "",
        "Means ± standard deviations over seeds. MSE is that of the normal slices, AUROC "
        "*corrected* that of the score minus its slice position's training mean. Differences are "
        "paired: 95 % intervals and two-sided p-values from "
        f"{config.bootstrap_resamples:,} resamples of patients (the same for both systems) and, "
        "where there are several, of each system's runs; they are not corrected for the number of "
        "comparisons. Training time is that of one run's updates at their median rate, without "
        "compilation, validation and saves.",
    ]
    if published:
        lines += ["", "*Published* figures are the paper's, of the paper's data: other images."]
    audit_of = {audit.split: audit for audit in audits}
    for table in tables:
        lines += ["", f"## {table.split}", "", *_values(table, published)]
        if any(row.differences for row in table.rows):
            lines += ["", *_differences(table)]
        if table.ensembles:
            lines += ["", *_ensembles(table)]
        if table.split in audit_of:
            lines += ["", *_audit(audit_of[table.split])]
        for picture in pictures[table.split]:
            lines += ["", f"![{picture.text}]({picture.path})"]
    return "\n".join(lines) + "\n"


def comma_separated(config: ConfigDict, tables: Sequence[Table]) -> str:
    """The whole `table.csv`: one row per test split, experiment and metric."""
    published = config.published.to_dict()
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["split", "experiment", "metric", "higher_is_better", "mean", "standard_deviation", "runs",
         "published_mean", "published_standard_deviation", "reference", "difference", "low", "high",
         "p_value", "parameters", "latents", "training_seconds"]
    )  # fmt: skip
    for table in tables:
        for row in table.rows:
            size = ("", "") if row.size is None else _size(row)
            for metric in (metric for metric in table.metrics if metric.name in row.found):
                name, found = metric.name, row.found[metric.name]
                theirs = published.get(row.experiment, {}).get(name, ("", ""))
                compared = row.differences.get(name)
                numbers = (
                    ("", "", "", "", "")
                    if compared is None
                    else (table.references[name], compared.value, compared.low, compared.high,
                          compared.p_value)
                )  # fmt: skip
                writer.writerow(
                    [table.split, row.experiment, name, metric.higher_is_better, found.mean,
                     found.deviation, found.runs, *theirs, *numbers, *size, row.seconds]
                )  # fmt: skip
    return file.getvalue()

"""A study's tables as Markdown and CSV."""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ml_collections import ConfigDict

from jaxad import models
from jaxad.evaluate.metrics import AUROC, Metric
from jaxad.evaluate.paired import Difference
from jaxad.evaluate.references import TITLES
from jaxad.report.texts import difference, number, p_value
from jaxad.study.audit import BEST, FOLDS, NORMALS, SAME_RATE, Audit
from jaxad.study.results import Spread, Table

#: Experiment -> metric -> (mean, standard deviation) or (mean,) of the paper.
Published = Mapping[str, Mapping[str, Sequence[float]]]


def title(experiment: str) -> str:
    """The title of an experiment or reference score."""
    return TITLES.get(experiment) or models.title(experiment)


def _spread(spread: Spread | None, decimals: int = 3) -> str:
    if spread is None:
        return "–"
    text = number(spread.mean, decimals)
    if math.isnan(spread.deviation):
        return text
    return f"{text} ± {number(spread.deviation, decimals)}"


def _markdown_table(rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown; the first row is the heading."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return [lines[0], re.sub("[^|]+", " --- ", lines[0]), *lines[1:]]


def _values(table: Table, published: Published) -> list[str]:
    """The table of means and standard deviations beside the published ones."""
    also = [m for m in table.metrics if any(m.name in row for row in published.values())]
    heading = ["system", "runs", "trained parameters", "latents", "training, s"]
    for metric in table.metrics:
        heading += [metric.heading, *([f"{metric.heading}, published"] if metric in also else [])]
    if table.best_reference:
        heading.append(f"{AUROC.heading}, minus {title(table.best_reference)}")
    rows = [heading]
    for row in table.rows:
        size = ["–", "–"]
        if row.size is not None:
            size = [f"{row.size.parameters:,}", f"{row.size.latents:,}"]
        seconds = "–" if math.isnan(row.seconds) else f"{row.seconds:.0f}"
        runs = str(max((spread.runs for spread in row.metrics.values()), default=0))
        cells = [title(row.experiment), runs, *size, seconds]
        for metric in table.metrics:
            cells.append(_spread(row.metrics.get(metric.name), metric.decimals))
            if metric in also:
                pair = published.get(row.experiment, {}).get(metric.name)
                digits = max(4, metric.decimals)
                cells.append(_published(pair, digits))
        if table.best_reference:
            found = row.from_best
            cells.append("–" if found is None else difference(found, AUROC.decimals))
        rows.append(cells)
    return _markdown_table(rows)


def _published(pair: Sequence[float] | None, digits: int) -> str:
    """A published mean, with its deviation where it is known."""
    if pair is None:
        return "–"
    mean, *deviations = pair
    return " ± ".join([f"{mean:.{digits}f}", *(f"{deviation:.4f}" for deviation in deviations)])


def _difference(metric: Metric, found: Difference | None) -> list[str]:
    """The cells of a difference and its p-value."""
    return ["–", "–"] if found is None else [difference(found, metric.decimals), p_value(found)]


def _differences(table: Table) -> list[str]:
    """The table of paired differences from the reference of each metric; [] if there are none."""
    rows = [["system"]]
    compared = [metric for metric in table.metrics if metric.name in table.references]
    for metric in compared:
        rows[0] += [f"{metric.heading}, minus {title(table.references[metric.name])}", "p"]
    for row in table.rows:
        if row.differences:
            cells = [title(row.experiment)]
            for metric in compared:
                cells += _difference(metric, row.differences.get(metric.name))
            rows.append(cells)
    return _markdown_table(rows) if len(rows) > 1 else []


def _ensembles(table: Table) -> list[str]:
    """The table of ensembles of an experiment's runs; [] if there are none."""
    metrics = [m for m in table.metrics if any(m.name in row.metrics for row in table.ensembles)]
    rows = [["ensemble of all runs, by mean rank"]]
    for metric in metrics:
        rows[0] += [metric.heading, "minus the mean of the runs", "p"]
    for row in table.ensembles:
        cells = [title(row.experiment)]
        for metric in metrics:
            cells.append(_spread(row.metrics[metric.name], metric.decimals))
            cells += _difference(metric, row.differences[metric.name])
        rows.append(cells)
    return _markdown_table(rows) if len(rows) > 1 else []


#: Columns of the audit: heading, source of the threshold, figure.
_AUDITED = (
    ("F1", BEST, "f1"),
    ("ACC", BEST, "accuracy"),
    ("SEN", BEST, "sensitivity"),
    ("SPE", BEST, "specificity"),
    ("F1, same rate", SAME_RATE, "f1"),
    ("F1, normals only", NORMALS, "f1"),
    ("SEN, normals only", NORMALS, "sensitivity"),
    ("SPE, normals only", NORMALS, "specificity"),
)


#: Figures over five folds: heading, name.
_FOLDED = (
    ("AUROC", "auroc"),
    ("F1", "f1"),
    ("ACC", "accuracy"),
    ("SEN", "sensitivity"),
    ("SPE", "specificity"),
)


def _folds(audit: Audit, published: Published) -> list[str]:
    """The figures over five folds beside the published ones; [] if there are none."""
    rows = [["system, five folds", *(heading for heading, _ in _FOLDED)]]
    for row in audit.rows:
        if row.folds:
            rows.append([title(row.name), *(_spread(row.folds[name]) for _, name in _FOLDED)])
        theirs = published.get(row.name, {})
        pairs = [theirs.get(f"{FOLDS}_{name}") for _, name in _FOLDED]
        if any(pairs):
            cells = [_published(pair, 4) for pair in pairs]
            rows.append([f"{title(row.name)}, published", *cells])
    return ["", *_markdown_table(rows)] if len(rows) > 1 else []


def _audit(audit: Audit, published: Published) -> list[str]:
    """The audit of one split: an explanation and its tables."""
    rows = [["system", "AUROC", *(heading for heading, _, _ in _AUDITED)]]
    for row in audit.rows:
        cells = [title(row.name), _spread(row.auroc)]
        for _, threshold, figure in _AUDITED:
            cells.append(_spread(row.figures.get(threshold, {}).get(figure)))
        rows.append(cells)
    return [
        "**Audit.** F1, accuracy (ACC), sensitivity (SEN) and specificity (SPE) at the threshold "
        "with the best F1 on this test split, as papers report them. *Same rate*: at the threshold "
        "from normal images alone for the rate of false positives that this one has, 1 - SPE, or "
        "for the smallest rate that the normal patients support. "
        "*Normals only*: "
        f"at the threshold that guarantees at most {100 * audit.rate:.3g} % false positives by "
        f"image, from {audit.patients} normal patients; the only one of these that needs no "
        "labelled anomalies. Flagging everything has an F1 of "
        f"{audit.all_positive_f1:.3f}. Specificity counts all normal slices, including those of "
        "patients with anomalies elsewhere, whom the guarantee does not cover. *Five folds*: at "
        "the best threshold of one fifth of the patients, on the others; mean ± standard deviation "
        "over the folds, each the mean over runs.",
        "",
        *_markdown_table(rows),
        *_folds(audit, published),
    ]


def markdown(
    config: ConfigDict,
    tables: Sequence[Table],
    audits: Sequence[Audit],
    pictures: Mapping[str, Sequence[tuple[str, str]]],
) -> str:
    """The text of `table.md`.

    Args:
        config: the config of the study.
        tables: one per test split.
        audits: the audits of the test splits with both classes.
        pictures: test split -> its figures: description, and path in the study's folder.
    """
    data, published = config.data, config.published.to_dict()
    longer = {name: n for name, n in config.lengths.items() if n != 1}
    also = "".join(f"; {n:g} times as many for {title(name)}" for name, n in longer.items())
    encoders = {table.reference_encoder for table in tables} - {""}
    encoder = f" (those of features use {', '.join(encoders)})" if encoders else ""
    lines = [
        "# Results",
        "",
        f"{len(config.experiments)} experiments, seeds {', '.join(map(str, config.seeds))}; data "
        f"`{data.name}`, {data.image_size} px, data seed {data.seed}; "
        f"{config.num_epochs:g} epochs{also}.",
        "",
        "Values are means ± standard deviations over seeds. MSE, PSNR and SSIM are those of "
        "normal images and their reconstructions. "
        "*Corrected* AUROC is that of the score minus the mean of validation slices at the same "
        f"slice position. Below the systems are reference scores, which need no training{encoder}; "
        "the last column compares with the best of them by its AUROC here. Differences are paired: "
        "95 % intervals and two-sided p-values from "
        f"{config.bootstrap_resamples:,} resamples of patients (the same for both systems) and, "
        "where a system has several runs, of its runs; they are not corrected for multiple "
        "comparisons. Training time is that of one run's updates at their median rate, without "
        "compilation, validation and checkpoints.",
    ]
    if published:
        lines += ["", "*Published* values are those of the paper, on its own data: other images."]
    audit_of = {audit.split: audit for audit in audits}
    for table in tables:
        audit = audit_of.get(table.split)
        lines += ["", f"## {table.split}"]
        for section in (
            _values(table, published),
            _differences(table),
            _ensembles(table),
            [] if audit is None else _audit(audit, published),
        ):
            lines += ["", *section] if section else []
        for description, path in pictures[table.split]:
            lines += ["", f"![{description}]({path})"]
    return "\n".join(lines) + "\n"


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows of values as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def table_rows(config: ConfigDict, tables: Sequence[Table]) -> Iterator[list[object]]:
    """The rows of `table.csv`: a heading, then one per test split, experiment and metric."""
    published = config.published.to_dict()
    yield ["split", "experiment", "metric", "higher_is_better", "mean", "standard_deviation",
           "runs", "published_mean", "published_standard_deviation", "reference", "difference",
           "low", "high", "p_value", "parameters", "latents", "training_seconds",
           "best_reference", "from_best", "from_best_low", "from_best_high"]  # fmt: skip
    for table in tables:
        for row in table.rows:
            size = ["", ""] if row.size is None else [row.size.parameters, row.size.latents]
            for metric in (metric for metric in table.metrics if metric.name in row.metrics):
                spread = dataclasses.astuple(row.metrics[metric.name])
                theirs = _pair(published.get(row.experiment, {}).get(metric.name))
                found = row.differences.get(metric.name)
                compared: list[object] = [""] * 5
                if found is not None:
                    compared = [table.references[metric.name], *dataclasses.astuple(found)]
                best: list[object] = [""] * 4
                if metric == AUROC and row.from_best is not None:
                    best = [table.best_reference, *dataclasses.astuple(row.from_best)[:3]]
                yield [
                    table.split, row.experiment, metric.name, metric.higher_is_better,
                    *spread, *theirs, *compared, *size, row.seconds, *best,
                ]  # fmt: skip


def audit_rows(config: ConfigDict, audits: Sequence[Audit]) -> Iterator[list[object]]:
    """The rows of `audit.csv`: a heading, then one per test split, system, threshold and figure.

    `standard_deviation` is over runs, `deviation_over_folds` over five folds.
    """
    published = config.published.to_dict()
    yield ["split", "system", "threshold", "figure", "mean", "standard_deviation", "runs",
           "deviation_over_folds", "published_mean", "published_standard_deviation"]  # fmt: skip
    for audit in audits:
        for row in audit.rows:
            theirs = published.get(row.name, {})
            yield [audit.split, row.name, "", "auroc", *dataclasses.astuple(row.auroc), "",
                   *_pair(theirs.get("auroc"))]  # fmt: skip
            if auroc := row.folds.get("auroc"):
                pair = _pair(theirs.get(f"{FOLDS}_auroc"))
                yield [audit.split, row.name, FOLDS, "auroc", auroc.mean, "", auroc.runs,
                       auroc.deviation, *pair]  # fmt: skip
            for threshold, figures in row.figures.items():
                for figure, spread in figures.items():
                    cells = dataclasses.astuple(spread)
                    folds = row.folds[figure].deviation if threshold == FOLDS else ""
                    pair = _pair(theirs.get(f"{threshold}_{figure}"))
                    yield [audit.split, row.name, threshold, figure, *cells, folds, *pair]
        yield [audit.split, "", "all_positive", "f1", audit.all_positive_f1, *[""] * 5]


def _pair(published: Sequence[float] | None) -> list[object]:
    """The cells of a published mean and its deviation; empty where they are not known."""
    return [*(published or ()), "", ""][:2]

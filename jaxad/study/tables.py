"""A study's tables as Markdown and CSV."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

from ml_collections import ConfigDict

from jaxad.evaluate.paired import METRICS, Difference
from jaxad.evaluate.trivial import LINEAR_BASELINE
from jaxad.report.names import SYSTEMS
from jaxad.study.results import Row, Spread, Table

_HEADINGS = {
    "mse": "MSE",
    "auroc": "AUROC",
    "auroc_position_corrected": "AUROC, corrected",
    "average_precision": "AP",
}


def title(experiment: str) -> str:
    """How an experiment is called where people read it."""
    if experiment == LINEAR_BASELINE:
        return f"residual of PCA, {LINEAR_BASELINE.removeprefix('pca_')} components"
    return SYSTEMS.get(experiment, experiment.replace("_", " "))


def _number(metric: str, number: float) -> str:
    if math.isnan(number):
        return "–"
    return f"{number:.5f}" if metric == "mse" else f"{number:.3f}"


def _spread(metric: str, spread: Spread | None) -> str:
    if spread is None:
        return "–"
    text = _number(metric, spread.mean)
    return text if math.isnan(spread.deviation) else f"{text} ± {_number(metric, spread.deviation)}"


def _published(metric: str, pair: Sequence[float] | None) -> str:
    if pair is None:
        return "–"
    mean, deviation = pair
    return f"{mean:.5f} ± {deviation:.4f}" if metric == "mse" else f"{mean:.4f} ± {deviation:.4f}"


def _difference(metric: str, found: Difference) -> str:
    value, low, high = (_number(metric, x) for x in (found.value, found.low, found.high))
    sign = "+" if found.value > 0 else ""
    return f"{sign}{value} [{low}, {high}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _values(table: Table, published: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    """The table of means and standard deviations, the published ones beside them."""
    also = [name for name in table.metrics if any(name in row for row in published.values())]
    heading = ["system", "runs", "trained parameters", "latents", "training, s"]
    for name in table.metrics:
        heading += [_HEADINGS[name], *([f"{_HEADINGS[name]}, published"] if name in also else [])]
    yield _line(heading)
    yield _line(["---"] * len(heading))
    for row in table.rows:
        size = ["–", "–"] if row.size is None else [f"{n:,}" for n in _size(row)]
        runs = str(max(spread.runs for spread in row.found.values()))
        cells = [title(row.experiment), runs, *size, _seconds(row)]
        for name in table.metrics:
            cells.append(_spread(name, row.found.get(name)))
            if name in also:
                cells.append(_published(name, published.get(row.experiment, {}).get(name)))
        yield _line(cells)


def _size(row: Row) -> tuple[int, int]:
    assert row.size is not None
    return row.size.parameters, row.size.latents


def _seconds(row: Row) -> str:
    return "–" if math.isnan(row.seconds) else f"{row.seconds:.0f}"


def _differences(table: Table) -> Iterator[str]:
    """The table of paired differences from the reference of each metric."""
    names = list(table.metrics)
    heading = ["system"]
    for name in names:
        reference = title(table.references[name])
        heading += [f"{_HEADINGS[name]}, minus {reference}'s", "p"]
    yield _line(heading)
    yield _line(["---"] * len(heading))
    for row in table.rows:
        if not row.differences:
            continue
        cells = [title(row.experiment)]
        for name in names:
            found = row.differences.get(name)
            cells += ["–", "–"] if found is None else [_difference(name, found), _p(found)]
        yield _line(cells)


def _p(found: Difference) -> str:
    return "–" if math.isnan(found.p_value) else f"{found.p_value:.3g}"


def markdown(
    config: ConfigDict,
    tables: Sequence[Table],
    sheets: Mapping[str, str],
    heat_maps: Mapping[str, str],
) -> str:
    """The whole `table.md`.

    Args:
        config: of the study.
        tables: one per test split.
        sheets: test split -> file name of its contact sheet.
        heat_maps: test split -> file name of its heat map.
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
    for table in tables:
        lines += ["", f"## {table.split}", "", *_values(table, published)]
        if any(row.differences for row in table.rows):
            lines += ["", *_differences(table)]
        if table.split in sheets:
            lines += ["", f"![The same slices of {table.split} through all]({sheets[table.split]})"]
        if table.split in heat_maps:
            axes = f"{config.heat_map.row_name} and {config.heat_map.column_name}"
            lines += ["", f"![AUROC over {axes}]({heat_maps[table.split]})"]
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
            for name, found in row.found.items():
                theirs = published.get(row.experiment, {}).get(name, ("", ""))
                compared = row.differences.get(name)
                numbers = (
                    ("", "", "", "", "")
                    if compared is None
                    else (table.references[name], compared.value, compared.low, compared.high,
                          compared.p_value)
                )  # fmt: skip
                writer.writerow(
                    [table.split, row.experiment, name, METRICS[name].higher_is_better, found.mean,
                     found.deviation, found.runs, *theirs, *numbers, *size, row.seconds]
                )  # fmt: skip
    return file.getvalue()

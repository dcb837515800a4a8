"""AUROC over two weights: one that a study trained with, one that mixes two parts of the score.

A score that is w a + (1 - w) b of two parts kept in `scores.csv` is known for every w without
scoring anything again (AE-FLOW's beta).
"""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from jaxad.errors import UserError
from jaxad.report import study_figures
from jaxad.study.plan import PlannedRun
from jaxad.types import Split

#: Weights w at which the score is mixed.
COLUMNS = np.linspace(0.0, 1.0, 11)


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """AUROC, the mean over an experiment's runs, [rows, columns].

    Attributes:
        values: in [0, 1].
        rows: what each row's experiment was trained with.
        columns: weight of the first part of the score.
        row_name: of the rows.
        column_name: of the columns.
    """

    values: Float[np.ndarray, "rows columns"]
    rows: tuple[float, ...]
    columns: Float[np.ndarray, " columns"]
    row_name: str
    column_name: str

    def comma_separated(self) -> str:
        """One line a row, the weights as the heading."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [f"{self.row_name} \\ {self.column_name}", *map("{:g}".format, self.columns)]
        )
        for name, row in zip(self.rows, self.values, strict=True):
            writer.writerow([f"{name:g}", *row])
        return file.getvalue()

    def figure(self, split: str) -> Figure:
        """The map as a figure."""
        names = (self.row_name, self.column_name)
        return study_figures.heat_map(
            self.values, self.rows, self.columns.tolist(), names, f"AUROC, {split}"
        )


def make_heat_map(
    config: ConfigDict, finished: Mapping[str, Sequence[PlannedRun]], name: str, split: Split
) -> HeatMap | None:
    """The heat map that `config.heat_map` asks for, of the experiments that are finished.

    Args:
        config: of the study.
        finished: experiment -> its runs.
        name: of the test split.
        split: the test split.

    Returns:
        None where the config asks for none, none of its rows is finished, or the split has one
        class.

    Raises:
        UserError: a run's scores lack one of the parts.
    """
    asked = config.heat_map
    there = [
        (finished[experiment], float(value))
        for experiment, value in zip(asked.rows, asked.row_values, strict=True)
        if experiment in finished
    ]
    if not there or split.labels.min() == split.labels.max():
        return None
    values = [np.mean([_row(run, name, asked.parts) for run in runs], axis=0) for runs, _ in there]
    return HeatMap(
        values=np.stack(values),
        rows=tuple(value for _, value in there),
        columns=COLUMNS,
        row_name=asked.row_name,
        column_name=asked.column_name,
    )


def _row(run: PlannedRun, split: str, parts: Sequence[str]) -> Float[np.ndarray, " columns"]:
    """AUROC of one run at every weight."""
    path = run.workdir.evaluation(split) / "scores.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        labels = np.array([int(row["label"]) for row in rows])
        first, second = (np.array([float(row[name]) for row in rows]) for name in parts)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(
            f"'{path}': no heat map of it ({error!r}); remove '{run.workdir.report}' and start "
            "again: the run is evaluated anew."
        ) from error
    return np.array([roc_auc_score(labels, w * first + (1 - w) * second) for w in COLUMNS])

"""AUROC over two weights: one that a study trained with, and one that mixes two score components.

A score w a + (1 - w) b of two components in `scores.csv` is known for every weight w without
scoring the images again (beta of AE-FLOW).
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from jaxad.errors import UserError
from jaxad.study.results import Scored

#: The weights w of the first component.
WEIGHTS = np.linspace(0.0, 1.0, 11)


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """AUROC by training weight (rows) and score weight (columns, `WEIGHTS`), means over runs."""

    values: Float[np.ndarray, "rows columns"]
    rows: tuple[float, ...]


def make_heat_map(config: ConfigDict, scored: Scored) -> HeatMap | None:
    """Makes the heat map that `config.heat_map` describes, with a row per experiment that has runs.

    Returns None if the config describes no heat map, no run of it is finished, or the split has
    only one class.

    Raises:
        UserError: the scores of a run lack one of the components.
    """
    pairs = zip(config.heat_map.rows, config.heat_map.row_values, strict=True)
    rows = {name: float(value) for name, value in pairs if name in scored}
    labels = [run.labels for name in rows for run in scored[name]]
    if not labels or labels[0].min() == labels[0].max():
        return None
    values = []
    for name in rows:
        missing = set(config.heat_map.parts) - set(scored[name][0].columns)
        if missing:
            raise UserError(
                f"config.heat_map.parts: the scores of '{name}' have no component "
                f"'{min(missing)}'; choose from {', '.join(scored[name][0].columns)}."
            )
        aurocs = []
        for run in scored[name]:
            first, second = (run.columns[part] for part in config.heat_map.parts)
            mixed = [w * first + (1 - w) * second for w in WEIGHTS]
            aurocs.append([roc_auc_score(run.labels, scores) for scores in mixed])
        values.append(np.mean(aurocs, axis=0))
    return HeatMap(np.stack(values), tuple(rows.values()))

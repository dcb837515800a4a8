"""AUROC over two weights: one that a study trained with, and one that mixes two score components.

A score w a + (1 - w) b of two components in `scores.csv` is known for every weight w without
scoring the images again (beta of AE-FLOW).
"""

import dataclasses
from collections.abc import Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from jaxad.config.model import make_model
from jaxad.detector.detector import SCORE
from jaxad.errors import UserError
from jaxad.evaluate.positions import CORRECTED_SCORE
from jaxad.study.results import Scored

#: The weights w of the first component.
WEIGHTS = np.linspace(0.0, 1.0, 11)


@dataclasses.dataclass(frozen=True)
class HeatMap:
    """AUROC by training weight (rows) and score weight (columns, `WEIGHTS`), means over runs."""

    values: Float[np.ndarray, "rows columns"]
    rows: tuple[float, ...]


def check_heat_map(config: ConfigDict, runs: Mapping[str, ConfigDict]) -> None:
    """Checks `config.heat_map` before any run starts.

    Args:
        config: the config of the study.
        runs: experiment -> config of one of its runs.

    Raises:
        UserError: a row is no experiment, or a part is no component of its scores; or the numbers
            of values or parts are wrong.
    """
    rows, values, parts = (config.heat_map[key] for key in ("rows", "row_values", "parts"))
    if not rows:
        return
    if len(values) != len(rows):
        raise UserError(
            f"config.heat_map.row_values: {len(values)} for {len(rows)} rows; give one each."
        )
    if len(parts) != 2:
        raise UserError(f"config.heat_map.parts: {parts}; name two components of the score.")
    for name in rows:
        if name not in runs:
            raise UserError(
                f"config.heat_map.rows: unknown experiment '{name}'; choose from {', '.join(runs)}."
            )
        model = make_model(runs[name])
        variables = jax.eval_shape(model.init_variables, jax.random.key(0))
        images = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32)
        components = jax.eval_shape(lambda *x, m=model: m.score(*x).components, variables, images)
        _check_parts(config, name, (SCORE, CORRECTED_SCORE, *components))


def _check_parts(config: ConfigDict, name: str, columns: Collection[str]) -> None:
    """Raises a UserError if the scores of an experiment lack a part of the heat map."""
    missing = set(config.heat_map.parts) - set(columns)
    if missing:
        raise UserError(
            f"config.heat_map.parts: the scores of '{name}' have no component '{min(missing)}'; "
            f"choose from {', '.join(columns)}."
        )


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
        _check_parts(config, name, scored[name][0].columns)
        aurocs = []
        for run in scored[name]:
            first, second = (run.columns[part] for part in config.heat_map.parts)
            mixed = [w * first + (1 - w) * second for w in WEIGHTS]
            aurocs.append([roc_auc_score(run.labels, scores) for scores in mixed])
        values.append(np.mean(aurocs, axis=0))
    return HeatMap(np.stack(values), tuple(rows.values()))
